"""Scores of a published snapshot explained by its own weights, as the service does it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from encoders.query import QueryEncoder
from feature_repo.errors import NotCarried
from feature_repo.matrix import Matrix
from feature_repo.rules import parse
from feature_repo.snapshots import SnapshotStore
from feature_repo.user_rows import user_rows
from ray_jobs import retrieval
from sdk.explaining import ExplainRequest
from serving.explain import Explainer
from serving.live import LiveSnapshot, Opener
from serving.targeting import Targeting
from serving.why import Why

TEXT = "households that will buy bread"


@pytest.fixture(scope="module")
def why(trained: Any) -> Why:
    """Over the one snapshot of the trained workspace, without publishing it."""
    store = SnapshotStore(trained.workspace)
    (manifest,) = store.list()
    opener = Opener(trained.workspace, reader=lambda *_: None)
    live = LiveSnapshot(store, opener)
    opened = opener(manifest)
    live.get = lambda: opened  # type: ignore[method-assign]
    return Why(Targeting(live, None))


def explained(why: Why, **more: Any) -> Any:
    users = why._targeting.live.get().matrices["fused"].users.to_pylist()
    return why.explain(ExplainRequest(user_ids=[*users[:3], "nobody"], text=TEXT, **more))


def test_contributions_add_up_to_the_score_that_ranks(why: Why) -> None:
    opened = why._targeting.live.get()
    answer = explained(why, top=4)
    query = opened.encoders["fused"].understand(TEXT, rewrite=True).vector
    ranked = opened.matrices["fused"].scores(query)[:3]
    assert answer.missing == ["nobody"] and len(answer.users) == 3
    assert [user.score for user in answer.users] == pytest.approx(ranked.tolist(), abs=1e-4)
    for user in answer.users:
        told = sum(part.contribution for part in user.contributions) + user.rest
        assert user.base + told == pytest.approx(user.score, abs=1e-6)
        assert user.base + sum(user.modalities.values()) == pytest.approx(user.score, abs=1e-6)
        assert user.unexplained < answer.tolerance
        assert 0 < len(user.contributions) <= 8 and len(user.sentences) == 4
        assert all(event.week_end <= answer.as_of for event in user.latest)
        assert user.latest == sorted(user.latest, key=lambda e: (e.week_end, e.subject))[::-1]
        above = [sentence.deviations for sentence in user.sentences]
        assert above == sorted(above, reverse=True) and above[0] > 0


def test_the_rows_are_those_of_the_feature_store(trained: Any) -> None:
    (manifest,) = SnapshotStore(trained.workspace).list()
    users = pq.read_table(trained.workspace.root / manifest.users)["user_id"].to_pylist()[:5]
    ends = retrieval.window_grid(manifest.as_of, 6)
    joined = retrieval.weekly_rows(trained.workspace, users, ends)
    keys = [("user_id", "ascending"), ("event_timestamp", "ascending")]
    for view, table in joined.items():
        direct = user_rows(trained.workspace.features, view, users, manifest.as_of, weeks=6)
        names = table.column_names
        assert direct.select(names).to_pylist() == table.sort_by(keys).to_pylist()


def test_rows_that_were_rebuilt_explain_nothing(copy: Any) -> None:
    (manifest,) = SnapshotStore(copy.workspace).list()
    directory = copy.workspace.root / manifest.checkpoints["alignment"].path
    encoder = QueryEncoder.open(directory)
    matrix = Matrix.open(manifest, "fused", copy.workspace)
    explainer = Explainer(copy.workspace, manifest, encoder, matrix)
    user = matrix.ids[0]
    query = encoder.encode([TEXT])[0]
    tables = dict(explainer.rows([user]))
    assert explainer(tables, user, 0, query, top=2).user_id == user
    habits = tables["habits_weekly"]
    tables["habits_weekly"] = habits.filter(
        pc.less(habits["event_timestamp"], pc.max(habits["event_timestamp"]))
    )
    with pytest.raises(NotCarried, match="disagree on the windows"):
        explainer(tables, user, 0, query, top=2)
    other = explainer.rows(matrix.ids[1:2])
    moved = {view: t.set_column(t.column_names.index("user_id"), "user_id",
                                [np.array([user] * len(t), object)])
             for view, t in other.items()}  # fmt: skip
    with pytest.raises(NotCarried, match=f"give user {user!r} the score"):
        explainer(moved, user, 0, query, top=2)
    for part in (copy.workspace.features / "habits_weekly").glob("*.parquet"):
        part.unlink()
    with pytest.raises(NotCarried, match="holds no weekly rows"):
        explainer.rows([user])


def test_it_says_who_meets_the_hard_rules(why: Why) -> None:
    rules = {"type": "behaviour", "verb": "bought", "days": 30}
    answer = explained(why, rules=rules)
    assert {user.eligible for user in answer.users} <= {True, False}
    opened = why._targeting.live.get()
    allowed = opened.rules.allowed(parse(rules))
    assert [user.eligible for user in answer.users] == allowed[:3].tolist()
    json.dumps(answer.model_dump(mode="json"), allow_nan=False)
