"""Demands in somebody's own words, each with the behaviour it means, as a JSON file.

    {"categories": {"CHEESE": ["people who love brie"]},     headings, as the data spell them
     "behaviours": {"lapse": ["who stays away"]},            coupon | lapse | top spend | spend up
     "others": {}}                                           more headings: to choose on

Any level of the taxonomy has headings.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Final, Literal

import duckdb
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from feature_repo.errors import InputError

DIRECTORY: Final = Path(__file__).parent / "demands"
_Texts = Annotated[
    list[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]],
    Field(min_length=1),
]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    categories: dict[str, _Texts] = {}
    behaviours: dict[Literal["coupon", "lapse", "top spend", "spend up"], _Texts] = {}
    others: dict[str, _Texts] = {}
    without_products: dict[str, _Texts] = {}  # the categories again, in words even further away


def own_file(source: str) -> Path:
    """Where the demands written for a data set are, if anybody wrote any."""
    return DIRECTORY / f"{source.replace('-', '_')}.json"


def read_demands(source: str, path: Path | None = None) -> dict[str, dict[str, list[str]]]:
    """Group → task → demands, as they were written.

    Args:
        source: of the data set, whose own file is the default.
        path: somebody's file instead.

    Raises:
        InputError: there is no file, or it does not hold what it should.
    """
    given = path or own_file(source)
    if not given.is_file():
        said = "no such file" if path else f"nobody wrote any for {source}"
        raise InputError(
            f"demands: {said}; write some for headings of these data and name the file with "
            f"--demands (docs/query-rewriting.md), got {given}"
        )
    try:
        return _File.model_validate_json(given.read_bytes()).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"demands: {given}: {where or 'the file'}: {first['msg']}") from None


def check_headings(con: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    """Raise InputError for a name that is no heading of any item."""
    rows = con.sql("SELECT DISTINCT unnest(categories) FROM items ORDER BY ALL").fetchall()
    known = [name for (name,) in rows]
    for name in names:
        if name not in known:
            near = get_close_matches(name.lower(), [each.lower() for each in known])
            meant = [each for each in known if each.lower() in near] or known[:5]
            raise InputError(f"demands: {name!r} is no heading of these data; they have {meant}, …")
