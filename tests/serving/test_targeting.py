"""What targeting answers and refuses; the text tower and the online store are fakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from encoders.query import Query
from feature_repo.errors import MissingKind
from feature_repo.matrix import Matrix
from sdk.types import EmbeddingsRequest, TargetRequest
from serving.live import Opener
from serving.targeting import NoSentences, Targeting


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
