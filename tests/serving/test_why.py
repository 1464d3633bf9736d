"""Why this user, and what an audience has in common: over HTTP, with the made-up shop's facts."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from sdk.types import PROBLEM_JSON
from serving.api import create_app
from serving.audience_store import AudienceStore
from serving.audiences import SavedAudiences
from serving.auth import ApiKeys
from serving.database import open_database
from serving.targeting import Targeting

TEXT = "households that will buy diapers"
RECENT = {"type": "behaviour", "verb": "bought", "subject": "CAT FOOD", "days": 10}


@pytest.fixture
def http(world: Any) -> TestClient:
    world.publish(1, live=True, facts=True)
    store = AudienceStore(world.workspace, open_database(world.workspace))
    targeting = Targeting(world.reading(), None, members=store.member_ids)
    app = create_app(targeting, ApiKeys.parse("the-key"), SavedAudiences(targeting, store))
    return TestClient(app, headers={"Authorization": "Bearer the-key"})


def problem(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM_JSON
    return answer.text


def test_scores_are_those_of_target_and_rules_say_who_is_in(http: TestClient) -> None:
    asked = {"user_ids": ["u3", "u30", "nobody", "u3"], "text": TEXT, "rules": RECENT}
    found = http.post("/v1/explain", json=asked).json()
    ranked = http.post("/v1/target", json={"text": TEXT, "size": 40, "exact": True}).json()
    scores = {user["user_id"]: user["score"] for user in ranked["users"]}
    assert [user["user_id"] for user in found["users"]] == ["u3", "u30"]
    assert found["missing"] == ["nobody"] and found["weeks"] == 52
    for user in found["users"]:
        assert user["score"] == pytest.approx(scores[user["user_id"]], abs=1e-5)
    assert [user["eligible"] for user in found["users"]] == [True, False]
    plain = http.post("/v1/explain", json={"user_ids": ["u3"], "text": TEXT}).json()
    assert plain["users"][0]["eligible"] is None


def test_a_sentence_is_split_as_target_splits_it(http: TestClient) -> None:
    asked = {"user_ids": ["u3"], "text": "will buy cat food, not bought in the last 10 days"}
    found = http.post("/v1/explain", json=asked).json()
    assert found["users"][0]["eligible"] is False
    assert any(note.startswith("Filtered by: not") for note in found["notes"])
    whole = http.post("/v1/explain", json=asked | {"split": False}).json()
    assert whole["users"][0]["eligible"] is None
    assert whole["users"][0]["score"] != found["users"][0]["score"]


def test_a_saved_audience_keeps_its_vector_and_its_members(http: TestClient) -> None:
    target = {"text": TEXT, "rules": RECENT, "size": 5}
    saved = http.post("/v1/audiences", json={"name": "A", "target": target}).json()["id"]
    asked = {"user_ids": ["u3"], "audience": saved}
    found = http.post("/v1/explain", json=asked).json()
    direct = http.post("/v1/explain", json={"user_ids": ["u3"], "text": TEXT, "rules": RECENT})
    assert found["users"] == direct.json()["users"]
    portrait = http.post("/v1/portrait", json={"audience": saved, "days": 10}).json()
    assert portrait == http.post("/v1/portrait", json={"target": target, "days": 10}).json() | {
        "notes": []
    }


def test_a_saved_lookalike_is_explained_by_its_own_vector(http: TestClient) -> None:
    seeds = [f"u{n}" for n in range(12)]
    plan = {"name": "Alike", "lookalike": {"seeds": seeds, "size": 5, "rules": RECENT}}
    saved = http.post("/v1/audiences", json=plan)
    assert saved.status_code == 201, saved.text
    members = http.get(f"/v1/audiences/{saved.json()['id']}/members").json()["users"]
    assert members == []  # the ten who bought lately are all among the seeds
    asked = {"user_ids": ["u3", "u30"], "audience": saved.json()["id"]}
    found = http.post("/v1/explain", json=asked).json()["users"]
    alike = {"seeds": seeds, "size": 40, "with_seeds": True}
    ranked = http.post("/v1/lookalike", json=alike).json()["users"]
    scores = {user["user_id"]: user["score"] for user in ranked}
    assert [user["score"] for user in found] == pytest.approx([scores["u3"], scores["u30"]], 1e-4)
    assert [user["eligible"] for user in found] == [True, False]


def test_a_portrait_counts_what_members_did_more_often(http: TestClient) -> None:
    # un bought cat food n days and an hour ago: u0 to u9 within ten days.
    target = {"rules": RECENT, "size": 40}
    found = http.post("/v1/portrait", json={"target": target, "days": 10}).json()
    assert (found["size"], found["population"]) == (10, 40)
    cats = next(one for one in found["behaviour"] if one["subject"] == "CAT FOOD")
    assert (cats["share"], cats["everybody"]) == (1.0, 0.25)
    assert cats["lift"] == pytest.approx((10 + 5 * 0.25) / 15 / 0.25)
    ages = {share["value"]: share for share in found["profile"]}
    youngest = ages["0 to 9.75"]
    assert (youngest["share"], youngest["everybody"]) == (1.0, 0.25)
    assert ages["29.25 to 39"]["share"] == 0.0
    assert sum(share["everybody"] for share in found["profile"]) == pytest.approx(1)


@pytest.mark.parametrize(
    "asked",
    [
        {"user_ids": [], "text": TEXT},
        {"user_ids": [f"u{n}" for n in range(21)], "text": TEXT},
        {"user_ids": ["u3"]},
        {"user_ids": ["u3"], "text": TEXT, "audience": "a"},
        {"user_ids": ["u3"], "text": TEXT, "top": 0},
        {"user_ids": ["u3"], "text": TEXT, "kind": "tabular"},
        {"user_ids": ["u3"], "text": "not bought cat food in the last 10 days"},
        {"user_ids": ["u3"], "text": TEXT, "sql": "x"},
    ],
)
def test_what_cannot_be_explained_is_refused(http: TestClient, asked: Any) -> None:
    problem(http.post("/v1/explain", json=asked), 422)


@pytest.mark.parametrize("asked", [{}, {"audience": "a", "target": {"text": TEXT}}])
def test_a_portrait_is_of_one_audience(http: TestClient, asked: Any) -> None:
    assert "exactly one of target and audience" in problem(
        http.post("/v1/portrait", json=asked), 422
    )


def test_unknown_things_are_404_and_strangers_401(http: TestClient) -> None:
    for path, asked in [
        ("explain", {"user_ids": ["u3"], "audience": "none"}),
        ("explain", {"user_ids": ["u3"], "prompt": "none"}),
        ("explain", {"user_ids": ["u3"], "text": TEXT, "kind": "ur"}),
        ("portrait", {"audience": "none"}),
    ]:
        problem(http.post(f"/v1/{path}", json=asked), 404)
        headers = {"Authorization": "Bearer x"}
        problem(http.post(f"/v1/{path}", json=asked, headers=headers), 401)


def test_nothing_to_go_by_is_told(world: Any) -> None:
    world.publish(1, live=True)  # without facts, and nothing that explains
    client = TestClient(create_app(Targeting(world.live(), None), None))
    asked = {"user_ids": ["u3"], "text": TEXT}
    assert "nothing that explains" in problem(client.post("/v1/explain", json=asked), 422)
    refused = client.post("/v1/portrait", json={"target": {"text": TEXT}})
    assert "carries no facts" in problem(refused, 422)
    problem(client.post("/v1/portrait", json={"audience": "a"}), 404)
    world.workspace.live_file.unlink()
    problem(client.post("/v1/explain", json=asked), 503)
