"""Tuning a prompt and asking with it: targeting and HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

import sdk
from encoders.prompt import Prompt
from encoders.query import Query
from feature_repo.errors import InputError, ManifestError, SpaceMismatch, UnknownPrompt
from feature_repo.matrix import Matrix
from sdk.types import PROBLEM_JSON, PromptRequest, TargetRequest
from serving.api import create_app
from serving.auth import ApiKeys
from serving.live import NoSentences, Opener
from serving.nearest import Nearest
from serving.targeting import Targeting

KEY, READER = "the-key", "the-reader"
TEXT = "households that will buy diapers"
SEEDS = {"positives": ["u1", "u2", "u3"], "negatives": ["u4", "u6", "u7", "u8"]}


class TunableEncoder:
    """The hashing text tower, with the real posterior."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain

    def encode(self, texts: Any) -> np.ndarray:
        return self._plain.encode(texts)

    def understand(self, text: str, *, rewrite: bool) -> Query:
        return self._plain.understand(text, rewrite=rewrite)

    def tune(self, *given: Any, **how: Any) -> Prompt:
        return self._plain.tune(*given, **how)


class ReadingEncoder(TunableEncoder):
    """The same, with a rewriter that reads everything as one sentence."""

    def understand(self, text: str, *, rewrite: bool) -> Query:
        if not rewrite:
            return super().understand(text, rewrite=False)
        return Query(self.encode(["nappies"])[0], ("Read as: nappies.",))


class MatrixSearcher:
    """Milvus, answered from the matrix of the live snapshot."""

    def __init__(self, world: Any) -> None:
        self.world = world

    def search(self, collection: str, query: Any, k: int) -> tuple[list[str], Any]:
        manifest = self.world.store.live()
        return Matrix.open(manifest, "fused", self.world.workspace).scan(query, k)


def targeting_with(world: Any, encoder: type[TunableEncoder]) -> Targeting:
    plain = world.live()._opener
    opener = Opener(world.workspace, lambda path: encoder(plain.encoder(path)), plain.features)
    return Targeting(world.live(opener), Nearest(lambda: MatrixSearcher(world)))


@pytest.fixture
def targeting(world: Any) -> Targeting:
    return targeting_with(world, TunableEncoder)


@pytest.fixture
def client(targeting: Targeting) -> Iterator[httpx.Client]:
    application = create_app(targeting, ApiKeys.parse(f"{KEY},{READER}:read"))
    from fastapi.testclient import TestClient

    with TestClient(application, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


def tune(targeting: Targeting, **changes: Any) -> sdk.Prompt:
    return targeting.tune(PromptRequest(**{"text": TEXT, **SEEDS, **changes}))


# --- targeting


def test_a_tuned_prompt_ranks_as_its_query_with_milvus_and_the_scan_alike(
    world: Any, targeting: Targeting
) -> None:
    manifest = world.publish(1, live=True)
    made = tune(targeting)
    assert (made.text, made.space, made.snapshot) == (TEXT, manifest.space, manifest.id)
    assert (made.kind, made.positives, made.negatives) == ("fused", 3, 4)
    found = [
        targeting.target(TargetRequest(prompt=made.prompt, size=12, exact=exact))
        for exact in (False, True)
    ]
    assert [one.meta.engine for one in found] == ["milvus", "scan"]
    assert found[0].user_ids == found[1].user_ids
    np.testing.assert_array_equal(found[0].scores, found[1].scores)
    assert f"Ranked by a prompt for {TEXT!r} that 3 + 4 seed users sharpened." in (
        found[0].meta.notes
    )
    plain = targeting.target(TargetRequest(text=TEXT, size=12))
    assert plain.user_ids != found[0].user_ids


def test_positive_seeds_rise_and_negative_ones_fall(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True)

    def gap(**asked: str) -> float:
        answer = targeting.target(TargetRequest(size=40, **asked))
        place = {user: rank for rank, user in enumerate(answer.user_ids)}
        low, high = (np.mean([place[u] for u in SEEDS[n]]) for n in ("positives", "negatives"))
        return float(high - low)

    assert gap(prompt=tune(targeting).prompt) > gap(text=TEXT)


def test_a_prompt_lives_as_long_as_its_space(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True)
    made = tune(targeting)
    world.publish(2, live=True)  # a later day of the same space
    targeting.live.refresh()
    assert targeting.target(TargetRequest(prompt=made.prompt)).meta.space == made.space
    world.publish(3, live=True, space="ffffffffff", checkpoint=world.checkpoint("two"))
    targeting.live.refresh()
    with pytest.raises(SpaceMismatch, match="tune it again"):
        targeting.target(TargetRequest(prompt=made.prompt))


def test_a_restart_keeps_prompts(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True)
    made = tune(targeting)
    again = Targeting(targeting.live, None)
    assert again.target(TargetRequest(prompt=made.prompt)).meta.engine == "scan"


def test_what_cannot_be_tuned_is_named(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True)
    with pytest.raises(InputError, match=r"negatives: .* 2 who are not: 'x', 'y'"):
        tune(targeting, negatives=["u4", "x", "y"])
    with pytest.raises(NoSentences):
        tune(targeting, kind="tabular")
    assert not world.workspace.prompts.exists()


def test_text_beside_a_prompt_must_be_its_own(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True)
    made = tune(targeting)
    both = targeting.target(TargetRequest(prompt=made.prompt, text=TEXT))
    assert both.user_ids == targeting.target(TargetRequest(prompt=made.prompt)).user_ids
    with pytest.raises(InputError, match="sharpens 'households"):
        targeting.target(TargetRequest(prompt=made.prompt, text="cheese"))
    with pytest.raises(UnknownPrompt):
        targeting.target(TargetRequest(prompt="../LIVE"))


def test_a_prompt_is_never_rewritten_and_a_sentence_is(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True)
    made = tune(targeting)
    reading = targeting_with(world, ReadingEncoder)
    tuned_there = tune(reading)
    expected = targeting.target(TargetRequest(prompt=made.prompt, size=40))
    for asked in ({}, {"text": TEXT}, {"rewrite": True}):
        for prompt in (made.prompt, tuned_there.prompt):
            answer = reading.target(TargetRequest(prompt=prompt, size=40, **asked))
            assert answer.user_ids == expected.user_ids
            np.testing.assert_array_equal(answer.scores, expected.scores)
            assert answer.meta.notes == expected.meta.notes
    read = reading.target(TargetRequest(text=TEXT, size=40))
    nappies = targeting.target(TargetRequest(text="nappies", size=40))
    assert read.user_ids == nappies.user_ids
    assert read.meta.notes == ["Read as: nappies."]


def test_a_damaged_prompt_is_named(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True)
    made = tune(targeting)
    (world.workspace.prompts / made.prompt / "prompt.json").unlink()
    with pytest.raises(ManifestError, match=made.prompt):
        targeting.target(TargetRequest(prompt=made.prompt))


# --- HTTP


def test_over_http(world: Any, client: httpx.Client) -> None:
    world.publish(1, live=True)
    made = client.post("/v1/prompts", json={"text": TEXT, **SEEDS})
    assert made.status_code == 200, made.text
    answer = client.post("/v1/target", json={"prompt": made.json()["prompt"], "size": 3})
    assert answer.status_code == 200 and len(answer.json()["users"]) == 3


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("target", {"prompt": "0" * 16}, 404, "no prompt of this workspace"),
        ("target", {"prompt": "../../LIVE"}, 404, "no prompt of this workspace"),
        ("target", {"prompt": ""}, 422, "prompt"),
        ("target", {"size": 3}, 422, "text"),
        ("prompts", {"text": "", **SEEDS}, 422, "text"),
        ("prompts", {"text": TEXT, **SEEDS, "positives": ["u1", "u2"]}, 422, "positives"),
        ("prompts", {"text": TEXT, **SEEDS, "negatives": ["u4"] * 9}, 422, "negatives"),
        ("prompts", {"text": TEXT, **SEEDS, "negatives": ["u4", "u5", "u1"]}, 422, "both"),
        ("prompts", {"text": TEXT, **SEEDS, "positives": ["a", "b", "c"]}, 422, "are not"),
        ("prompts", {"text": TEXT, **SEEDS, "kind": "taste"}, 404, "taste"),
        ("prompts", {"text": TEXT, **SEEDS, "kind": "tabular"}, 422, "aligned with"),
    ],
)
def test_mistakes_are_problems(
    world: Any, client: httpx.Client, path: str, body: Any, status: int, said: str
) -> None:
    world.publish(1, live=True)
    answer = client.post(f"/v1/{path}", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM_JSON
    assert said in answer.text


def test_another_space_is_a_conflict(world: Any, client: httpx.Client) -> None:
    world.publish(1, live=True)
    made = client.post("/v1/prompts", json={"text": TEXT, **SEEDS}).json()
    other = world.publish(2, space="ffffffffff", checkpoint=world.checkpoint("two"))
    assert client.post(f"/v1/snapshots/{other.id}/activate").status_code == 200
    assert client.post("/v1/target", json={"prompt": made["prompt"]}).status_code == 409


def test_readers_may_use_prompts_but_not_make_them(world: Any, client: httpx.Client) -> None:
    world.publish(1, live=True)
    made = client.post("/v1/prompts", json={"text": TEXT, **SEEDS}).json()
    reader = {"Authorization": f"Bearer {READER}"}
    refused = client.post("/v1/prompts", json={"text": TEXT, **SEEDS}, headers=reader)
    assert refused.status_code == 403
    used = client.post("/v1/target", json={"prompt": made["prompt"]}, headers=reader)
    assert used.status_code == 200
    assert client.post("/v1/prompts", json={}, headers={"Authorization": ""}).status_code == 401
