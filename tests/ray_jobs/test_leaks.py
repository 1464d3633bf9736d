"""Nothing known at or after the cut-off reaches features, samples or embeddings, not by a bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import TimeError
from feature_repo.schema import CANONICAL
from feature_repo.snapshots import SnapshotStore
from ray_jobs import frames
from ray_jobs.build_features import build
from ray_jobs.embed import Embed, embed
from ray_jobs.embed import run as run_embed
from ray_jobs.evaluate import Evaluate
from ray_jobs.evaluate import run as run_evaluate
from ray_jobs.training_frames import training_frames

TIMED = ("events", "searches", "exposures", "profiles", "segments")
SECRET = "planted"


def known_before(world: Any, moment: Any) -> dict[str, pa.Table]:
    """The world as somebody could have exported it just before ``moment``."""
    tables = {"items": world.items}
    for name in TIMED:
        table = getattr(world, name)
        happened, known = (pc.less(table[c], moment) for c in ("timestamp", "known_at"))
        tables[name] = table.filter(pc.and_(happened, known))
    return tables


def planted_rows(
    world: Any, as_of: Any, *, new_columns: bool = True
) -> dict[str, list[dict[str, Any]]]:
    """Loud rows at, after and (known too late) before the cut-off, of old and of new users."""
    words = [("city", SECRET), *([("new", SECRET)] if new_columns else [])]
    numbers = [("age", 1e6), *([("also new", 1.0)] if new_columns else [])]
    users = [f"s{n}" for n in range(0, 120, 3)] + [f"{SECRET}{n}" for n in range(5)]
    item = world.items["item_id"][0].as_py()
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TIMED}
    late = [as_of, as_of + timedelta(microseconds=1), as_of + timedelta(days=9)]
    past = [as_of - timedelta(days=days) for days in (1, 8, 200)]
    moments = [*zip(late, late, strict=True), *zip(past, late, strict=True)]
    for n, (user, (at, known)) in enumerate((u, m) for u in users for m in moments):
        shared = {"user_id": user, "timestamp": at, "known_at": known}
        rows["events"].append({
            **shared, "event_id": f"{SECRET}{n}", "source": ("bill", "click")[n % 2],
            "item_id": (item, f"{SECRET} item")[n // 2 % 2], "amount": 1e6, "quantity": 50.0,
            "channel": SECRET, "basket_id": f"{SECRET}{n}", "place": SECRET,
        })  # fmt: skip
        rows["searches"].append({**shared, "search_id": f"{SECRET}{n}", "text": f"{SECRET} {n}"})
        rows["exposures"].append({**shared, "exposure_id": f"{SECRET}{n}", "campaign_id": "c",
                                  "kind": "redeemed", "text": None})  # fmt: skip
        rows["profiles"].append({**shared, "categorical": words, "continuous": numbers})
        rows["segments"].append({**shared, "segment": SECRET})
    return rows


@pytest.fixture
def both(world: Any, planted_place: Callable[..., Any], bench: ModuleType) -> tuple[Any, Any]:
    """Two workspaces: one ends at the cut-off, the other holds what must not be seen."""
    clean = known_before(world, bench.AS_OF)
    planted = planted_rows(world, bench.AS_OF)
    leaky = {
        name: pa.concat_tables(
            [pa.Table.from_pylist(planted[name], schema=CANONICAL[name]), getattr(world, name)]
        )
        for name in TIMED
    }
    new = {"item_id": f"{SECRET} item", "text": SECRET, "categories": [SECRET], "brand": SECRET}
    items = pa.concat_tables([pa.Table.from_pylist([new], schema=CANONICAL["items"]), world.items])
    assert all(len(leaky[name]) > len(clean[name]) for name in TIMED)
    return planted_place(clean), planted_place({**leaky, "items": items})


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.parquet")}


def test_what_is_known_too_late_changes_nothing_from_views_to_embeddings(
    both: tuple[Any, Any], trained: Any, bench: ModuleType
) -> None:
    clean, leaky = both
    for place in both:
        build(place.workspace, place.dataset, bench.AS_OF)
    views = files(clean.workspace.features)
    assert {Path(name).parent.name for name in views} == set(bench.VIEWS)
    assert files(leaky.workspace.features) == views

    directories = [
        place.workspace.root / training_frames(place.shared())["outputs"][0] for place in both
    ]
    tables = {*bench.VIEWS, "samples", "facts", "catalogue", "outcomes"} - {"purchases_weekly"}
    assert set(frames.read(directories[0])) == tables
    assert min(len(table) for table in frames.read(directories[0]).values()) > 50
    assert files(directories[0]) == files(directories[1])

    weights = trained.checkpoint("alignment")
    snapshots = [
        embed(place.workspace, place.dataset, weights, [bench.AS_OF])["snapshot"] for place in both
    ]
    for kind in ("behaviour", "tabular", "search", "fused"):
        ours, theirs = (p.matrix(kind, s) for p, s in zip(both, snapshots, strict=True))
        assert len(ours) > 100 and np.array_equal(ours, theirs), kind
        assert np.array_equal(ours, trained.matrix(kind)), kind  # trained beside its own future
    names = [
        pq.read_table(p.workspace.root / f"snapshots/{s}/users.parquet")
        for p, s in zip(both, snapshots, strict=True)
    ]
    assert names[0].equals(names[1])

    for path in leaky.workspace.cache.glob("*.parquet"):
        texts = pq.read_table(path)["text"].to_pylist()
        assert texts and not [text for text in texts if SECRET in text.lower()]
    for path in (*leaky.workspace.features.rglob("*.parquet"), *directories[1].glob("*.parquet")):
        assert SECRET.encode() not in path.read_bytes()


def test_the_same_rows_known_in_time_do_show(
    world: Any, planted_place: Callable[..., Any], trained: Any, bench: ModuleType
) -> None:
    """That the test above can fail: a week earlier the planted rows are history."""
    rows = planted_rows(world, bench.AS_OF - bench.WEEK, new_columns=False)
    tables = {
        name: pa.concat_tables(
            [getattr(world, name), pa.Table.from_pylist(rows[name], schema=CANONICAL[name])]
        )
        for name in TIMED
    }
    place = planted_place({**tables, "items": world.items})
    build(place.workspace, place.dataset, bench.AS_OF)
    record = embed(place.workspace, place.dataset, trained.checkpoint("alignment"), [bench.AS_OF])
    for kind in ("behaviour", "tabular", "search", "fused"):
        theirs = place.matrix(kind, record["snapshot"])
        ours = trained.matrix(kind)
        assert len(theirs) > len(ours) or not np.array_equal(theirs, ours), kind


# --- a space begins with its weights


@pytest.mark.parametrize(
    "asked", [{"as_of": "2024-06-10"}, {"dates": "2024-06-10:2024-06-24:7d"}], ids=["one", "range"]
)
def test_a_space_is_not_written_for_dates_before_its_weights(
    asked: dict[str, str], copy: Any
) -> None:
    before = [manifest.id for manifest in SnapshotStore(copy.workspace).list()]
    parts = files(copy.workspace.features)
    with pytest.raises(TimeError, match="2024-06-17.*2024-06-10"):
        run_embed(Embed(workspace=copy.root, **asked))
    assert [manifest.id for manifest in SnapshotStore(copy.workspace).list()] == before
    assert files(copy.workspace.features) == parts


def test_a_space_is_not_evaluated_for_dates_before_its_weights(copy: Any, tmp_path: Path) -> None:
    """A manifest that somebody wrote by hand: such figures would be too good to be true."""
    (manifest,) = SnapshotStore(copy.workspace).list()
    path = copy.workspace.snapshots / manifest.id / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "trained_as_of": "2024-07-01T00:00:00Z"}))
    dataset = json.loads(copy.workspace.dataset_file.read_text())
    copy.workspace.dataset_file.write_text(json.dumps({**dataset, "source": "complete-journey"}))
    settings = Evaluate(workspace=copy.root, snapshot=manifest.id, out=str(tmp_path / "report"),
                        only="zero-shot")  # fmt: skip
    with pytest.raises(TimeError, match="2024-07-01.*2024-06-17"):
        run_evaluate(settings)
    assert not (tmp_path / "report").exists()
