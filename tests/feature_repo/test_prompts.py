"""Tuned prompts on disk: kept whole, found by id only, refused outside their space."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_repo import durable
from feature_repo.errors import InputError, ManifestError, SpaceMismatch, UnknownPrompt
from feature_repo.prompts import PromptRecord, PromptStore
from feature_repo.settings import Workspace

NOW = datetime(2017, 9, 11, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def save(store: PromptStore, **changes: Any) -> PromptRecord:
    fields: dict[str, Any] = {
        "space": "s1", "kind": "fused", "text": "will buy cheese", "seeds": (5, 4),
        "settings": {"method": "posterior", "strength": 0.1, "hardest": None},
        "tokens": np.zeros((0, 6), np.float32), "query": np.arange(3, dtype=np.float32),
        "created_at": NOW, **changes,
    }  # fmt: skip
    return store.save(**fields)


def test_what_is_saved_is_loaded(workspace: Workspace) -> None:
    tokens = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    record = save(PromptStore(workspace), tokens=tokens)
    stored = PromptStore(workspace).load(record.id, space="s1", kind="fused")
    assert stored.record == record
    assert (record.positives, record.negatives, record.created_at) == (5, 4, NOW)
    np.testing.assert_array_equal(stored.tokens, tokens)
    np.testing.assert_array_equal(stored.query, [0, 1, 2])


def test_ids_are_random_and_fit_into_an_address(workspace: Workspace) -> None:
    ids = {save(PromptStore(workspace)).id for _ in range(8)}
    assert len(ids) == 8
    assert all(len(one) == 16 and one.isalnum() for one in ids)


@pytest.mark.parametrize("changes", [{"space": "s2"}, {"kind": "segment:x"}])
def test_another_space_or_kind_is_refused(workspace: Workspace, changes: dict[str, str]) -> None:
    record = save(PromptStore(workspace))
    with pytest.raises(SpaceMismatch, match="tune it again with 'will buy cheese'"):
        PromptStore(workspace).load(record.id, **{"space": "s1", "kind": "fused", **changes})


@pytest.mark.parametrize("name", ["0" * 16, "", ".", "..", "../../etc", "a/b", "x\0", "ä" * 16])
def test_what_is_no_id_is_unknown_and_reaches_no_path(workspace: Workspace, name: str) -> None:
    save(PromptStore(workspace))
    with pytest.raises(UnknownPrompt, match="no prompt of this workspace"):
        PromptStore(workspace).load(name, space="s1", kind="fused")


def test_a_path_to_a_real_prompt_is_no_id(workspace: Workspace) -> None:
    record = save(PromptStore(workspace))
    for path in (f"../prompts/{record.id}", f"./{record.id}", str(workspace.prompts / record.id)):
        with pytest.raises(UnknownPrompt):
            PromptStore(workspace).load(path, space="s1", kind="fused")


def test_a_kill_before_the_end_leaves_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(durable, "sync_tree", killed)
    with pytest.raises(KeyboardInterrupt):
        save(PromptStore(workspace, new_id=lambda: "ab" * 8))
    assert os.listdir(workspace.prompts) == []
    with pytest.raises(UnknownPrompt):
        PromptStore(workspace).load("ab" * 8, space="s1", kind="fused")


def test_damage_is_named(workspace: Workspace) -> None:
    store = PromptStore(workspace)
    for file, content in (("prompt.json", b"{"), ("prompt.safetensors", b"no")):
        record = save(store)
        (workspace.prompts / record.id / file).write_bytes(content)
        with pytest.raises(ManifestError, match=rf"{record.id} cannot be read.*tune it again"):
            store.load(record.id, space="s1", kind="fused")
    one, other = save(store), save(store)
    copied = (workspace.prompts / one.id / "prompt.json").read_bytes()
    (workspace.prompts / other.id / "prompt.json").write_bytes(copied)
    with pytest.raises(ManifestError, match="does not hold the prompt it names"):
        store.load(other.id, space="s1", kind="fused")


def test_numbers_must_be_finite(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="finite"):
        save(PromptStore(workspace), query=np.array([0.0, np.nan], np.float32))
    assert not workspace.prompts.exists()
