"""A sentence in two halves, asked of a shop where the user un bought cat food n days ago."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from sdk.planning import PlanRequest
from sdk.saved import SaveAudience
from sdk.types import TargetRequest
from serving.api import create_app
from serving.audience_store import AudienceStore
from serving.audiences import SavedAudiences
from serving.database import open_database
from serving.planning import NO_FACTS
from serving.targeting import Targeting

SENTENCE = "will buy diapers next month, bought cat food in the last 10 days"
BUYERS = {f"u{n}" for n in range(10)}


@pytest.fixture
def targeting(world: Any) -> Targeting:
    return Targeting(world.reading(), None)


def test_the_hard_half_filters_and_the_soft_half_ranks(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True, facts=True)
    found = targeting.target(TargetRequest(text=SENTENCE, size=40))
    assert set(found.user_ids) == BUYERS and found.meta.eligible == 10
    assert any(note.startswith("Filtered by: bought 'CAT FOOD'") for note in found.meta.notes)
    soft = targeting.plan(PlanRequest(text=SENTENCE)).text
    assert "diapers" in soft and "cat" not in soft
    ranked = targeting.target(TargetRequest(text=soft, size=40)).user_ids
    assert found.user_ids == [user for user in ranked if user in BUYERS]


def test_a_caller_with_rules_or_without_splitting_is_taken_at_their_word(
    world: Any, targeting: Targeting
) -> None:
    world.publish(1, live=True, facts=True)
    whole = targeting.target(TargetRequest(text=SENTENCE, size=40, split=False))
    assert len(whole.user_ids) == 40 and whole.meta.notes == []
    own = {"type": "users", "ids": ["u20", "u30"]}
    given = TargetRequest.model_validate({"text": SENTENCE, "size": 40, "rules": own})
    assert set(targeting.target(given).user_ids) == {"u20", "u30"}


def test_a_sentence_without_rules_is_left_whole(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True, facts=True)
    text = "households that will buy diapers in the next four weeks"
    plan = targeting.plan(PlanRequest(text=text))
    assert (plan.text, plan.rules, plan.not_understood) == (text, None, [])
    assert targeting.target(TargetRequest(text=text)).meta.notes == [
        "There are only 40 users, so all of them are returned."
    ]


def test_rules_alone_prefer_nobody(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True, facts=True)
    found = targeting.target(TargetRequest(text="bought cat food in the last 10 days", size=40))
    assert set(found.user_ids) == BUYERS
    assert found.user_ids == sorted(found.user_ids)
    assert any("nobody is preferred" in note for note in found.meta.notes)


def test_a_snapshot_without_facts_reads_no_rules(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True)
    plan = targeting.plan(PlanRequest(text=SENTENCE))
    assert (plan.text, plan.rules, plan.notes) == (SENTENCE, None, [NO_FACTS])
    assert len(targeting.target(TargetRequest(text=SENTENCE, size=40)).user_ids) == 40


def test_a_plan_over_http_can_be_given_back(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True, facts=True)
    http: httpx.Client = TestClient(create_app(targeting, None))
    plan = http.post("/v1/plan", json={"text": SENTENCE}).json()
    assert plan["rules_in_words"].startswith("bought 'CAT FOOD'")
    halves = {"text": plan["text"], "rules": plan["rules"], "size": 40}
    by_halves = http.post("/v1/target", json=halves).json()["users"]
    assert by_halves == http.post("/v1/target", json={"text": SENTENCE, "size": 40}).json()["users"]
    assert http.post("/v1/plan", json={"text": " "}).status_code == 422
    hostile = http.post("/v1/plan", json={"text": "'); DROP TABLE facts; --"}).json()
    assert hostile["rules"] is None


@pytest.mark.parametrize(
    "said", ["bought cat food fewer than 0 times", "bought dog food in the last 10 days",
             "whose last purchase was more than 4000 days ago",
             "who searched for cat food in the last 30 days"],
)  # fmt: skip
def test_what_no_rule_can_say_is_a_note_and_no_refusal(
    world: Any, targeting: Targeting, said: str
) -> None:
    world.publish(1, live=True, facts=True)
    http: httpx.Client = TestClient(create_app(targeting, None))
    asked = {"text": f"will buy diapers next month, {said}", "size": 40}
    answer = http.post("/v1/target", json=asked)
    assert answer.status_code == 200, answer.text
    assert any(note.startswith("Not understood: ") for note in answer.json()["notes"])
    assert len(answer.json()["users"]) == 40


def test_a_saved_audience_keeps_the_rules_that_its_sentence_held(
    world: Any, targeting: Targeting
) -> None:
    world.publish(1, live=True, facts=True)
    store = AudienceStore(world.workspace, open_database(world.workspace))
    saved = SavedAudiences(targeting, store).save(
        SaveAudience(name="Cats", target=TargetRequest(text=SENTENCE, size=40)), "me"
    )
    kept = store.get(saved.id).plan
    assert kept["rules"]["subject"] == "CAT FOOD" and "cat" not in kept["text"]
