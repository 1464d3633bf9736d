"""A space over a range of dates: parts, links to earlier ones, history and online rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo import publishing, schema
from feature_repo.errors import InputError
from feature_repo.manifest import part_name
from feature_repo.snapshots import SnapshotStore
from feature_repo.store import FeatureStore
from ray_jobs import embed as module
from ray_jobs.embed import Embed, latest_checkpoint, parse_dates, run

DAY = timedelta(days=1)
MONDAY = datetime(2017, 8, 14, tzinfo=UTC)


# --- dates


def test_a_range_includes_both_ends() -> None:
    days = parse_dates(Embed(dates="2017-08-14:2017-08-28:7d"))
    assert days == [MONDAY, MONDAY + 7 * DAY, MONDAY + 14 * DAY]
    assert parse_dates(Embed(dates="2017-08-14:2017-08-27:7d")) == days[:2]
    assert parse_dates(Embed(dates="2017-08-14:2017-08-14:1d")) == days[:1]
    assert parse_dates(Embed(as_of="2017-08-14")) == days[:1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "dates: give either --as-of"),
        ({"as_of": "2017-08-14", "dates": "2017-08-14:2017-08-28:7d"}, "dates: give either"),
        ({"dates": "2017-08-14"}, "dates: expected FIRST:LAST:STEP.*'2017-08-14'"),
        ({"dates": "2017-08-14:2017-08-28"}, "dates: expected FIRST:LAST:STEP"),
        ({"dates": "2017-08-14:2017-08-28:0d"}, "dates: expected FIRST:LAST:STEP"),
        ({"dates": "2017-08-14:2017-08-28:-7d"}, "dates: expected FIRST:LAST:STEP"),
        ({"dates": "2017-08-14:2017-08-28:1w"}, "dates: expected FIRST:LAST:STEP"),
        ({"dates": "2017-08-14:2017-13-28:7d"}, "dates: expected a date like.*2017-13-28"),
        ({"dates": "soon:2017-08-28:7d"}, "dates: expected a date like.*soon"),
        ({"dates": "2017-08-28:2017-08-14:7d"}, "dates: 2017-08-14 lies before 2017-08-28"),
    ],
)  # fmt: skip
def test_wrong_dates_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_dates(Embed(**settings))


def test_one_build_covers_the_dates_of_a_weekday() -> None:
    weekly = [MONDAY + 7 * k * DAY for k in range(5)]
    assert module._anchors(weekly) == weekly[-1:]
    mixed = [*weekly, MONDAY + 3 * DAY]
    assert module._anchors(mixed) == [MONDAY + 3 * DAY, weekly[-1]]
    assert len(module._anchors([MONDAY + k * DAY for k in range(10)])) == 7


# --- refusals


def test_a_pretrained_modality_has_no_space(copy: Any) -> None:
    with pytest.raises(InputError, match="one each of .'alignment', 'shopper_bert'.* got 'tabular"):
        run(Embed(workspace=copy.root, as_of="2024-06-17",
                  checkpoint=str(copy.checkpoint("tabular"))))  # fmt: skip


def test_weights_of_other_feature_definitions_are_refused(
    copy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FeatureStore, "feature_hash", lambda self, of: "f" * 64)
    with pytest.raises(InputError, match="other feature definitions.*ffffffff.*train again"):
        run(Embed(workspace=copy.root, as_of="2024-06-17"))


def test_the_latest_checkpoint_is_taken(copy: Any) -> None:
    assert latest_checkpoint(copy.workspace) == copy.checkpoint("alignment")
    copy.forget("alignment")
    with pytest.raises(InputError, match="--stage alignment"):
        latest_checkpoint(copy.workspace)


# --- a space over time


def part(place: Any, snapshot: str, kind: str, date: datetime) -> pa.Table:
    path = place.workspace.snapshots / snapshot / "embeddings" / kind / part_name(date)
    return pq.read_table(path)


def vectors(table: pa.Table) -> np.ndarray:
    return np.stack(table["embedding"].to_numpy())


def test_a_space_over_a_range_of_dates(copy: Any, trained: Any, bench: ModuleType) -> None:
    dates = [bench.AS_OF + k * bench.WEEK for k in range(4)]
    spoken = f"{dates[0]:%Y-%m-%d}:{dates[2]:%Y-%m-%d}:7d"
    first = run(Embed(workspace=copy.root, dates=spoken))["snapshot"]
    assert run(Embed(workspace=copy.root, dates=spoken))["snapshot"] == first  # reused

    parts_hold_every_user_known_then(copy, first, dates[:3], bench)
    at_the_first_date_nothing_differs(copy, trained, first, dates[0])
    second = run(Embed(workspace=copy.root, as_of=dates[3]))["snapshot"]
    earlier_parts_are_linked(copy, first, second, dates)
    history_gives_the_parts(copy, second, dates)
    online_gives_the_latest(copy, second, dates[3])


def parts_hold_every_user_known_then(
    place: Any, snapshot: str, dates: list[datetime], bench: ModuleType
) -> None:
    manifest = SnapshotStore(place.workspace).load(snapshot)
    assert set(manifest.kinds) == {"behaviour", "tabular", "search", "fused"}
    assert (manifest.as_of, manifest.trained_as_of) == (dates[-1], bench.AS_OF)
    for kind, entry in manifest.kinds.items():
        assert [Path(each).name for each in entry.parts] == [part_name(date) for date in dates]
        for date in dates:
            table = part(place, snapshot, kind, date)
            assert table.schema.equals(schema.EMBEDDING)
            assert set(table["event_timestamp"].to_pylist()) == {date}
            assert set(table["space"].to_pylist()) == {manifest.space}
            assert set(table["snapshot"].to_pylist()) == {snapshot}
            assert set(table["trained_as_of"].to_pylist()) == {bench.AS_OF}
            assert vectors(table).shape == (len(table), entry.dim)
        matrix = place.matrix(kind, snapshot)
        assert np.array_equal(matrix, vectors(part(place, snapshot, kind, dates[-1])))
        moved = [vectors(part(place, snapshot, kind, date)) for date in dates[:2]]
        assert not np.array_equal(*moved)  # a week later people are not the same


def at_the_first_date_nothing_differs(
    place: Any, trained: Any, snapshot: str, date: datetime
) -> None:
    """Later windows were built in between; the embeddings of the earlier date are the same."""
    for kind in ("behaviour", "tabular", "search", "fused"):
        assert np.array_equal(vectors(part(place, snapshot, kind, date)), trained.matrix(kind))


def earlier_parts_are_linked(place: Any, first: str, second: str, dates: list[datetime]) -> None:
    manifest = SnapshotStore(place.workspace).load(second)
    assert manifest.space == SnapshotStore(place.workspace).load(first).space
    for kind, entry in manifest.kinds.items():
        assert [Path(each).name for each in entry.parts] == [part_name(date) for date in dates]
        for date in dates[:3]:
            inside = Path("embeddings") / kind / part_name(date)
            old, new = (place.workspace.snapshots / each / inside for each in (first, second))
            assert old.samefile(new)


def history_gives_the_parts(place: Any, snapshot: str, dates: list[datetime]) -> None:
    publishing.activate(place.workspace, snapshot)
    store = FeatureStore(place.workspace)
    users = part(place, snapshot, "fused", dates[0])["user_id"].to_pylist()[:40]
    asked = [(user, date + lag) for date in dates for lag in (0 * DAY, 3 * DAY) for user in users]
    frame = pd.DataFrame(asked, columns=["user_id", "event_timestamp"])
    service = store.feast.get_feature_service("user_embeddings")
    found = store.feast.get_historical_features(entity_df=frame, features=service).to_arrow()
    held = {
        (user, date): vector
        for date in dates
        for user, vector in zip(
            part(place, snapshot, "fused", date)["user_id"].to_pylist(),
            vectors(part(place, snapshot, "fused", date)), strict=True,
        )
    }  # fmt: skip
    assert len(found) == len(asked)
    column = next(name for name in found.column_names if name.endswith("embedding"))
    columns = (found[name].to_pylist() for name in ("user_id", "event_timestamp", column))
    for user, when, vector in zip(*columns, strict=True):
        valid = max(date for date in dates if date <= when)
        assert np.array_equal(np.array(vector, np.float32), held[user, valid])


def online_gives_the_latest(place: Any, snapshot: str, date: datetime) -> None:
    store = FeatureStore(place.workspace)
    manifest = SnapshotStore(place.workspace).load(snapshot)
    for kind, entry in manifest.kinds.items():
        assert store.materialize(entry.view, manifest.as_of) == entry.count
        offline = part(place, snapshot, kind, date)
        users = offline["user_id"].to_pylist()
        found, online = store.online_embeddings(manifest, kind, [*users[::-1], "nobody"])
        assert found == users[::-1]
        assert np.array_equal(online, vectors(offline)[::-1])
    service = store.feast.get_feature_service("user_embeddings")
    rows = store.feast.get_online_features(
        features=service, entity_rows=[{"user_id": users[3]}]
    ).to_dict()
    (embedding,) = next(v for k, v in rows.items() if k.endswith("embedding"))
    assert np.array_equal(np.array(embedding, np.float32), vectors(part(place, snapshot, "fused",
                                                                        date))[3])  # fmt: skip


def test_weekly_views_read_the_same_online_and_in_history(
    trained: Any, copy: Any, bench: ModuleType
) -> None:
    store = FeatureStore(copy.workspace)
    store.apply()
    users = [f"s{n}" for n in range(0, 60, 4)]
    asked = pa.table({
        "user_id": users, "event_timestamp": pa.array([bench.AS_OF] * len(users), schema.TIMESTAMP),
    })  # fmt: skip
    for view in bench.VIEWS:
        store.materialize(view, bench.AS_OF)
        past = {row["user_id"]: row for row in store.history(view, asked).to_pylist()}
        online = store.online(view, users).to_pylist()
        assert len(online) == len(past) > 5
        if view != "purchases_weekly":  # a week without a purchase has no row
            assert len(online) == len(users)
        for row in online:
            expected = {k: v for k, v in past[row["user_id"]].items() if k != "event_timestamp"}
            assert row == expected, view
