"""Seed users → the query for those like them; too few seeds fall back on a sentence, and say so."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from encoders.lookalike import FEWEST, lookalike_query
from encoders.query import Query
from feature_repo.errors import InputError
from sdk.reaching import LookalikeRequest
from serving.live import Opened


def lookalike_query_of(opened: Opened, request: LookalikeRequest) -> Query:
    """The query of a request. Raises InputError for unknown seeds, or too few of them."""
    kind, seeds = request.kind, request.seeds
    rows = rows_of(opened, kind, "seeds", seeds)
    if len(seeds) >= FEWEST:
        vectors = opened.matrices[kind].vectors
        note = f"Ranked by likeness to {len(seeds):,} seed users."
        return Query(lookalike_query(vectors[rows], vectors), (note,))
    if request.text is None:
        raise InputError(
            f"seeds: expected at least {FEWEST} users, got {len(seeds)}: so few are alike by "
            "chance; name more, or give a sentence to fall back on"
        )
    read = opened.encoders[kind].understand(request.text, rewrite=True)
    note = (
        f"{len(seeds)} seed users are too few to go by (at least {FEWEST}): ranked by the "
        "sentence alone."
    )
    return Query(read.vector, (note, *read.notes))


def without_seeds(request: LookalikeRequest) -> LookalikeRequest:
    """The request with its seeds among those excluded, unless they may be in."""
    if request.with_seeds:
        return request
    out = dict.fromkeys([*(request.exclude or ()), *request.seeds])
    return request.model_copy(update={"exclude": list(out)})


def rows_of(opened: Opened, kind: str, field: str, users: list[str]) -> npt.NDArray[np.int64]:
    """Rows of users named in a request's ``field``; all must be in the snapshot."""
    found = opened.rows[kind].of(users)
    if unknown := [user for user, row in zip(users, found, strict=True) if row < 0]:
        shown = ", ".join(repr(user[:40]) for user in unknown[:5])
        raise InputError(
            f"{field}: expected users of snapshot {opened.manifest.id}, got {len(unknown)} who "
            f"are not: {shown}{', …' if len(unknown) > 5 else ''}"
        )
    return found
