"""The mapping file by which own data become canonical tables: its models and how it is read.

Contract and example: docs/bring-your-own-data.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from feature_repo.errors import InputError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Expression(_Strict):
    """A value computed from the row: ``{sql: "units * unit_price"}``."""

    sql: str


class Column(_Strict):
    """Where a value comes from: a column's name, or an expression over the row."""

    name: str | None = None
    sql: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_or_sql(cls, given: Any) -> Any:
        if isinstance(given, str) and given:
            return {"name": given}
        if isinstance(given, dict) and list(given) == ["sql"] and isinstance(given["sql"], str):
            return given
        raise ValueError(f'expected a column name or {{sql: "expression"}}, got {given!r}')


class _Entry(_Strict):
    """What all kinds of files share; ``path`` may be a glob, relative to the mapping file."""

    path: str
    user_id: Column
    timestamp: Column
    known_at: Column | None = None
    keep_if: Expression | None = None


class EventFiles(_Entry):
    source: Literal["bill", "click", "mini_program"]
    event_id: Column | None = None
    item_id: Column | None = None
    text: Column | None = None
    categories: tuple[Column, ...] = ()
    brand: Column | None = None
    quantity: Column | None = None
    amount: Column | None = None
    discount: Column | None = None
    channel: Column | None = None
    status: Column | None = None
    basket_id: Column | None = None
    place: Column | None = None

    @model_validator(mode="after")
    def _names_an_item(self) -> EventFiles:
        if self.item_id is None and self.text is None:
            raise ValueError("expected item_id, text or both: an event must name an item")
        return self


class ProfileFiles(_Entry):
    categorical: tuple[str, ...] = ()
    continuous: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_each_once(self) -> ProfileFiles:
        for names in (self.categorical, self.continuous):
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"{name!r} is named twice")
        return self


class SearchFiles(_Entry):
    search_id: Column | None = None
    text: Column


class ExposureFiles(_Entry):
    exposure_id: Column | None = None
    campaign_id: Column
    kind: Column
    text: Column | None = None


class SegmentFiles(_Entry):
    segment: Column


class Mapping(_Strict):
    """The whole mapping file; every list may have several entries."""

    events: tuple[EventFiles, ...] = ()
    profiles: tuple[ProfileFiles, ...] = ()
    searches: tuple[SearchFiles, ...] = ()
    exposures: tuple[ExposureFiles, ...] = ()
    segments: tuple[SegmentFiles, ...] = ()

    @model_validator(mode="after")
    def _holds_something(self) -> Mapping:
        if not (self.events or self.profiles or self.searches):
            raise ValueError("expected entries under events, profiles or searches; it has none")
        return self

    @model_validator(mode="after")
    def _profile_columns_are_of_one_kind(self) -> Mapping:
        kinds: dict[str, tuple[str, str]] = {}  # SQL, and so a column's name, ignores case
        for entry in self.profiles:
            for kind in ("categorical", "continuous"):
                for name in getattr(entry, kind):
                    first, other = kinds.setdefault(name.lower(), (name, kind)), (name, kind)
                    if first != other:
                        raise ValueError(
                            "profiles: expected every column once, under one spelling, as one "
                            f"kind, got {first[1]} {first[0]!r} and {other[1]} {other[0]!r}"
                        )
        return self

    def own_columns(self) -> dict[str, list[str]]:
        """The profile columns of all entries by kind, sorted."""
        return {
            kind: sorted({name for entry in self.profiles for name in getattr(entry, kind)})
            for kind in ("categorical", "continuous")
        }


def read_mapping(path: Path) -> Mapping:
    """Read and check a mapping file.

    Raises:
        InputError: no such file, not YAML, or not a mapping; the message names the entry at fault.
    """
    if not path.is_file():
        raise InputError(f"files: no mapping file at {path.resolve()}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: expected a mapping with {', '.join(Mapping.model_fields)}, "
            f"got {type(content).__name__}"
        )
    try:
        return Mapping.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: " + "; ".join(map(_problem, error.errors()))) from error


def _problem(error: Any) -> str:
    where = ".".join(str(step) for step in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key"
    message = error["msg"].removeprefix("Value error, ")
    got = f", got {error['input']!r}" if error["type"] == "literal_error" else ""
    return f"{where}: {message}{got}" if where else f"{message}"
