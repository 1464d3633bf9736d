"""Where saved audiences are kept: rows in the database, members as Parquet in the workspace.

    audiences/<id>/<run file>.parquet     user_id, score; best first

A members file is written whole before its row is, so a run that is listed can be read.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy.orm import Session

from feature_repo import durable
from feature_repo.errors import InputError, ManifestError, UnknownAudience
from feature_repo.settings import Workspace
from serving.audit import AuditLog
from serving.database import AudienceRow, RunRow, find

_ID_BYTES: Final = 8
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Run:
    """One run: ``meta`` is the JSON of its TargetMeta, ``query`` the vector it was ranked by."""

    id: int
    meta: dict[str, Any]
    snapshot: str
    space: str
    kind: str
    size: int
    members: str
    query: Floats | None
    created_at: datetime


@dataclass(frozen=True)
class Saved:
    """A saved audience with its latest run."""

    id: str
    name: str
    owner: str
    plan: dict[str, Any]
    holdout: float
    holdout_key: str
    created_at: datetime
    num_runs: int
    latest: Run


@dataclass(frozen=True)
class NewRun:
    """What a run found: Arrow ``ids`` [n], ``scores`` [n], and what it says about itself."""

    meta: dict[str, Any]
    kind: str
    ids: pa.Array
    scores: Floats
    query: Floats | None


class AudienceStore:
    """The saved audiences of a workspace; safe to share between threads."""

    def __init__(
        self,
        workspace: Workspace,
        engine: sa.Engine,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._workspace, self._engine, self._clock = workspace, engine, clock
        self.log = AuditLog(engine, clock=clock)

    # --- writing

    def create(
        self, *, name: str, owner: str, plan: dict[str, Any], holdout: float,
        holdout_key: str | None, run: NewRun,
    ) -> Saved:  # fmt: skip
        """Keep a new audience with its first run, under a random id."""
        audience = secrets.token_hex(_ID_BYTES)
        row = AudienceRow(
            id=audience, name=name, owner=owner, plan=plan, holdout=holdout,
            holdout_key=holdout_key or audience, created_at=self._clock(),
        )  # fmt: skip
        path = self._write_members(audience, run)
        with Session(self._engine) as session, session.begin():
            session.add(row)
            session.flush()
            session.add(self._run_row(audience, run, path))
        return self.get(audience)

    def add_run(self, audience: str, run: NewRun) -> Saved:
        """Keep another run of an audience."""
        self.get(audience)
        path = self._write_members(audience, run)
        with Session(self._engine) as session, session.begin():
            session.add(self._run_row(audience, run, path))
        return self.get(audience)

    def delete(self, audience: str) -> None:
        """Forget an audience, its runs and members."""
        with Session(self._engine) as session, session.begin():
            session.delete(self._row(session, audience))
        shutil.rmtree(self._workspace.audiences / audience, ignore_errors=True)

    def note(self, who: str, action: str, audience: str | None, **detail: Any) -> None:
        """Add a line to the audit log."""
        self.log.note(who, action, audience, **detail)

    # --- reading

    def get(self, audience: str) -> Saved:
        """One audience with its latest run. Raises UnknownAudience."""
        with Session(self._engine) as session:
            return self._saved(session, self._row(session, audience))

    def list(self, limit: int, after: str | None = None) -> tuple[Iterable[Saved], str | None]:
        """Audiences from the newest on, those following ``after``; and where the next page is."""
        order = (AudienceRow.created_at.desc(), AudienceRow.id.desc())
        query = sa.select(AudienceRow).order_by(*order).limit(limit + 1)
        with Session(self._engine) as session:
            if after is not None:
                last = self._row(session, after)
                key = sa.tuple_(AudienceRow.created_at, AudienceRow.id)
                query = query.where(key < sa.tuple_(last.created_at, last.id))
            rows = session.scalars(query).all()
            found = [self._saved(session, row) for row in rows[:limit]]
        return found, found[-1].id if len(rows) > limit else None

    def first_run_on(self, audience: str, snapshot: str) -> Run | None:
        """The earliest run of an audience on a snapshot, if there was one."""
        query = (
            sa.select(RunRow)
            .where(RunRow.audience_id == audience, RunRow.snapshot == snapshot)
            .order_by(RunRow.id)
            .limit(1)
        )
        with Session(self._engine) as session:
            row = session.scalar(query)
            return None if row is None else _run(row)

    def query_in(self, audience: str, space: str) -> Floats | None:
        """The vector that the audience was first ranked by in a space."""
        query = (
            sa.select(RunRow.query)
            .where(RunRow.audience_id == audience, RunRow.space == space)
            .order_by(RunRow.id)
            .limit(1)
        )
        with Session(self._engine) as session:
            found = session.scalar(query)
        return None if found is None else np.frombuffer(found, "<f4").copy()

    def members(self, run: Run) -> pa.Table:
        """The members of a run: user_id, score; best first. Raises ManifestError."""
        path = self._workspace.root / run.members
        try:
            return pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise ManifestError(
                f"{path} cannot be read ({error}); run the audience again"
            ) from error

    def member_ids(self, audience: str) -> Iterable[str]:
        """Ids of the members at the latest run. Raises UnknownAudience."""
        ids: list[str] = self.members(self.get(audience).latest)["user_id"].to_pylist()
        return ids

    # --- inside

    def _write_members(self, audience: str, run: NewRun) -> str:
        path = self._workspace.audiences / audience / f"{secrets.token_hex(_ID_BYTES)}.parquet"
        table = pa.table({"user_id": run.ids, "score": pa.array(run.scores, pa.float64())})
        with durable.replacing(path) as temporary:
            pq.write_table(table, temporary)
        return str(path.relative_to(self._workspace.root))

    def _run_row(self, audience: str, run: NewRun, members: str) -> RunRow:
        query = None if run.query is None else np.asarray(run.query, "<f4").tobytes()
        return RunRow(
            audience_id=audience, meta=run.meta, snapshot=run.meta["snapshot"],
            space=run.meta["space"], kind=run.kind, size=len(run.ids), members=members,
            query=query, created_at=self._clock(),
        )  # fmt: skip

    def _saved(self, session: Session, row: AudienceRow) -> Saved:
        runs = sa.select(RunRow).where(RunRow.audience_id == row.id)
        latest = session.scalars(runs.order_by(RunRow.id.desc()).limit(1)).one_or_none()
        if latest is None:
            raise ManifestError(f"audience {row.id} has no run; delete it and save it again")
        count = session.scalar(sa.select(sa.func.count()).select_from(runs.subquery())) or 1
        return Saved(
            row.id, row.name, row.owner, row.plan, row.holdout, row.holdout_key, row.created_at,
            count, _run(latest),
        )  # fmt: skip

    @staticmethod
    def _row(session: Session, audience: str) -> AudienceRow:
        row = find(session, AudienceRow, audience)
        if row is None:
            raise UnknownAudience(
                f"audience: no audience is saved as {audience[:80]!r}; list those that are with "
                "`openfound audience list`"
            )
        return row


def _run(row: RunRow) -> Run:
    query = None if row.query is None else np.frombuffer(row.query, "<f4").copy()
    if query is not None and not np.isfinite(query).all():
        raise InputError(f"run {row.id}: its query vector is damaged; run the audience again")
    return Run(
        row.id, row.meta, row.snapshot, row.space, row.kind, row.size, row.members, query,
        row.created_at,
    )  # fmt: skip
