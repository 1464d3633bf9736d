"""ShopperBERT trained anew on given tables, and tuned further, at the size of a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders.shopper_bert import ShopperBertConfig
from ray_jobs import presets
from ray_jobs.evaluation.ablations import Variant
from ray_jobs.one4all import pretraining
from ray_jobs.one4all.pretraining import AUGMENTATION, Pretrained
from ray_jobs.one4all.tuning import tunable


def test_the_four_pretrainings_differ_in_state_and_augmentation() -> None:
    told = {}
    for variant in AUGMENTATION:
        config = variant.of(presets.preset(pretraining.PRESET)).shopper_bert
        told[variant.name] = (config.variant, config.augment_share, config.pooling)
    assert told == {
        "MP": ("mp", 0.0, "mean"), "MP + A": ("mp", 0.3, "mean"), "CLS": ("cls", 0.0, "mean"),
        "CLS + A": ("cls", 0.3, "mean"), "counts + A (ours)": ("mp", 0.3, "words"),
    }  # fmt: skip


def test_who_bought_nothing_is_cold() -> None:
    found = Pretrained(["a", "c"], np.array([[1.0], [3.0]], np.float32), Path("none"))
    assert found.of(["c", "b", "a"]).tolist() == [[3.0], [0.0], [1.0]]


def test_a_shortened_history_holds_the_last_months_alone(protocol: Any, buy: Any) -> None:
    opened = protocol([buy("a", -31, "MILK"), buy("a", -30, "HAM"), buy("a", 3, "RICE")])
    tables = pretraining.latest_months(opened.con, opened.cutoff, 1)
    assert set(tables["events"]["item_id"].to_pylist()) == {"HAM", "RICE"}  # the future is known
    assert len(tables["items"]) == 6  # later; the stages read what lies before as_of


@pytest.mark.timeout(120)
def test_variants_train_embed_and_can_be_tuned(
    protocol: Any, receipts: Any, lines: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = presets.preset(pretraining.PRESET)
    tiny = replace(
        small, shopper_bert=ShopperBertConfig(
            dim=8, layers=1, heads=2, length=2, stretches=2, pooling="counts"
        ),
        stages={**small.stages, "shopper_bert": presets.Training(steps=2, batch_size=8)},
    )  # fmt: skip
    monkeypatch.setattr(presets, "preset", lambda name: tiny)
    opened = protocol(receipts)
    tables = {n: opened.con.sql(f"SELECT * FROM {n}").to_arrow_table() for n in ("events", "items")}
    users = [str(user) for user in opened.everyone]
    found = pretraining.pretrain(tmp_path / "ws", "market", tables, opened.cutoff, Variant("MP"))
    assert found.of(users).shape == (72, 16) and np.abs(found.of(users)).sum() > 0

    from encoders.text import LineEncoder

    given = (found.checkpoint, opened.con, opened.cutoff, users, LineEncoder())
    fresh = tunable(*given, length=100)
    encoder, brief = fresh().eval(), tunable(*given, length=3)().eval()
    assert (encoder.events, brief.events) == (4, 2)
    rows = torch.tensor([5, 0, 17])
    with torch.no_grad():
        assert torch.allclose(
            encoder(rows), torch.from_numpy(found.of([users[r] for r in rows])), atol=1e-5
        )
        assert not torch.allclose(encoder(rows), brief(rows))
    assert encoder.dim == 16
    encoder(rows).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    assert fresh() is not encoder
