"""Prompts whose tokens are learnt (eq. 16), by HTTP: kept, used, bounded, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from encoders.alignment import AlignmentConfig, FoundModel
from encoders.behaviour import BehaviourConfig
from encoders.prompt import PAPER, tune
from encoders.query import QueryEncoder
from encoders.text import TextConfig
from feature_repo.prompts import PromptStore
from sdk.types import PROBLEM_JSON
from serving.api import create_app
from serving.auth import ApiKeys
from serving.live import Opener
from serving.prompts import TUNE_SECONDS, Prompts
from serving.targeting import Targeting

KEY = "the-key"
TEXT = "households that will buy diapers"
SEEDS = {"positives": ["u1", "u2", "u3"], "negatives": ["u4", "u6", "u7", "u8"]}
ASKED = {"text": TEXT, **SEEDS, "method": "tokens"}


@pytest.fixture
def model(tiny_llama: str, world: Any) -> FoundModel:
    """A text tower over a tiny language model, as wide as the world's vectors."""
    torch.manual_seed(0)
    behaviour = BehaviourConfig(
        line_width=8, dim=8, line_hidden=8, temporal_dim=8, layers=1, heads=2, windows=4,
        pretrain_windows=4, forecast_windows=1,
    )  # fmt: skip
    dim = world.publish(1, live=True).entry("fused").dim
    text = TextConfig(model=tiny_llama, dim=dim, hidden=8, lora_rank=2, max_tokens=60)
    return FoundModel(
        AlignmentConfig(behaviour, text=text, windows=4, fusion_dim=8, fusion_layers=1,
                        fusion_heads=2)
    ).eval()  # fmt: skip


@pytest.fixture
def targeting(world: Any, model: FoundModel) -> Targeting:
    encoder = QueryEncoder(model, None)  # type: ignore[arg-type]
    opener = Opener(world.workspace, lambda path: encoder, world.live()._opener.features)
    return Targeting(world.live(opener), None)


@contextmanager
def asking(targeting: Targeting) -> Iterator[httpx.Client]:
    application = create_app(targeting, ApiKeys.parse(KEY))
    with TestClient(application, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.fixture
def client(targeting: Targeting) -> Iterator[httpx.Client]:
    with asking(targeting) as client:
        yield client


def test_learnt_tokens_are_kept_and_rank_in_place_of_a_sentence(
    world: Any, targeting: Targeting, model: FoundModel, client: httpx.Client
) -> None:
    answer = client.post("/v1/prompts", json=ASKED)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert (made["method"], made["positives"], made["negatives"]) == ("tokens", 3, 4)

    matrix = targeting.live.get().matrices["fused"]
    places = [[matrix.ids.index(user) for user in SEEDS[sort]] for sort in SEEDS]
    positives, negatives = (matrix.vectors[rows] for rows in places)
    expected = tune(model, TEXT, positives, negatives, matrix.vectors, PAPER)
    stored = PromptStore(world.workspace).load(made["prompt"], space=made["space"], kind="fused")
    np.testing.assert_array_equal(stored.tokens, expected.tokens_TE)
    np.testing.assert_array_equal(stored.query, expected.query_D)
    kept = stored.record.settings
    assert stored.tokens.shape[0] == PAPER.num_tokens
    assert kept["anchor"] == 0.0 and kept["hardest"] is None

    for asked in ({"prompt": made["prompt"]}, {"prompt": made["prompt"], "text": TEXT}):
        found = client.post("/v1/target", json={**asked, "size": 40}).json()
        scores = matrix.vectors @ expected.query_D
        told = {row["user_id"]: row["score"] for row in found["users"]}
        assert told == pytest.approx(dict(zip(matrix.ids, scores.tolist(), strict=True)), abs=1e-5)
        assert any("3 + 4 seed users sharpened by learnt tokens" in n for n in found["notes"])
    reached = client.post("/v1/reach", json={"prompt": made["prompt"]})
    assert reached.status_code == 200 and reached.json()["population"] == 40


def test_the_default_is_as_it_was(world: Any, client: httpx.Client) -> None:
    plain = {name: value for name, value in ASKED.items() if name != "method"}
    made = client.post("/v1/prompts", json=plain).json()
    assert made["method"] == "posterior"
    stored = PromptStore(world.workspace).load(made["prompt"], space=made["space"], kind="fused")
    assert len(stored.tokens) == 0
    notes = client.post("/v1/target", json={"prompt": made["prompt"]}).json()["notes"]
    assert any(note.endswith("3 + 4 seed users sharpened.") for note in notes)
    guess = client.post("/v1/prompts", json={**ASKED, "method": "guess"})
    assert guess.status_code == 422 and "'posterior' or 'tokens'" in guess.text


class SlowEncoder:
    """Learns until it is let go; all else is the real encoder's."""

    def __init__(self, real: QueryEncoder) -> None:
        self.real, self.begun, self.go = real, threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def tune(self, *given: Any, each_step: Callable[[], None] | None = None, **how: Any) -> Any:
        if how.get("method") == "tokens":
            self.begun.set()
            assert self.go.wait(30)
        return self.real.tune(*given, each_step=each_step, **how)


def test_others_are_answered_meanwhile_and_a_second_prompt_is_put_off(
    world: Any, model: FoundModel
) -> None:
    slow = SlowEncoder(QueryEncoder(model, None))  # type: ignore[arg-type]
    opener = Opener(world.workspace, lambda path: slow, world.live()._opener.features)
    answers: list[httpx.Response] = []
    with asking(Targeting(world.live(opener), None)) as client:
        first = threading.Thread(
            target=lambda: answers.append(client.post("/v1/prompts", json=ASKED))
        )
        first.start()
        try:
            assert slow.begun.wait(30)
            assert client.get("/healthz").status_code == 200
            assert client.post("/v1/target", json={"text": TEXT, "size": 3}).status_code == 200
            assert client.post("/v1/prompts", json={"text": TEXT, **SEEDS}).status_code == 200
            refused = client.post("/v1/prompts", json=ASKED)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert refused.headers["content-type"] == PROBLEM_JSON
            assert "one at a time" in refused.json()["detail"]
        finally:
            slow.go.set()
            first.join(30)
        assert answers[0].status_code == 200
        assert client.post("/v1/prompts", json=ASKED).status_code == 200


def test_learning_ends_when_its_time_is_over(world: Any, targeting: Targeting) -> None:
    times = iter([0.0, 1.0, 2.0, TUNE_SECONDS + 1])
    targeting._prompts = Prompts(world.workspace, clock=lambda: next(times))
    with asking(targeting) as client:
        late = client.post("/v1/prompts", json=ASKED)
        assert late.status_code == 503 and "retry-after" not in late.headers
        assert "not learnt within 45 s" in late.json()["detail"]
        assert not world.workspace.prompts.exists()
        targeting._prompts._clock = lambda: 0.0
        assert client.post("/v1/prompts", json=ASKED).status_code == 200, "the next may learn"
