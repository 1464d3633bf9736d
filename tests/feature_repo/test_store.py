import os
import runpy
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import feature_repo
from feature_repo import feast_settings, schema
from feature_repo import store as module
from feature_repo.errors import InputError, ManifestError, MissingKind
from feature_repo.settings import REDIS_VARIABLE, Workspace
from feature_repo.snapshots import Manifest, SnapshotStore
from feature_repo.store import FeatureStore, open_feature_store

Publish = Callable[..., Manifest]
REPO = Path(feature_repo.__file__).parent
DAY = timedelta(days=1)


@pytest.fixture
def store(workspace: Workspace) -> FeatureStore:
    return open_feature_store(workspace)


@pytest.fixture(params=["sqlite", "redis"])
def anywhere(
    request: pytest.FixtureRequest, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> FeatureStore:
    """A store whose online rows are in SQLite, and one with a real Redis."""
    if request.param == "redis":
        monkeypatch.setenv(REDIS_VARIABLE, request.getfixturevalue("redis").url)
    return open_feature_store(workspace)


def asked(*pairs: tuple[str, datetime]) -> pa.Table:
    users, times = zip(*pairs, strict=True) if pairs else ((), ())
    columns = [pa.array(users, pa.string()), pa.array(times, schema.TIMESTAMP)]
    return pa.table(columns, names=["user_id", "event_timestamp"])


def oracle(rows: list[dict], user: str, at: datetime) -> dict | None:
    """The row that was known at a time, by the definition: latest within six days, inclusive."""
    known = [
        row
        for row in rows
        if row["user_id"] == user and at - 6 * DAY <= row["event_timestamp"] <= at
    ]
    return max(known, key=lambda row: (row["event_timestamp"], row["created"]), default=None)


@pytest.mark.parametrize("view", ["behaviour_weekly", "profile_weekly", "search_weekly"])
def test_history_equals_the_definition(
    store: FeatureStore, workspace: Workspace, tiny: ModuleType, view: str
) -> None:
    rows = [
        row
        for part in sorted((workspace.features / view).glob("*"))
        for row in pq.read_table(part).to_pylist()
    ]
    times = [week + shift for week in tiny.WEEKS for shift in (0 * DAY, -DAY / 86_400, 6 * DAY)]
    pairs = [(user, at) for user in [*tiny.USERS, "unknown"] for at in times]
    pairs += pairs[:50]  # asked for twice: comes twice
    table = store.history(view, asked(*np.random.default_rng(0).permutation(pairs).tolist()))

    names = store.features_of(view)
    expected = [
        {"user_id": user, "event_timestamp": at, **{name: row.get(name) for name in names}}
        for at, user in sorted((at, user) for user, at in pairs)
        if (row := oracle(rows, user, at)) is not None
    ]
    assert table.column_names == ["user_id", "event_timestamp", *names]
    assert table.to_pylist() == expected
    assert 0 < len(expected) < len(pairs)


def test_an_absent_week_does_not_return_an_older_one(store: FeatureStore, tiny: ModuleType) -> None:
    assert tiny.absent(6, 3) and not tiny.absent(6, 4)
    found = store.history("behaviour_weekly", asked(("6", tiny.WEEKS[3]), ("6", tiny.WEEKS[4])))
    assert found["event_timestamp"].to_pylist() == [tiny.WEEKS[4]]


def test_a_later_build_of_a_window_wins(
    store: FeatureStore, workspace: Workspace, tiny: ModuleType
) -> None:
    rebuilt = tiny.behaviour_rows(3).slice(0, 1)
    created = pa.array([tiny.WEEKS[5]], schema.TIMESTAMP)
    index = rebuilt.schema.get_field_index("created")
    rebuilt = rebuilt.set_column(index, rebuilt.schema.field("created"), created)
    index = rebuilt.schema.get_field_index("amount")
    rebuilt = rebuilt.set_column(index, rebuilt.schema.field("amount"), pa.array([-5.0]))
    # Read before the part it supersedes, so that file order cannot decide.
    tiny.write_part(workspace.features / "behaviour_weekly", "0", rebuilt)
    pair = asked((rebuilt["user_id"][0].as_py(), tiny.WEEKS[3]))
    assert store.history("behaviour_weekly", pair)["amount"].to_pylist() == [-5.0]
    store.materialize("behaviour_weekly", tiny.WEEKS[3])
    online = store.online("behaviour_weekly", pair["user_id"].to_pylist())
    assert online["amount"].to_pylist() == [-5.0]


def test_some_features_in_the_order_asked_for(store: FeatureStore, tiny: ModuleType) -> None:
    """Nobody clicked, and user 7 bought nothing: their rows exist all the same."""
    pairs = asked(("7", tiny.WEEKS[1]), ("8", tiny.WEEKS[1]), ("nobody", tiny.WEEKS[1]))
    for features in (["clicks", "bills"], ["clicks"]):
        table = store.history("behaviour_weekly", pairs, features)
        assert table.column_names == ["user_id", "event_timestamp", *features]
        assert table["user_id"].to_pylist() == ["7", "8"]
        assert table["clicks"].to_pylist() == [None, None]
        assert table.schema.field("clicks").type == pa.list_(pa.string())
    bills = store.history("behaviour_weekly", pairs, ["bills"])["bills"]
    assert bills.to_pylist() == [[], ["milk 8", "tea 1"]], "an empty list stays one"


def test_the_number_of_rows_at_a_time_changes_nothing(
    store: FeatureStore, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = asked(*[(user, week) for user in tiny.USERS for week in tiny.WEEKS])
    whole = store.history("behaviour_weekly", pairs)
    monkeypatch.setattr(module, "HISTORY_ROWS", 37)
    assert store.history("behaviour_weekly", pairs).equals(whole)
    empty = store.history("behaviour_weekly", asked())
    assert len(empty) == 0 and empty.schema == whole.schema


def test_history_of_a_hundred_thousand_rows(
    store: FeatureStore, workspace: Workspace, tiny: ModuleType
) -> None:
    """2,500 users, 40 weeks, lists of texts; measured 1.6 s on one thread, so 20 s is a defect."""
    users = np.arange(2_500)
    weeks = [tiny.WEEKS[-1] + timedelta(weeks=n) for n in range(1, 41)]
    for number, week in enumerate(weeks):
        count = len(users)
        texts = pa.array([f"text {user} {number} {n}" for user in users for n in range(3)])
        stamps = pa.array([week] * count, schema.TIMESTAMP)
        rows = {
            "user_id": pa.array([f"u{user}" for user in users]),
            "event_timestamp": stamps,
            "created": stamps,
            "bills": pa.ListArray.from_arrays(np.arange(0, 3 * count + 1, 3), texts),
            "num_events": users * 100 + number,
        }
        table = pa.table(
            [rows.get(f.name, pa.nulls(count, f.type)) for f in schema.BEHAVIOUR_WEEKLY],
            schema=schema.BEHAVIOUR_WEEKLY,
        )
        tiny.write_part(workspace.features / "behaviour_weekly", f"{week:%Y-%m-%d}", table)
    pairs = pa.table(
        {
            "user_id": pa.array(np.tile([f"u{user}" for user in users], len(weeks))),
            "event_timestamp": pa.array(np.repeat(weeks, len(users)), schema.TIMESTAMP),
        }
    )
    began = time.monotonic()
    found = store.history("behaviour_weekly", pairs, ["bills", "num_events"])
    assert time.monotonic() - began < 20
    assert len(found) == len(pairs) == 100_000
    numbers = found["num_events"].to_numpy()
    order = pairs.sort_by([("event_timestamp", "ascending"), ("user_id", "ascending")])
    assert found.select(["user_id", "event_timestamp"]).equals(order)
    expected = np.array([int(user[1:]) for user in order["user_id"].to_pylist()]) * 100
    np.testing.assert_array_equal(numbers, expected + np.repeat(np.arange(40), 2_500))
    lists = found["bills"]
    assert pc.all(pc.equal(pc.list_value_length(lists), 3)).as_py()
    assert lists[54_321].as_py() == [
        f"text {numbers[54_321] // 100} {numbers[54_321] % 100} {n}" for n in range(3)
    ]


def test_wrong_questions_are_named(store: FeatureStore, tiny: ModuleType) -> None:
    pair = asked(("1", tiny.WEEKS[1]))
    with pytest.raises(InputError, match=r"view: expected one of \['behaviour_weekly', 'profile_"):
        store.history("nope", pair)
    with pytest.raises(InputError, match=r"features: behaviour_weekly has .*, got \['price'\]"):
        store.history("behaviour_weekly", pair, ["price", "bills"])
    with pytest.raises(InputError, match=r"add \['event_timestamp'\]"):
        store.history("behaviour_weekly", pair.select(["user_id"]))
    naive = pair.set_column(1, "event_timestamp", pair[1].cast(pa.timestamp("us")))
    with pytest.raises(InputError, match="expected a timestamp with time zone"):
        store.history("behaviour_weekly", naive)


@pytest.mark.parametrize("view", ["behaviour_weekly", "profile_weekly", "search_weekly"])
@pytest.mark.parametrize("batch", [7, 5_000])
def test_online_equals_history_whatever_the_order_of_dates(
    anywhere: FeatureStore,
    tiny: ModuleType,
    view: str,
    batch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SQLite lets old rows overwrite new ones and never forgets a user; we must not show either."""
    monkeypatch.setattr(module, "WRITE_ROWS", batch)
    monkeypatch.setattr(module, "READ_ROWS", batch)
    for week in (2, 6, 3):
        at = tiny.WEEKS[week] + DAY
        written = anywhere.materialize(view, at)
        expected = anywhere.history(view, asked(*[(user, at) for user in tiny.USERS]))
        expected = expected.drop_columns(["event_timestamp"])
        found = anywhere.online(view, [*tiny.USERS, "unknown", tiny.USERS[0]])
        assert found.sort_by("user_id").equals(expected.sort_by("user_id"))
        assert written == len(expected)
        present = set(expected["user_id"].to_pylist())
        assert found["user_id"].to_pylist() == [user for user in tiny.USERS if user in present]
    assert len(anywhere.online(view, ["unknown"])) == len(anywhere.online(view, [])) == 0
    assert anywhere.online(view, ["unknown"]).schema == found.schema


def test_online_embeddings(anywhere: FeatureStore, publish: Publish, tiny: ModuleType) -> None:
    manifest = publish(3, seed=1)
    anywhere.apply()
    for entry in manifest.kinds.values():
        assert anywhere.materialize(entry.view, manifest.as_of) == tiny.NUM_USERS
    users, vectors = anywhere.online_embeddings(manifest, "tabular", ["9", "x", "2"])
    assert users == ["9", "2"] and vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, tiny.vectors_of(1, "tabular")[[8, 1]])
    users, vectors = anywhere.online_embeddings(manifest, "fused", ["x"])
    assert users == [] and vectors.shape == (0, tiny.DIM)
    with pytest.raises(MissingKind):
        anywhere.online_embeddings(manifest, "ir", ["1"])


def test_online_embeddings_from_many_threads(
    anywhere: FeatureStore, publish: Publish, tiny: ModuleType
) -> None:
    """Serving shares one store, and Feast's SQLite store one connection, between threads."""
    manifest = publish(3, seed=1)
    anywhere.apply()
    anywhere.materialize(manifest.kinds["fused"].view, manifest.as_of)
    expected = tiny.vectors_of(1, "fused")

    def read(offset: int) -> bool:
        rows = [(offset * 7 + n) % tiny.NUM_USERS for n in range(20)]
        users, vectors = anywhere.online_embeddings(
            manifest, "fused", [tiny.USERS[r] for r in rows]
        )
        return users == [tiny.USERS[r] for r in rows] and np.array_equal(vectors, expected[rows])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(200)))


def test_the_feature_hash_follows_the_definitions(workspace: Workspace, tiny: ModuleType) -> None:
    first = FeatureStore(workspace).feature_hash()
    tiny.write_part(workspace.features / "behaviour_weekly", "later", tiny.behaviour_rows(1))
    assert FeatureStore(workspace).feature_hash() == first, "more rows are not other features"
    for part in (workspace.features / "profile_weekly").iterdir():
        table = pq.read_table(part)
        pq.write_table(table.append_column("age", pa.array([1.0] * len(table))), part)
    assert FeatureStore(workspace).feature_hash() != first


def test_a_workspace_without_search_has_no_search_view(tmp_path: Path, tiny: ModuleType) -> None:
    workspace = Workspace(tmp_path)
    assert open_feature_store(workspace).feast.list_feature_views() == []
    tiny.write_part(workspace.features / "profile_weekly", "0", tiny.profile_rows(0))
    store = open_feature_store(workspace)
    store.apply()
    assert [view.name for view in store.feast.list_feature_views()] == ["profile_weekly"]
    assert store.features_of("profile_weekly") == ["store", "spend"]


def test_a_column_that_feast_cannot_hold_is_named(workspace: Workspace, tiny: ModuleType) -> None:
    for part in (workspace.features / "profile_weekly").iterdir():
        table = pq.read_table(part)
        pq.write_table(table.append_column("odd", pa.array([b"x"] * len(table))), part)
    with pytest.raises(InputError, match="profile_weekly.odd: expected .* got binary"):
        FeatureStore(workspace).apply()


def test_views_of_a_damaged_snapshot_are_kept(
    store: FeatureStore, workspace: Workspace, publish: Publish
) -> None:
    good, bad = publish(2, seed=1), publish(3, seed=2)
    store.apply()
    path = workspace.snapshots / bad.id / "manifest.json"
    text = path.read_text()
    path.write_text("{")
    store.apply()
    names = {view.name for view in store.feast.list_feature_views()}
    assert {e.view for m in (good, bad) for e in m.kinds.values()} <= names
    path.write_text(text)
    SnapshotStore(workspace).activate(bad.id)
    SnapshotStore(workspace).prune(1)
    store.apply()
    names = {view.name for view in store.feast.list_feature_views()}
    assert not {e.view for e in good.kinds.values()} & names, "a pruned snapshot's views go"


def feast_apply(workspace: Workspace) -> "subprocess.CompletedProcess[str]":
    """The command as one types it in feature_repo/; it takes seven seconds to import Feast."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPO.parent),
        "OPENFOUND_WORKSPACE": str(workspace.root),
    }
    command = [sys.executable, "-c", "from feast.cli.cli import cli; cli()", "apply"]
    return subprocess.run(
        command, cwd=REPO, env=environment, capture_output=True, text=True, check=False
    )


def registered(store: FeatureStore) -> dict[str, object]:
    views = {v.name: (v.features, v.ttl, v.batch_source) for v in store.feast.list_feature_views()}
    services = {
        s.name: [(p.name, p.name_alias) for p in s.feature_view_projections]
        for s in store.feast.list_feature_services()
    }
    return {**views, **services}


def test_feast_apply_by_hand_gives_the_same_as_ours(
    store: FeatureStore, workspace: Workspace, publish: Publish, tiny: ModuleType
) -> None:
    first, live = publish(2, seed=1), publish(3, seed=2)
    SnapshotStore(workspace).activate(live.id)
    store.apply()
    ours = registered(store)
    assert {e.view for m in (first, live) for e in m.kinds.values()} < set(ours)
    store.materialize(live.kinds["fused"].view, live.as_of)

    done = feast_apply(workspace)
    assert done.returncode == 0, done.stderr
    assert "Deleted" not in done.stdout, done.stdout
    store.feast.refresh_registry()
    assert registered(store) == ours
    assert len(store.online_embeddings(live, "fused", tiny.USERS)[0]) == tiny.NUM_USERS


def test_what_feast_scans_refuses_to_delete_by_mistake(
    workspace: Workspace, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan() -> set[str]:
        objects = runpy.run_path(str(REPO / "definitions.py"), run_name="definitions")
        return {each.name for key, each in objects.items() if key.startswith("_object_")}

    for root in ("", "relative/workspace", str(workspace.root / "missing")):
        monkeypatch.setenv("OPENFOUND_WORKSPACE", root)
        with pytest.raises(InputError, match="OPENFOUND_WORKSPACE: expected the absolute path"):
            scan()
    monkeypatch.setenv("OPENFOUND_WORKSPACE", str(workspace.root))
    assert {"user", "behaviour_weekly", "profile_weekly", "search_weekly"} == scan()
    manifest = publish(2, seed=1)
    assert manifest.kinds["fused"].view in scan()
    (workspace.snapshots / manifest.id / "manifest.json").write_text("{")
    with pytest.raises(ManifestError, match="manifest.json cannot be read"):
        scan()


def test_applying_slowly_forgets_nothing(
    store: FeatureStore, workspace: Workspace, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feast reads a registry anew once its cache is old, also in the midst of changing it."""
    from feast.infra.registry import registry

    store.apply()
    manifest = publish(2, seed=1)
    SnapshotStore(workspace).activate(manifest.id)
    clock = registry._utc_now
    ticks = iter(range(10**6))
    with monkeypatch.context() as slow:
        slow.setattr(registry, "_utc_now", lambda: clock() + timedelta(seconds=2 * next(ticks)))
        store.apply()
    assert {entry.view for entry in manifest.kinds.values()} < set(registered(store))


def test_feast_scans_one_file() -> None:
    from feast.repo_operations import get_repo_files

    assert get_repo_files(REPO) == [REPO / "definitions.py"]


def test_applying_beside_a_reader(store: FeatureStore, workspace: Workspace) -> None:
    """Feast writes its registry in place; half a file would make the reader fail."""
    wrong: list[object] = []
    stop = threading.Event()

    def read() -> None:
        reader = FeatureStore(workspace)
        while not stop.is_set():
            try:
                reader.feast.refresh_registry()
                if len(reader.feast.list_feature_views()) != 3:
                    wrong.append("views are missing")
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        FeatureStore(workspace).apply()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert not list(workspace.feast.glob(".*.tmp"))


def test_online_reads_go_on_during_a_bulk_write(
    store: FeatureStore, workspace: Workspace, tiny: ModuleType
) -> None:
    store.materialize("profile_weekly", tiny.WEEKS[2])
    with sqlite3.connect(workspace.feast / "online.db") as writer:
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        writer.execute("BEGIN EXCLUSIVE")
        assert len(store.online("profile_weekly", ["1", "2"])) == 2
    writer.close()


def test_redis_takes_the_place_of_sqlite(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REDIS_VARIABLE, "redis://cache/1")
    settings = feast_settings.of(workspace, workspace.feast / "registry.db")
    assert settings["online_store"] == {
        "type": "redis", "connection_string": "cache:6379,db=1", "skip_dedup": True
    }  # fmt: skip


def test_a_process_that_read_history_ends_quietly(workspace: Workspace) -> None:
    """ibis' open DuckDB connection would print pages of "leaked instance" at the exit."""
    program = f"""
import pyarrow as pa
from datetime import datetime, UTC
from feature_repo import schema
from feature_repo.store import open_feature_store
store = open_feature_store({str(workspace.root)!r})
when = pa.array([datetime(2017, 5, 8, tzinfo=UTC)], schema.TIMESTAMP)
rows = store.history("profile_weekly", pa.table({{"user_id": ["1"], "event_timestamp": when}}))
store.materialize("profile_weekly", when[0].as_py())
print(len(rows), len(store.online("profile_weekly", ["1"])))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("1 1\n", "", 0)
