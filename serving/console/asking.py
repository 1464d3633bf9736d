"""What only a page asks: an audience without its members' ids, the map, and words for rules.

Everything else goes through ``/console/api`` to the HTTP interface. Ids leave only when they are
asked for, and then the audit log says so: a page is looked at by more people than a file is.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import numpy as np
import pyarrow.compute as pc
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from feature_repo.rule_words import words
from feature_repo.rules import All, dump, parse
from feature_repo.vocabulary import check
from sdk.fields import DEFAULT_KIND, WireRequest
from sdk.rules import Rule
from sdk.selection import TargetRequest
from serving.asked import Asked
from serving.audience_routes import Saved
from serving.auth import Who, needs
from serving.console.examples import examples
from serving.console.maps import Maps
from serving.console.reasons import reasons

SHOWN: Final = 12
_SUGGESTED: Final = 40

routes = APIRouter(
    prefix="/console", include_in_schema=False, dependencies=[Depends(needs("read", "target"))]
)


class Preview(WireRequest):
    """An audience to look at."""

    target: TargetRequest
    reveal: bool = Field(default=False, description="Show the members' ids.")


class Words(WireRequest):
    """Rules to be said in words."""

    rules: Rule | None = None


@routes.post("/preview")
def preview(asked: Preview, targeting: Asked, audiences: Saved, who: Who) -> Response:
    """What an audience says about itself, and its first members: without ids unless asked for."""
    found = targeting.target(asked.target)
    first = found.ids[:SHOWN].to_pylist()
    if asked.reveal:
        audiences.store.note(
            who.name, "reveal", None, users=len(first), snapshot=found.meta.snapshot
        )
    members = [
        {"score": float(score), **({"user_id": user} if asked.reveal else {})}
        for user, score in zip(first, found.scores[:SHOWN], strict=True)
    ]
    return _json(
        meta=found.meta, size=len(found.ids), members=members,
        min_score=float(found.scores[-1]) if len(found.ids) else None,
    )  # fmt: skip


@routes.post("/ranks")
def ranks(asked: TargetRequest, targeting: Asked, request: Request) -> Response:
    """The place of each user of the map in the whole ranking, from 0; -1 for those left out.

    With it a page lights the map up for every size without asking again.
    """
    maps: Maps = request.app.state.maps
    manifest = targeting.live.get().manifest
    drawn = maps.get(manifest, asked.kind)
    if drawn is None:
        return _json(snapshot=manifest.id, ranks=None)
    whole = asked.model_copy(update={"size": max(1, manifest.num_users), "exact": True})
    found = targeting.target(whole)
    places = pc.fill_null(pc.index_in(drawn.users, value_set=found.ids), -1)
    return _json(snapshot=found.meta.snapshot, ranks=places.to_pylist())


@routes.get("/map")
def embedding_map(targeting: Asked, request: Request, kind: str = DEFAULT_KIND) -> Response:
    """Where the users of the map lie, their clusters and the clusters' names; null while drawn."""
    maps: Maps = request.app.state.maps
    manifest = targeting.live.get().manifest
    drawn = maps.get(manifest, kind)
    if drawn is None:
        failed = maps.failed(manifest, kind)
        return _json(snapshot=manifest.id, points=None, failed=failed)
    return _json(
        snapshot=manifest.id,
        points=np.round(drawn.xy.astype(float), 4).tolist(),
        cluster=drawn.cluster.tolist(),
        names=drawn.names,
        population=manifest.num_users,
    )


@routes.post("/words")
def rule_words(asked: Words, targeting: Asked) -> Response:
    """The rules that must all hold, one by one and in words. Raises RuleError for strange ones."""
    if asked.rules is None:
        return _json(parts=[])
    rule = parse(asked.rules.model_dump(exclude_none=True))
    check(rule, targeting.live.get().rules.vocabulary)
    parts = rule.rules if isinstance(rule, All) else (rule,)
    return _json(parts=[{"rule": dump(one), "words": words(one)} for one in parts])


@routes.get("/vocabulary")
def vocabulary(targeting: Asked) -> Response:
    """What rules can speak of: verbs that occur, and profile columns with their values."""
    opened = targeting.live.get()
    if opened.manifest.facts is None:
        return _json(verbs=[], columns=[])
    known = opened.rules.vocabulary
    columns = [
        {"name": name, "continuous": column.continuous, "values": sorted(column.values)[:200]}
        for name, column in known.columns.items()
    ]
    return _json(verbs=sorted(known.subjects), columns=columns)


@routes.get("/subjects")
def subjects(
    targeting: Asked,
    verb: Annotated[str, Query(max_length=20)],
    part: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Subjects of a verb whose name holds ``part``; those that begin with it first."""
    opened, wanted = targeting.live.get(), part.casefold()
    known = opened.rules.vocabulary.subjects if opened.manifest.facts is not None else {}
    found = [name for name in known.get(verb, ()) if wanted in name.casefold()]
    found.sort(key=lambda name: (not name.casefold().startswith(wanted), len(name), name))
    return _json(names=found[:_SUGGESTED])


@routes.get("/examples")
def example_sentences(targeting: Asked) -> Response:
    """Sentences that fit the data that is loaded."""
    return _json(examples=examples(targeting.live.get(), targeting.live.store.workspace))


def _json(**content: Any) -> Response:
    plain = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for name, value in content.items()
    }
    return JSONResponse(plain)


routes.add_api_route("/reasons", reasons, methods=["POST"])
