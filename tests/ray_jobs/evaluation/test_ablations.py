"""Variants change what they name and nothing else; mistakes say what was expected."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from feature_repo.errors import InputError
from ray_jobs import presets
from ray_jobs.evaluation import ablations
from ray_jobs.evaluation.ablations import FULL, STEPS, VARIANTS, Trainings, Variant, applicable

BEST = presets.best()
OF = Variant.of
ALL = {"behaviour", "tabular", "search", "fused"}


def test_a_variant_changes_what_it_names_only() -> None:
    variant = Variant("narrow", {"behaviour.dropout": 0.5, "stages": {}, "fusion_layers": 1})
    changed = variant.of(BEST)
    assert (changed.behaviour.dropout, changed.stages, changed.fusion_layers) == (0.5, {}, 1)
    before, after = asdict(BEST), asdict(changed)
    differing = {name for name in before if before[name] != after[name]}
    assert differing == {"name", "behaviour", "stages", "fusion_layers"}
    assert Variant(FULL).of(BEST) == BEST


@pytest.mark.parametrize("changes", [{"colour": 1}, {"behaviour.colour": 1}, {"name.length": 1}])
def test_an_unknown_field_is_named(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="variant.*(colour|length)"):
        Variant("odd", changes).of(BEST)


def test_the_listed_variants_all_apply_and_differ() -> None:
    chosen = applicable(VARIANTS, BEST, ALL)
    assert chosen == list(VARIANTS)
    without = Variant("w/o assortment", {"assortment": None}).of(BEST)
    assert "w/o assortment" not in [v.name for v in applicable(VARIANTS, without, ALL)]
    presets_ = [variant.of(BEST) for variant in chosen]
    assert all(a != b for n, a in enumerate(presets_) for b in presets_[:n])


def test_a_modality_that_the_data_lack_is_not_left_out_again() -> None:
    """Complete Journey has no searches: without them is the full recipe."""
    names = [v.name for v in applicable(VARIANTS, BEST, ALL - {"search"})]
    assert "w/o search text" not in names
    assert {"w/o tabular", "w/o user behavioural sequence", FULL} <= set(names)


def test_a_preset_without_the_field_is_an_error() -> None:
    with pytest.raises(InputError, match="'odd'.*colour"):
        applicable((Variant("odd", {"colour": 1}),), BEST, ALL)


def test_the_steps_lead_from_the_faithful_recipe_to_ours() -> None:
    """All that differs between the two is brought by one step, and by one only."""
    faithful, ours = asdict(presets.laptop()), asdict(BEST)
    first, *later = (asdict(step.of(BEST)) for step in STEPS)
    # ShopperBERT is published by neither, and its training settings are no part of FOUND.
    apart = {"name", "shopper_bert"}
    assert {name for name in ours if first[name] != faithful[name]} <= apart
    for before, after in zip([first, *later], [*later, ours], strict=True):
        changed = {name for name in ours if before[name] != after[name]} - {"name"}
        assert changed and all(after[name] == ours[name] for name in changed)


@pytest.mark.slow
def test_variants_share_data_and_finished_ones_are_reused(
    tmp_path: Path, bench: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = [Variant(FULL), Variant("w/o search text", {"modalities": ("behaviour", "tabular")})]
    place = Trainings(ablations.place(tmp_path), bench.SPEC, True, bench.AS_OF, bench.tiny_preset())
    place.prepare(variants)
    assert "samples: reused" in capsys.readouterr().out
    full, without = (place.subject(each, 0).manifest for each in variants)
    assert set(full.kinds) - set(without.kinds) == {"search"}
    assert "ingest: reused" in capsys.readouterr().out
    assert [place.subject(each, 0).manifest.id for each in variants] == [full.id, without.id]
    assert " done in " not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("variant", [*VARIANTS, *STEPS], ids=lambda variant: variant.name)
def test_every_variant_trains(
    variant: Variant, tmp_path_factory: pytest.TempPathFactory, bench: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Two steps of each stage: fields of two recipes mix in ways that neither has alone."""
    stages = {name: replace(each, steps=2, batch_size=16) for name, each in BEST.stages.items()}
    monkeypatch.setattr(Variant, "of", lambda one, preset: replace(OF(one, preset), stages=stages))
    root = tmp_path_factory.getbasetemp() / "variants"
    place = Trainings(ablations.place(root), bench.SPEC, True, bench.AS_OF, BEST)
    assert "fused" in place.subject(variant, 0).manifest.kinds
