"""Audiences as objects: saved under a name, run again, compared, and split for an experiment.

    saved = audiences.save(SaveAudience(name="Cats", target=TargetRequest(text="…")), owner="key 1")
    change = audiences.rerun(saved.id)              # on the live snapshot: who came, who left
    audiences.rerun(saved.id, snapshot="…_1")       # on the old one: the same users as then

A run keeps the vector that it was ranked by. In the same space it is used again, so an old plan on
an old snapshot gives the same users, even if the rewriter would read the sentence differently now.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.rule_words import words
from feature_repo.rules import parse
from sdk.reaching import LookalikeRequest
from sdk.saved import (
    AudienceChange,
    AudiencePage,
    AudienceRun,
    Overlap,
    Part,
    SaveAudience,
    SavedAudience,
)
from sdk.types import TargetMeta, TargetRequest
from serving.audience_store import AudienceStore, NewRun, Run, Saved
from serving.holdout import held_out
from serving.picked import Audience
from serving.targeting import Targeting

SHOWN_IDS: Final = 1_000
COMPARED: Final = 200
"""How many of the latest audiences a new one is compared with."""
_ALIKE: Final = 0.9
_MOVED: Final = 0.5
_GREW: Final = 0.2


class SavedAudiences:
    """Saves, runs and compares audiences; safe to share between threads."""

    def __init__(self, targeting: Targeting, store: AudienceStore) -> None:
        self.store = store
        self._targeting = targeting

    def save(self, asked: SaveAudience, owner: str) -> SavedAudience:
        """Run a plan on the live snapshot and keep it. Raises what targeting raises.

        Rules that the sentence holds are kept as rules: a later run does not read it anew.
        """
        plan: TargetRequest | LookalikeRequest
        told: list[str] = []
        if asked.lookalike is not None:
            plan = asked.lookalike
            found = self._targeting.lookalike(plan)
        else:
            assert asked.target is not None  # SaveAudience sees to it
            plan, told = self._targeting.halved(asked.target)
            found = self._targeting.target(plan)
        notes = [*told, *self._duplicates(plan, found)]
        saved = self.store.create(
            name=asked.name, owner=owner, plan=_plan(plan), holdout=asked.holdout,
            holdout_key=asked.holdout_key, run=_new_run(plan, found),
        )  # fmt: skip
        self.store.note(owner, "save", saved.id, name=saved.name, size=saved.latest.size)
        return _wire(saved, notes)

    def get(self, audience: str) -> SavedAudience:
        """One audience. Raises UnknownAudience."""
        return _wire(self.store.get(audience))

    def page(self, limit: int, after: str | None) -> AudiencePage:
        """Audiences, newest first."""
        found, following = self.store.list(limit, after)
        return AudiencePage(audiences=[_wire(one) for one in found], next=following)

    def delete(self, audience: str, who: str) -> None:
        """Forget an audience and its members; the log of what was done with it stays."""
        name = self.store.get(audience).name
        self.store.delete(audience)
        self.store.note(who, "delete", audience, name=name)

    def rerun(self, audience: str, snapshot: str | None, who: str) -> AudienceChange:
        """Run an audience on a snapshot, by default the live one, and say what changed.

        Raises UnknownAudience, UnknownSnapshot, and what targeting raises.
        """
        before = self.store.get(audience)
        live = self._targeting.live
        opened = live.get() if snapshot is None else live.open(snapshot)
        request = plan_of(before)
        vector = self.store.query_in(audience, opened.manifest.space)
        if isinstance(request, LookalikeRequest):
            found = self._targeting.lookalike(request, opened=opened, vector=vector)
        else:
            found = self._targeting.target(request, opened=opened, vector=vector)
        after = self.store.add_run(audience, _new_run(request, found))
        self.store.note(who, "run", audience, snapshot=opened.manifest.id, size=len(found.ids))
        return self._change(before.latest, after)

    def members(self, audience: str, part: Part = "all") -> Audience:
        """Members at the latest run: all, those to be targeted, or those held out."""
        saved = self.store.get(audience)
        table = self.store.members(saved.latest)
        if part != "all":
            out = held_out(saved.holdout_key, saved.holdout, table["user_id"].to_pylist())
            table = table.filter(pa.array(out if part == "holdout" else ~out))
        scores = table["score"].to_numpy().astype(np.float32)
        meta = TargetMeta.model_validate(saved.latest.meta)
        return Audience(meta, table["user_id"].combine_chunks(), scores, saved.latest.query)

    def overlap(self, ids: Iterable[str]) -> Overlap:
        """How many members audiences share, pair by pair, at their latest runs."""
        saved = [self.store.get(one) for one in ids]
        members = [self._ids(one.latest) for one in saved]
        sizes = [len(one) for one in members]
        shared = [[_shared(one, other) for other in members] for one in members]
        return Overlap(
            ids=[one.id for one in saved],
            names=[one.name for one in saved],
            sizes=sizes,
            shared=shared,
            jaccard=[
                [_jaccard(both, a, b) for both, b in zip(row, sizes, strict=True)]
                for row, a in zip(shared, sizes, strict=True)
            ],
        )

    # --- inside

    def _ids(self, run: Run) -> pa.Array:
        return self.store.members(run)["user_id"].combine_chunks()

    def _duplicates(self, request: TargetRequest | LookalikeRequest, found: Audience) -> list[str]:
        """Notes on saved audiences with the same plan, or nearly the same members."""
        notes = []
        plan = json.dumps(_plan(request), sort_keys=True)
        others, _ = self.store.list(COMPARED)
        for other in others:
            if json.dumps(other.plan, sort_keys=True) == plan:
                notes.append(f"The audience {other.name!r} ({other.id}) has the same plan.")
                continue
            size = other.latest.size
            if min(size, len(found.ids)) < _ALIKE * max(size, len(found.ids), 1):
                continue  # too different in size to be alike
            alike = _jaccard(_shared(found.ids, self._ids(other.latest)), len(found.ids), size)
            if alike >= _ALIKE:
                notes.append(
                    f"The audience {other.name!r} ({other.id}) has nearly the same members: "
                    f"{alike:.0%} of all in either."
                )
        return notes

    def _change(self, before: Run, after: Saved) -> AudienceChange:
        old, new = self._ids(before), self._ids(after.latest)
        entered = new.filter(pc.invert(pc.is_in(new, value_set=old)))
        left = old.filter(pc.invert(pc.is_in(old, value_set=new)))
        stayed = len(new) - len(entered)
        jaccard = _jaccard(stayed, len(old), len(new))
        return AudienceChange(
            audience=_wire(after),
            before=_wire_run(before),
            entered=len(entered),
            left=len(left),
            stayed=stayed,
            jaccard=jaccard,
            entered_ids=entered[:SHOWN_IDS].to_pylist(),
            left_ids=left[:SHOWN_IDS].to_pylist(),
            warnings=_warnings(before, after.latest, jaccard),
        )


def _warnings(before: Run, after: Run, jaccard: float) -> list[str]:
    warnings = []
    if before.space != after.space:
        warnings.append(
            "The weights changed between the runs: their scores cannot be compared, and members "
            "moved for that reason too."
        )
    if before.size and abs(after.size - before.size) > _GREW * before.size:
        warnings.append(f"The size went from {before.size:,} to {after.size:,}.")
    if jaccard < _MOVED:
        warnings.append(f"Only {jaccard:.0%} of all in either run are in both.")
    return warnings


def plan_of(saved: Saved) -> TargetRequest | LookalikeRequest:
    """The plan of a saved audience; that of a lookalike has seeds."""
    if "seeds" in saved.plan:
        return LookalikeRequest.model_validate(saved.plan)
    return TargetRequest.model_validate(saved.plan)


def _plan(request: TargetRequest | LookalikeRequest) -> dict[str, object]:
    return request.model_dump(mode="json", exclude_none=True)


def _new_run(request: TargetRequest | LookalikeRequest, found: Audience) -> NewRun:
    meta = found.meta.model_dump(mode="json")
    return NewRun(meta, request.kind, found.ids, found.scores, found.query)


def _wire(saved: Saved, notes: Iterable[str] = ()) -> SavedAudience:
    rules = saved.plan.get("rules")
    return SavedAudience(
        id=saved.id,
        name=saved.name,
        owner=saved.owner,
        target=saved.plan,
        words=None if rules is None else words(parse(rules)),
        holdout=saved.holdout,
        holdout_key=saved.holdout_key,
        created_at=saved.created_at,
        num_runs=saved.num_runs,
        latest=_wire_run(saved.latest),
        notes=list(notes),
    )


def _wire_run(run: Run) -> AudienceRun:
    return AudienceRun(**run.meta, run=run.id, size=run.size, created_at=run.created_at)


def _shared(one: pa.Array, other: pa.Array) -> int:
    return int(pc.sum(pc.is_in(one, value_set=other)).as_py() or 0)


def _jaccard(shared: int, a: int, b: int) -> float:
    return shared / (a + b - shared) if a + b else 1.0
