"""Tuned prompts on disk: a demand that seed users have sharpened, usable wherever a sentence is.

    prompts/<id>/prompt.json           what it is, and the space that it belongs to
    prompts/<id>/prompt.safetensors    tokens [T, E] and query [D], float32

A prompt stays valid for every snapshot of its space and is refused by every other: its query among
the vectors of other weights would give plausible nonsense. Seed users are counted, not named, so
that erasing a user never has to look here.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from feature_repo import durable
from feature_repo.errors import InputError, ManifestError, SpaceMismatch, UnknownPrompt
from feature_repo.settings import Workspace

_BYTES: Final = 8
_ID: Final = re.compile(rf"[0-9a-f]{{{2 * _BYTES}}}")

Floats = npt.NDArray[np.float32]


class PromptRecord(BaseModel):
    """What a tuned prompt says about itself (``prompt.json``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    space: str
    kind: str
    text: str
    positives: int = Field(ge=1)
    negatives: int = Field(ge=1)
    settings: dict[str, str | int | float | None]
    created_at: AwareDatetime


@dataclass(frozen=True)
class StoredPrompt:
    """A record with its tensors: ``tokens`` [T, E], T = 0 if none were learnt; ``query`` [D]."""

    record: PromptRecord
    tokens: Floats
    query: Floats


class PromptStore:
    """The tuned prompts of a workspace."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        new_id: Callable[[], str] = lambda: secrets.token_hex(_BYTES),
    ) -> None:
        self._root = workspace.prompts
        self._new_id = new_id

    def save(
        self,
        *,
        space: str,
        kind: str,
        text: str,
        seeds: tuple[int, int],
        settings: dict[str, str | int | float | None],
        tokens: Floats,
        query: Floats,
        created_at: datetime,
    ) -> PromptRecord:
        """Keep a prompt under a new random id; it is there whole or not at all.

        Args:
            seeds: how many positive and negative users it was tuned with.
        """
        if not np.isfinite(query).all() or not np.isfinite(tokens).all():
            raise InputError("prompt: expected finite numbers, got NaN or infinity")
        record = PromptRecord(
            id=self._new_id(), space=space, kind=kind, text=text, positives=seeds[0],
            negatives=seeds[1], settings=settings, created_at=created_at,
        )  # fmt: skip
        draft = self._root / f".{record.id}.tmp"
        draft.mkdir(parents=True)
        try:
            arrays = {"tokens": tokens, "query": query}
            save_file(
                {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()},
                draft / "prompt.safetensors",
            )
            (draft / "prompt.json").write_text(record.model_dump_json(indent=2))
            durable.sync_tree(draft)
            os.rename(draft, self._root / record.id)
            durable.sync(self._root)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return record

    def load(self, prompt_id: str, *, space: str, kind: str) -> StoredPrompt:
        """The prompt of this id, for vectors of ``kind`` in ``space``.

        Raises:
            UnknownPrompt: there is none; also for anything that is no id, such as a path.
            SpaceMismatch: it was tuned in another space, or for another kind.
            ManifestError: its files are damaged.
        """
        directory = self._root / prompt_id if _ID.fullmatch(prompt_id) else None
        if directory is None or not directory.is_dir():
            raise UnknownPrompt(f"prompt: no prompt of this workspace is called {prompt_id[:80]!r}")
        stored = _read(directory)
        record = stored.record
        if (record.space, record.kind) != (space, kind):
            raise SpaceMismatch(
                f"prompt {prompt_id} was tuned for {record.kind} vectors of the space "
                f"{record.space}, but {kind} vectors of {space} answer; tune it again with "
                f"{record.text[:80]!r} and its seed users"
            )
        return stored


def _read(directory: Path) -> StoredPrompt:
    try:
        record = PromptRecord.model_validate_json((directory / "prompt.json").read_bytes())
        arrays = load_file(directory / "prompt.safetensors")
        tokens, query = arrays["tokens"], arrays["query"]
    except (OSError, ValidationError, SafetensorError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ManifestError(f"{directory} cannot be read ({reason}); tune it again") from error
    if record.id != directory.name or query.ndim != 1 or tokens.ndim != 2:
        raise ManifestError(f"{directory} does not hold the prompt it names; tune it again")
    return StoredPrompt(record, tokens, query)
