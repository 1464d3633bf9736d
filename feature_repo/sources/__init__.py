"""Data sources: each turns raw data into the canonical tables of ``feature_repo.schema``.

A source is named by one string, the *spec*:

    complete-journey                   real receipts, from the installed data package
    synthetic:users=2000,seed=0        a made-up world of any size with known truth
    files:mapping.yaml                 your own Parquet or CSV, see docs/bring-your-own-data.md
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from feature_repo import quarantine, schema
from feature_repo.errors import InputError
from feature_repo.sources import (
    complete_journey,
    files,
    synthetic,
    synthetic_planted,
    synthetic_world,
    tables,
)
from feature_repo.sources.tables import CanonicalTables, empty

__all__ = ["CanonicalTables", "default_as_of", "empty", "read_source", "source_fingerprint"]

SPECS: Final = '"complete-journey", "synthetic:users=2000,seed=0" or "files:mapping.yaml"'


def read_source(
    spec: str, *, demographics: bool = True, now: datetime | None = None
) -> CanonicalTables:
    """Load and screen the source that ``spec`` names.

    Args:
        spec: see the module's docstring.
        demographics: with False the raw profiles are left empty, whatever the source.
        now: the clock, with a time zone; rows later than it are quarantined. Default: now.

    Raises:
        InputError: the spec, or what it names, is wrong.
    """
    clock = now or datetime.now(UTC)
    source, argument = _parse(spec)
    if source == "complete-journey":
        return complete_journey.load(now=clock, demographics=demographics)
    if source == "synthetic":
        world = synthetic_world.parse(argument)
        return synthetic.load(world, now=clock, demographics=demographics)
    return files.load(Path(argument), now=clock, demographics=demographics)


def source_fingerprint(spec: str, *, demographics: bool = True) -> str:
    """A hash that changes when the source's tables may change, so that stages can be reused.

    It covers the spec, the demographics switch, the code that reads it, and the data: content for
    Complete Journey, path, size and modification time for own files. It does not cover the clock.
    """
    source, argument = _parse(spec)
    if source == "complete-journey":
        parts = ["", complete_journey.fingerprint(), *_code(complete_journey)]
    elif source == "synthetic":
        world = synthetic_world.parse(argument)
        parts = [world.spec, *_code(synthetic), *_code(synthetic_world)]
        parts += _code(synthetic_planted) if world.plant else []
    else:
        path = Path(argument)
        parts = [str(path.resolve()), files.fingerprint(path), *_code(files)]
    parts += [source, str(demographics), *_code(tables), *_code(quarantine), *_code(schema)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def default_as_of(spec: str) -> datetime:
    """The date, at midnight UTC, as of which a demonstration of this source is built.

    Raises:
        InputError: own files have no default; or the spec is wrong.
    """
    source, argument = _parse(spec)
    if source == "complete-journey":
        return complete_journey.DEFAULT_AS_OF.replace(tzinfo=UTC)
    if source == "synthetic":
        return synthetic_world.parse(argument).default_as_of
    raise InputError(f"as_of: source {spec!r} has no default date; give one, e.g. 2026-01-31")


def _parse(spec: str) -> tuple[str, str]:
    """A spec → (source, argument)."""
    source, colon, argument = spec.strip().partition(":")
    if source == "complete-journey" and not colon:
        return source, ""
    if source == "synthetic":
        return source, argument
    if source == "files" and argument:
        return source, argument
    raise InputError(f"source: expected {SPECS}, got {spec!r}")


def _code(module: object) -> list[str]:
    path = getattr(module, "__file__", None)
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest()] if path else []
