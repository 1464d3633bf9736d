"""ShopperBERT through the one loop and the one publish path, on the synthetic world."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from encoders import checkpoint
from encoders.purchases import PurchaseCollate, PurchaseHistory
from encoders.shopper_bert import ShopperBert, ShopperBertConfig
from encoders.text import LineEncoder
from feature_repo import schema
from feature_repo.errors import InputError, NotCarried
from feature_repo.schema import CANONICAL
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.store import FeatureStore
from ray_jobs import (
    explanation_study,
    export,
    frames,
    pipeline,
    presets,
    pretext,
    rewriting_study,
    train,
)
from ray_jobs.build_features import build, ingest
from ray_jobs.embed import embed
from ray_jobs.evaluation.masked_purchases import scores, seen_counts
from ray_jobs.explanation_study import ExplanationStudy
from ray_jobs.publish import Publish
from ray_jobs.publish import run as publish
from ray_jobs.rewriting_study import RewritingStudy
from ray_jobs.space import encode_purchases
from ray_jobs.training_frames import Run
from ray_jobs.workers import Workers

NOBODY = "only searched"


@pytest.fixture
def place(world: Any, planted_place: Any, bench: ModuleType) -> Any:
    """The world, and one user who only ever searched."""
    tables = {name: getattr(world, name) for name in CANONICAL}
    row = {"search_id": "x", "user_id": NOBODY, "timestamp": bench.AS_OF - bench.WEEK,
           "known_at": bench.AS_OF - bench.WEEK, "text": "tea"}  # fmt: skip
    tables["searches"] = pa.concat_tables(
        [tables["searches"], pa.Table.from_pylist([row], schema=schema.SEARCHES)]
    )
    place = planted_place(tables)
    build(place.workspace, place.dataset, bench.AS_OF)
    return place


def weights(directory: Path) -> dict[str, Any]:
    return checkpoint.load(directory)[0].state_dict()


def test_trained_embedded_and_exported_alone(place: Any, bench: ModuleType, tmp_path: Path) -> None:
    tiny = bench.tiny_preset()
    words = replace(tiny.shopper_bert, pooling="words", words=6)
    shared = place.shared(preset=replace(tiny, shopper_bert=words, embeds=("shopper_bert",)))
    snapshot = pipeline.train_and_embed(shared)
    directory = place.checkpoint("shopper_bert")
    model, info = checkpoint.load(directory, expect="shopper_bert")
    assert isinstance(model, ShopperBert) and info.trained_as_of == bench.AS_OF.isoformat()
    assert {*info.metrics} == {*model.config.vocabularies} and info.metrics["year"] == 0
    assert not list(place.workspace.checkpoints.glob("alignment-*")), "nothing else is trained"

    manifest = SnapshotStore(place.workspace).load(snapshot)
    assert set(manifest.kinds) == set(manifest.checkpoints) == {"shopper_bert"}
    entry = manifest.kinds["shopper_bert"]
    assert (entry.dim, entry.count, entry.cold) == (2 * 16 + 6, manifest.num_users, 1)
    asked = {"workspace": place.root, "snapshot": manifest.id, "out": str(tmp_path)}
    for study in (
        lambda: rewriting_study.run(RewritingStudy(**asked)),
        lambda: explanation_study.run(ExplanationStudy(**asked)),
    ):
        with pytest.raises(NotCarried, match="weights of shopper_bert, this needs alignment"):
            study()
    matrix = place.matrix("shopper_bert", snapshot)
    assert matrix[:, 32:].any(0).all(), "every product word was found and counted"
    users = pq.read_table(place.workspace.root / manifest.users)["user_id"].to_pylist()
    assert [users[row] for row in np.flatnonzero(~matrix.any(1))] == [NOBODY]

    out = tmp_path / "e.parquet"
    export.run(
        export.Export(workspace=place.root, kind="shopper_bert", out=str(out), snapshot=manifest.id)
    )
    table = pq.read_table(out)
    assert table["user_id"].to_pylist() == users and {*table["space"].to_pylist()} == {
        manifest.space
    }

    # Read the log as a caller would who has all of it at hand: the one collate, the same vectors.
    weekly = pq.read_table(place.workspace.features / "purchases_weekly")
    history = PurchaseHistory(weekly, LineEncoder(place.workspace.cache))
    collate = PurchaseCollate(history, model.config.vocabularies)
    some = users[::17]
    np.testing.assert_allclose(encode_purchases(model, collate, some), matrix[::17], atol=1e-5)


def test_the_seed_decides_and_a_warm_start_goes_on(copy: Any, bench: ModuleType) -> None:
    first = copy.train("shopper_bert")
    directory = copy.workspace.root / first["checkpoint"]
    ours = weights(directory)
    warm = copy.train("shopper_bert", preset="still", from_=[str(directory)])
    kept = weights(copy.workspace.root / warm["checkpoint"])
    assert all(np.array_equal(kept[name], each) for name, each in ours.items())
    copy.forget("shopper_bert")
    again = weights(copy.workspace.root / copy.train("shopper_bert")["checkpoint"])
    assert all(np.array_equal(again[name], each) for name, each in ours.items())
    losses = copy.progress("shopper_bert")[-1]["losses"]
    assert losses["category_1"] > 0 and losses["hour"] > 0 and losses["category_4"] == 0


def test_what_becomes_known_later_changes_no_vector(
    world: Any, planted_place: Any, bench: ModuleType
) -> None:
    def vectors(known_at: datetime) -> np.ndarray:
        """With purchases of somebody else's planted into five users' past, known at that time."""
        past = world.events.filter(pc.less(world.events["timestamp"], bench.AS_OF))
        rows = past.filter(pc.equal(past["status"], "successful")).sort_by("timestamp")[-5:]
        planted = [
            {**row, "event_id": f"late{n}", "user_id": f"s{n}", "known_at": known_at}
            for n, row in enumerate(rows.to_pylist())
        ]
        tables = {name: getattr(world, name) for name in CANONICAL}
        more = pa.Table.from_pylist(planted, schema=schema.EVENTS)
        tables["events"] = pa.concat_tables([tables["events"], more])
        place = planted_place(tables)
        build(place.workspace, place.dataset, bench.AS_OF)
        if not trained:
            trained.append(place.workspace.root / place.train("shopper_bert")["checkpoint"])
        record = embed(place.workspace, place.dataset, trained[0], [bench.AS_OF])
        return place.matrix("shopper_bert", record["snapshot"])

    trained: list[Path] = []
    never, late = vectors(bench.AS_OF + 9 * bench.WEEK), vectors(bench.AS_OF)
    assert np.array_equal(never, late)
    in_time = vectors(bench.AS_OF - bench.WEEK)
    assert (never != in_time).any(1).sum() == 5, "that the test can fail"


@pytest.mark.milvus
def test_published_beside_the_fused_embedding(copy: Any, bench: ModuleType) -> None:
    directory = copy.workspace.root / copy.train("shopper_bert")["checkpoint"]
    (alone,) = SnapshotStore(copy.workspace).list()
    record = embed(copy.workspace, copy.dataset, copy.checkpoint("alignment"), [bench.AS_OF],
                   [directory])  # fmt: skip
    both = SnapshotStore(copy.workspace).load(record["snapshot"])
    assert set(both.kinds) == {*alone.kinds, "shopper_bert"} and both.space != alone.space
    assert set(both.checkpoints) == {"alignment", "shopper_bert"}
    for kind in alone.kinds:
        assert np.array_equal(copy.matrix(kind, both.id), copy.matrix(kind, alone.id)), kind
    publish(Publish(workspace=copy.root, snapshot=both.id))
    store = FeatureStore(copy.workspace)
    found, vectors = store.online_embeddings(both, "shopper_bert", ["s5", "s1", "nobody"])
    assert found == ["s5", "s1"]
    users = pq.read_table(copy.workspace.root / both.users)["user_id"].to_pylist()
    matrix = copy.matrix("shopper_bert", both.id)
    assert np.array_equal(vectors, matrix[[users.index("s5"), users.index("s1")]])
    services = {service.name for service in store.feast.list_feature_services()}
    assert "shopper_bert_embeddings" in services


def test_the_rarest_and_the_heaviest_are_left_out_of_training_only() -> None:
    day = 86_400_000_000
    sizes = {f"u{n:03}": 10 for n in range(98)} | {"rare": 4, "heavy": 900}
    rows = [
        {"user_id": user, "products": ['{"text":"milk","categories":[]}'] * size,
         "bought_at": [day * 300 * k // max(size - 1, 1) for k in range(size)]}
        for user, size in sizes.items()
    ]  # fmt: skip
    history = PurchaseHistory(
        pa.Table.from_pylist(rows), lambda texts: np.ones((len(texts), 2), np.float32)
    )
    config = ShopperBertConfig()
    left = {history.user_ids[user] for user in pretext.eligible(history, config)}
    assert {*sizes} - left == {"rare", "heavy"}, (
        "4 purchases in 300 days are under one in two months"
    )
    everybody = replace(config, least_per_month=0.0, top_share=0.0)
    assert len(pretext.eligible(history, everybody)) == 100
    with pytest.raises(InputError, match="least_per_month.*none of 100"):
        pretext.eligible(history, replace(config, least_per_month=1e6))


def test_stretches_are_drawn_from_what_makes_the_vector() -> None:
    row = {"user_id": "a", "products": ['{"text":"milk","categories":[]}'] * 100,
           "bought_at": list(range(100))}  # fmt: skip
    history = PurchaseHistory(
        pa.Table.from_pylist([row]), lambda texts: np.ones((len(texts), 2), np.float32)
    )
    config = ShopperBertConfig(length=10, stretches=3)
    rng = np.random.default_rng(0)
    drawn = [pretext.stretch(history, 0, config, rng) for _ in range(300)]
    assert {len(each) for each in drawn} == {10}
    assert min(each[0] for each in drawn) == 70 and max(each[-1] for each in drawn) == 99
    short = replace(config, length=500)
    assert len(pretext.stretch(history, 0, short, rng)) == 100


def test_a_data_set_without_purchases_is_refused(
    world: Any, planted_place: Any, bench: ModuleType
) -> None:
    tables = {name: getattr(world, name) for name in CANONICAL}
    kept = [row for row in tables["events"].to_pylist() if row["source"] == "click"]
    tables["events"] = pa.Table.from_pylist(kept, schema=schema.EVENTS)
    place = planted_place(tables)
    build(place.workspace, place.dataset, bench.AS_OF)
    with pytest.raises(InputError, match="stage: shopper_bert reads purchases"):
        place.train("shopper_bert")


def test_frames_of_the_pretext_hold_purchases_alone(copy: Any) -> None:
    copy.train("shopper_bert", preset="still")
    (record,) = (copy.workspace.root / "stages").glob("purchases-*.json")
    directory = copy.workspace.root / "training" / record.stem.removeprefix("purchases-")
    assert {*frames.read(directory)} == {"purchases_weekly"}
    with pytest.raises(InputError, match="embeds: expected some of .*shopper_bert"):
        replace(presets.best(), embeds=("taste",))


@pytest.mark.slow
def test_planted_tastes_are_recovered(tmp_path: Path, bench: ModuleType) -> None:
    """In the made-up world a user keeps to a few interests: hidden purchases show which."""
    workspace = Workspace(tmp_path)
    dataset = ingest(workspace, "synthetic:users=400,seed=3,weeks=40", demographics=True)
    build(workspace, dataset, datetime(2024, 9, 30, tzinfo=UTC))
    training = presets.Training(steps=250, batch_size=32, learning_rate=2e-3, warmup_steps=25)
    preset = replace(
        presets.shopper_bert(), stages={"shopper_bert": training},
        shopper_bert=ShopperBertConfig(dim=64, layers=2, heads=4, length=64),
    )  # fmt: skip
    shared = Run(workspace, dataset, datetime(2024, 9, 30, tzinfo=UTC), preset, 0, Workers())
    record = train.train_stages(shared, {"shopper_bert": {}})["shopper_bert"]
    model, _ = checkpoint.load(workspace.root / record["checkpoint"], expect="shopper_bert")
    weekly = pq.read_table(workspace.features / "purchases_weekly")
    history = PurchaseHistory(weekly, LineEncoder(workspace.cache))
    collate = PurchaseCollate(history, model.config.vocabularies)
    counts = seen_counts(collate, model.config.vocabularies)
    found = {
        row.task: row
        for row in scores(model, collate, history.user_ids, whole_visits=True, counts=counts)
    }
    for task in ("category_1", "category_2", "category_3"):
        row = found[task]
        assert row.model < min(row.prior, row.copying) - 0.05, task
        assert row.model_right > 4 / row.values, task
    assert found["category_2"].model < found["category_2"].prior - 0.1
    assert found["month"].model < found["month"].prior - 0.3, "neighbours tell the season"
