"""What targeting answers and refuses; the text tower and the online store are fakes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from encoders.query import Query
from feature_repo.errors import InputError, MissingKind, NotCarried, UnknownAudience
from feature_repo.matrix import Matrix
from sdk.types import EmbeddingsRequest, TargetRequest
from serving.calibrated import Abstained
from serving.live import NoSentences, Opener
from serving.targeting import Targeting


@pytest.fixture
def targeting(world: Any) -> Targeting:
    return Targeting(world.live(), None)


def ask(**fields: Any) -> TargetRequest:
    return TargetRequest(**{"text": "households that will buy diapers", "size": 7, **fields})


def test_an_audience_says_where_it_comes_from(world: Any, targeting: Targeting) -> None:
    manifest = world.publish(1, live=True, synthetic=True)
    meta = targeting.target(ask()).meta
    assert (meta.snapshot, meta.space, meta.as_of) == (manifest.id, manifest.space, manifest.as_of)
    assert (meta.horizon_days, meta.population) == (28, 40)
    assert meta.notes == ["This snapshot was built from synthetic data."]


def test_a_size_above_the_population_returns_everybody_with_a_note(
    world: Any, targeting: Targeting
) -> None:
    world.publish(1, live=True)
    answer = targeting.target(ask(size=41))
    assert sorted(answer.user_ids) == sorted(targeting.live.get().matrices["fused"].ids)
    assert answer.meta.notes == ["There are only 40 users, so all of them are returned."]
    assert targeting.target(ask(size=40)).meta.notes == []


def test_a_rewritten_demand_ranks_by_its_reading_and_the_note_says_which(world: Any) -> None:
    given = world.live()._opener

    class Reads(given.encoder):  # type: ignore[misc,name-defined]
        def understand(self, text: str, *, rewrite: bool) -> Query:
            if not rewrite:
                return Query(self.encode([text])[0])
            return Query(self.encode(["diapers"])[0], ("Read as: diapers.",))

    world.publish(1, live=True)
    targeting = Targeting(world.live(Opener(world.workspace, Reads, given.features)), None)
    read = targeting.target(ask(text="nappies", size=40))
    meant = targeting.target(ask(text="diapers", size=40, rewrite=False))
    literal = targeting.target(ask(text="nappies", size=40, rewrite=False))
    assert read.user_ids == meant.user_ids != literal.user_ids
    assert read.meta.notes == ["Read as: diapers."]
    assert literal.meta.notes == []


def test_without_milvus_at_all_the_scan_answers(world: Any) -> None:
    world.publish(1, live=True)
    answer = Targeting(world.live(), None).target(ask())
    assert (answer.meta.engine, answer.meta.notes) == ("scan", [])


@pytest.mark.parametrize("kind", ["behaviour", "tabular", "search", "shopper_bert"])
def test_kinds_without_a_tower_cannot_be_asked_with_a_sentence(
    world: Any, targeting: Targeting, kind: str
) -> None:
    world.publish(1, live=True)  # has no search embeddings, which makes no difference
    with pytest.raises(NoSentences, match=r"aligned with \(fused\), got"):
        targeting.target(ask(kind=kind))


def test_unknown_kinds_are_named(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True)
    with pytest.raises(MissingKind, match="behaviour, fused, tabular, got 'taste'"):
        targeting.target(ask(kind="taste"))
    with pytest.raises(MissingKind, match="got 'search'"):
        targeting.embeddings(EmbeddingsRequest(user_ids=["u1"], kind="search"))


def test_a_snapshot_without_the_fused_kind_has_nothing_for_sentences(
    world: Any, targeting: Targeting
) -> None:
    world.publish(1, kinds=("behaviour",), live=True)
    with pytest.raises(MissingKind, match="'fused'"):
        targeting.target(ask())
    assert targeting.embeddings(EmbeddingsRequest(user_ids=["u1"], kind="behaviour")).user_ids


def test_embeddings_come_in_the_order_asked_and_missing_users_are_listed(
    world: Any, targeting: Targeting
) -> None:
    manifest = world.publish(1, live=True)
    asked = EmbeddingsRequest(user_ids=["u9", "nobody", "u1", "u9"], kind="tabular")
    answer = targeting.embeddings(asked)
    assert answer.user_ids == ["u9", "u1"] and answer.meta.missing == ["nobody"]
    assert (answer.meta.snapshot, answer.meta.kind, answer.meta.dim) == (manifest.id, "tabular", 16)
    matrix = Matrix.open(manifest, "tabular", world.workspace)
    expected = matrix.vectors[[matrix.ids.index("u9"), matrix.ids.index("u1")]]
    np.testing.assert_array_equal(answer.vectors, expected)


def test_rules_and_lists_act_before_the_cut(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True)
    everybody = targeting.target(ask(size=40)).user_ids
    out, wanted = everybody[:30], everybody[38]
    rules = {"type": "not", "rule": {"type": "users", "ids": out}}
    found = targeting.target(ask(size=5, rules=rules, include=[wanted], exclude=[everybody[30]]))
    assert found.user_ids == [*everybody[31:35], wanted]
    assert (found.meta.engine, found.meta.eligible, found.meta.notes) == ("scan", 9, [])
    short = targeting.target(ask(size=12, rules=rules))
    assert short.user_ids == everybody[30:]
    assert short.meta.notes == ["The filters leave only 10 users, so all of them are returned."]


def test_every_way_of_cutting(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True)
    whole = targeting.target(ask(size=40))
    half = targeting.target(TargetRequest(text=ask().text, share=0.5))
    assert half.user_ids == whole.user_ids[:20]
    least = float(whole.scores[9])
    good = targeting.target(TargetRequest(text=ask().text, min_score=least))
    assert good.user_ids == [
        user for user, score in zip(whole.user_ids, whole.scores, strict=True) if score >= least
    ]
    for cut in ({"min_probability": 0.5}, {"expected_buyers": 3}):
        with pytest.raises(NotCarried, match="carries no calibration"):
            targeting.target(TargetRequest(text=ask().text, **cut))


def test_probabilities_cut_where_there_is_a_calibration(world: Any) -> None:
    world.publish(1, live=True)
    given = world.live()._opener

    class Thirds:
        """The best third certainly, the next with one half, nobody else."""

        def __init__(self, scores: np.ndarray) -> None:
            order = np.argsort(np.argsort(-scores, kind="stable"))
            self.probabilities = np.select([order < 13, order < 26], [1.0, 0.5], 0.0)

        def buyers(self, rows: np.ndarray) -> tuple[float, float, float]:
            return float(self.probabilities[rows].sum()), 0.0, 40.0

    def calibrate(text: str | None, query: np.ndarray, scores: np.ndarray) -> Thirds:
        if text == "unheard of":
            raise Abstained("nothing like it was ever measured")
        return Thirds(scores)

    opener = replace(given, calibrators=lambda workspace, manifest: {"fused": calibrate})
    targeting = Targeting(world.live(opener), None)
    whole = targeting.target(ask(size=40))
    assert whole.meta.expected_buyers == 13 + 6.5
    likely = targeting.target(TargetRequest(text=ask().text, min_probability=0.5))
    assert len(likely.user_ids) == 26
    few = targeting.target(TargetRequest(text=ask().text, expected_buyers=15))
    assert few.user_ids == whole.user_ids[:17] and few.meta.expected_buyers == 15
    all_ = targeting.target(TargetRequest(text=ask().text, expected_buyers=30))
    assert len(all_.user_ids) == 40 and "may not reach" in all_.meta.notes[0]
    unknown = targeting.target(ask(text="unheard of"))
    assert unknown.meta.expected_buyers is None
    assert unknown.meta.notes == ["No probability is stated: nothing like it was ever measured."]
    with pytest.raises(Abstained):
        targeting.target(TargetRequest(text="unheard of", min_probability=0.5))


def test_rules_alone_prefer_nobody(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True)
    rules = {"type": "users", "ids": ["u3", "u12", "u25"]}
    found = targeting.target(TargetRequest(rules=rules))
    assert found.user_ids == ["u12", "u25", "u3"] and found.scores.tolist() == [0, 0, 0]
    assert "nobody is preferred" in found.meta.notes[0]


def test_an_old_snapshot_refuses_rules_only(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True)
    rules = {"type": "behaviour", "verb": "bought", "days": 30}
    with pytest.raises(NotCarried, match="carries no facts"):
        targeting.target(ask(rules=rules))
    assert len(targeting.target(ask()).user_ids) == 7


@pytest.mark.parametrize(
    "cut", [{"size": 3, "share": 0.1}, {"min_score": 0.1, "expected_buyers": 3}]
)
def test_two_cuts_are_refused(cut: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="exactly one way to choose"):
        TargetRequest(text="x", **cut)


def test_who_must_be_in_and_out_is_refused(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True)
    with pytest.raises(ValidationError, match="both included and excluded: u1"):
        ask(include=["u1", "u2"], exclude=["u1"])
    with pytest.raises(InputError, match="include: expected at most 1 users"):
        targeting.target(ask(size=1, include=["u1", "u2"]))
    with pytest.raises(UnknownAudience, match="no audience is saved here"):
        targeting.target(ask(exclude_audiences=["a1"]))
