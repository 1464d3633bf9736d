"""A user from raw events gets the vector that batch embedding gives."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import NoLiveSnapshot, NotCarried, TimeError
from feature_repo.schema import CANONICAL
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.sources import CanonicalTables
from ray_jobs.build_features import build
from ray_jobs.encode import UserEncoder
from ray_jobs.space import embed_at, open_space

CLOSE = 1e-5
SAID = [name for name, kind in CANONICAL.items() if "user_id" in kind.names]


@pytest.fixture(scope="module")
def encode(trained: Any) -> UserEncoder:
    """With the weights of the one snapshot of the trained workspace, without publishing it."""
    (manifest,) = SnapshotStore(trained.workspace).list()
    return UserEncoder(trained.workspace, manifest)


def raw(tables: dict[str, pa.Table], *users: str) -> dict[str, pa.Table]:
    """All that is known of these users."""
    among = pa.array(users, pa.string())
    return {n: tables[n].filter(pc.is_in(tables[n]["user_id"], value_set=among)) for n in SAID}


def canonical(world: CanonicalTables) -> dict[str, pa.Table]:
    return {name: getattr(world, name) for name in CANONICAL}


def test_the_vector_is_the_published_one(
    trained: Any, encode: UserEncoder, world: CanonicalTables, bench: ModuleType
) -> None:
    """Rows of the weeks after are at hand too, and must not be read."""
    (manifest,) = SnapshotStore(trained.workspace).list()
    listed = pq.read_table(trained.workspace.root / manifest.users)["user_id"].to_pylist()
    tables, published = canonical(world), trained.matrix()
    searched = set(world.searches["user_id"].to_pylist())
    assert 0 < sum(user in searched for user in listed[:12]) < 12
    for row, user in enumerate(listed[:12]):
        users, vectors = encode(raw(tables, user), bench.AS_OF)
        assert users == [user]
        assert np.abs(vectors[0] - published[row]).max() <= CLOSE, user
    users, vectors = encode(raw(tables, *listed[:12]), bench.AS_OF)
    assert users == listed[:12] and np.abs(vectors - published[:12]).max() <= CLOSE


def test_it_is_that_of_a_batch_at_the_edges_too(
    encode: UserEncoder,
    trained: Any,
    world: CanonicalTables,
    bench: ModuleType,
    planted_place: Callable[[dict[str, pa.Table]], Any],
) -> None:
    """Who lapsed before all windows, who only searches, and of whom there is no profile."""
    lapsed, searcher, unknown = world.searches["user_id"].unique().to_pylist()[:3]
    tables = canonical(world)
    long_ago = pa.scalar(bench.AS_OF - 10 * bench.WEEK, tables["events"]["known_at"].type)
    for name in ("events", "searches"):
        mine = pc.equal(tables[name]["user_id"], lapsed)
        late = pc.greater(tables[name]["known_at"], long_ago)
        tables[name] = tables[name].filter(pc.invert(pc.and_(mine, late)))
    for name, user in (("events", searcher), ("profiles", unknown)):
        tables[name] = tables[name].filter(pc.not_equal(tables[name]["user_id"], user))
    place = planted_place(tables)
    date = bench.AS_OF + timedelta(days=3)  # another weekday than the published one
    build(place.workspace, place.dataset, date)
    space = open_space(place.workspace, [trained.checkpoint("alignment")])
    listed, batch = embed_at(place.workspace, place.dataset, space, date)
    for user in (lapsed, searcher, unknown):
        users, vectors = encode(raw(tables, user), date)
        expected = batch["fused"][listed.index(user)]
        assert users == [user] and np.abs(vectors[0] - expected).max() <= CLOSE, user


def test_whom_nothing_is_known_of_yet_is_left_out(
    encode: UserEncoder, world: CanonicalTables, bench: ModuleType
) -> None:
    tables = canonical(world)
    rows = raw(tables, "s0")
    later = raw(tables, "s1")["events"]
    at = pa.array([bench.AS_OF] * len(later), later["known_at"].type)
    rows["events"] = pa.concat_tables(
        [rows["events"], later.set_column(3, later.schema.field("known_at"), at)]
    )
    users, vectors = encode(rows, bench.AS_OF)
    assert users == ["s0"] and len(vectors) == 1
    with pytest.raises(TimeError, match="trained_as_of"):
        encode(rows, bench.AS_OF - bench.WEEK)


def test_it_needs_a_snapshot_with_an_alignment(trained: Any, tmp_path: Any) -> None:
    with pytest.raises(NoLiveSnapshot):
        UserEncoder.open(Workspace(tmp_path))
    (manifest,) = SnapshotStore(trained.workspace).list()
    other = manifest.model_copy(
        update={"checkpoints": {"shopper_bert": manifest.checkpoints["alignment"]}}
    )
    with pytest.raises(NotCarried, match="holds .'shopper_bert'., expected 'alignment'"):
        UserEncoder(trained.workspace, other)
