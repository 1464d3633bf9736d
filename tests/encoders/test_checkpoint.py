"""Checkpoints come back to the bit, or with an error that names the file."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from encoders import checkpoint
from encoders.alignment import FoundModel
from encoders.behaviour import BehaviourEncoder
from encoders.checkpoint import CheckpointError
from encoders.tabular import TabularConfig, TabularEncoder

Save = Callable[..., tuple[nn.Module, str]]


@pytest.fixture
def save(tmp_path: Path, tiny_config: Callable, info_of: Callable, jolt: Callable) -> Save:
    """Saves a model of this name with random weights in ``tmp_path / "c"``."""

    def build(name: str = "behaviour", **changes: Any) -> tuple[nn.Module, str]:
        config = tiny_config(**changes)
        config = config if name == "alignment" else getattr(config, name)
        torch.manual_seed(5)
        model = checkpoint.MODELS[name](config)
        jolt(model)
        return model.eval(), checkpoint.save(tmp_path / "c", model, info_of(name, config))

    return build


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("behaviour", {}),
        ("tabular", {}),
        pytest.param("search", {}),
        ("alignment", {"search": None}),
        ("alignment", {"search": None, "tabular": None, "similarity": "cosine"}),
        ("alignment", {"behaviour": None, "fusion": "concatenation", "learn_temperature": False}),
        pytest.param("alignment", {}),
    ],
)
def test_a_model_comes_back_to_the_bit(
    save: Save, tmp_path: Path, world: Any, info_of: Callable, name: str, changes: dict
) -> None:
    model, digest = save(name, **changes)
    torch.manual_seed(99)
    loaded, info = checkpoint.load(tmp_path / "c", expect=name)
    assert info == replace(info_of(name, model.config), config=info.config)
    assert loaded.config_class(**info.config) == loaded.config
    assert not loaded.training
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
    batch = world.collate()(np.arange(len(world.rows)))
    assert torch.equal(loaded(batch), model(batch))
    if name == "alignment":
        assert torch.equal(loaded.encode_text(["tea"]), model.encode_text(["tea"]))
    assert checkpoint.fingerprint(tmp_path / "c") == digest


def test_tabular_columns_keep_their_order_through_json(tmp_path: Path, info_of: Callable) -> None:
    config = TabularConfig(
        {"zebra": ["b", "a"], "apple": ["ü", "x", "y"]}, {"y": (1.0, 0.1), "b": (0.0, 2.0)},
        dim=8, out_dim=4, blocks=1, heads=2,
    )  # fmt: skip
    checkpoint.save(tmp_path / "t", TabularEncoder(config), info_of("tabular", config))
    loaded, _ = checkpoint.load(tmp_path / "t")
    columns, expected = loaded.config.columns, config.columns
    assert list(columns.vocabularies.items()) == list(expected.vocabularies.items())
    assert list(columns.scales.items()) == list(expected.scales.items())
    assert columns.cardinalities == [4, 5]


def test_the_directory_holds_json_and_safetensors_and_nothing_else(
    save: Save, tmp_path: Path
) -> None:
    save("alignment", search=None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        "config.json", "model.safetensors",
    ]  # fmt: skip
    json.loads((tmp_path / "c" / "config.json").read_text())
    assert load_file(tmp_path / "c" / "model.safetensors")


def test_frozen_language_model_weights_are_not_stored(save: Save, tmp_path: Path) -> None:
    model, _ = save("alignment", search=None)
    stored = set(load_file(tmp_path / "c" / "model.safetensors"))
    frozen = {n for n, p in model.text.model.named_parameters() if not p.requires_grad}
    lora = {f"text.model.{n}" for n, p in model.text.model.named_parameters() if p.requires_grad}
    assert len(frozen) > 10
    assert len(lora) == 4
    assert not stored & {f"text.model.{name}" for name in frozen}
    assert {name for name in stored if name.startswith("text.model.")} == lora
    others = {n for n in model.state_dict() if not n.startswith("text.model.")}
    assert stored - lora == others


def test_saving_again_replaces_all_of_it(save: Save, tmp_path: Path) -> None:
    _, first = save("behaviour")
    (tmp_path / "c.tmp").mkdir()  # left behind by a killed run
    (tmp_path / "c.tmp" / "junk").write_text("x")
    (tmp_path / "c" / "old").write_text("x")
    _, second = save("tabular")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        "config.json", "model.safetensors",
    ]  # fmt: skip
    assert first != second
    assert checkpoint.read_info(tmp_path / "c").model == "tabular"


def test_a_crash_while_writing_leaves_the_old_checkpoint(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, digest = save("behaviour")
    original = json.dumps
    monkeypatch.setattr(json, "dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save("tabular")
    monkeypatch.setattr(json, "dumps", original)
    assert checkpoint.fingerprint(tmp_path / "c") == digest
    assert isinstance(checkpoint.load(tmp_path / "c")[0], BehaviourEncoder)


def test_the_fingerprint_sees_weights_and_description(save: Save, tmp_path: Path) -> None:
    _, digest = save()
    assert save()[1] == digest
    for name in ("config.json", "model.safetensors"):
        file = tmp_path / "c" / name
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert checkpoint.fingerprint(tmp_path / "c") != digest
        file.write_bytes(content)


def test_no_checkpoint_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"{tmp_path}/none: expected config.json and model"):
        checkpoint.load(tmp_path / "none")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"model": "behaviour"}', b'{"unexpected": 1}', b"null"]
)
def test_a_damaged_description_is_named(save: Save, tmp_path: Path, content: bytes) -> None:
    save()
    (tmp_path / "c" / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"c/config.json is damaged .*train again"):
        checkpoint.load(tmp_path / "c")


@pytest.mark.parametrize("kept", [0, 4, 200, -1])
def test_truncated_weights_are_named(save: Save, tmp_path: Path, kept: int) -> None:
    save()
    file = tmp_path / "c" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"c/model.safetensors cannot be read .*train again"):
        checkpoint.load(tmp_path / "c")


def test_absent_weights_are_named(save: Save, tmp_path: Path) -> None:
    save()
    (tmp_path / "c" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"c/model.safetensors cannot be read"):
        checkpoint.load(tmp_path / "c")


def test_another_kind_than_expected_is_refused(save: Save, tmp_path: Path) -> None:
    save("tabular")
    with pytest.raises(CheckpointError, match=r"/c holds a 'tabular' .*expected 'alignment'"):
        checkpoint.load(tmp_path / "c", expect="alignment")


def test_weights_of_another_model_are_refused(
    save: Save, tmp_path: Path, tiny_config: Callable
) -> None:
    save("tabular")
    other = BehaviourEncoder(tiny_config().behaviour)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"/c does not fit .*\(down.*\(blocks.*train again"):
        checkpoint.load_state(other, tmp_path / "c")
    assert all(torch.equal(tensor, before[n]) for n, tensor in other.state_dict().items())


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        pytest.param({"model": "no-such-model"}, KeyError),
        pytest.param({"config": {"no_such_size": 3}}, TypeError),
        ({"config": {"line_width": 9, "windows": 9}}, RuntimeError),
    ],
)
def test_a_description_that_does_not_fit_is_named(
    save: Save, tmp_path: Path, edit: dict[str, Any], error: type[Exception]
) -> None:
    model, _ = save()
    info = asdict(checkpoint.read_info(tmp_path / "c"))
    if "line_width" in edit.get("config", {}):
        edit = {"config": asdict(model.config) | edit["config"]}
    (tmp_path / "c" / "config.json").write_text(json.dumps(info | edit))
    try:
        checkpoint.load(tmp_path / "c")
    except CheckpointError as problem:
        assert str(tmp_path / "c") in str(problem)
    except error as problem:
        pytest.fail(f"{type(problem).__name__}: {problem}")


def test_a_description_that_is_not_text_is_named(save: Save, tmp_path: Path) -> None:
    save()
    (tmp_path / "c" / "config.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(CheckpointError, match=r"c/config.json is damaged"):
        checkpoint.load(tmp_path / "c")


def test_the_registry_names_each_class_once() -> None:
    assert len(set(checkpoint.MODELS.values())) == len(checkpoint.MODELS) >= 4
    assert checkpoint.MODELS["alignment"] is FoundModel
