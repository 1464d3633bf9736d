"""The audit log: who picked, kept, took out or changed what.

A line is written before the answer leaves, except for picks (``later``): they are what the service
does most, so a thread writes them in batches, ``FLUSH_SECONDS`` later at most. A replica that is
killed loses the picks of that time; one that is told to end writes them first.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from sdk.access import AuditLine, AuditPage
from serving.database import AuditRow

FLUSH_SECONDS: Final = 0.5
MAX_WAITING: Final = 10_000
"""Picks that may wait for the database; further ones are written before they are answered."""

log = logging.getLogger(__name__)


class AuditLog:
    """The lines of a database; safe to share between threads."""

    def __init__(
        self, engine: sa.Engine, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._engine, self._clock = engine, clock
        self._waiting: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def note(self, who: str, action: str, audience: str | None = None, **detail: Any) -> None:
        """Add a line, now."""
        self._write([self._line(who, action, audience, detail)])

    def later(self, who: str, action: str, **detail: Any) -> None:
        """Add a line soon."""
        with self._lock:
            self._waiting.append(self._line(who, action, None, detail))
            full = len(self._waiting) >= MAX_WAITING
            if self._timer is None:
                self._timer = threading.Timer(FLUSH_SECONDS, self._flush_or_warn)
                self._timer.daemon = True
                self._timer.start()
        if full:
            self.flush()

    def flush(self) -> None:
        """Write what waits. What cannot be written waits on, and the error is raised."""
        with self._lock:
            lines, self._waiting, self._timer = self._waiting, [], None
        try:
            self._write(lines)
        except SQLAlchemyError:
            with self._lock:
                self._waiting[:0] = lines
            raise

    def page(
        self, limit: int = 100, before: int | None = None, action: str | None = None
    ) -> AuditPage:
        """Lines from the newest on, those older than ``before``, of one action if named."""
        self.flush()
        query = sa.select(AuditRow).order_by(AuditRow.id.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(AuditRow.id < before)
        if action is not None:
            query = query.where(AuditRow.action == action)
        with Session(self._engine) as session:
            rows = session.scalars(query).all()
        lines = [
            AuditLine(
                id=row.id, at=row.at, who=row.who, action=row.action, audience=row.audience_id,
                detail=row.detail,
            )
            for row in rows[:limit]
        ]  # fmt: skip
        return AuditPage(lines=lines, next=lines[-1].id if len(rows) > limit else None)

    def _line(
        self, who: str, action: str, audience: str | None, detail: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "at": self._clock(), "who": who, "action": action, "audience_id": audience,
            "detail": detail,
        }  # fmt: skip

    def _write(self, lines: Iterable[dict[str, Any]]) -> None:
        if rows := list(lines):
            with self._engine.begin() as connection:
                connection.execute(sa.insert(AuditRow), rows)

    def _flush_or_warn(self) -> None:
        try:
            self.flush()
        except SQLAlchemyError as error:
            log.warning("the audit log cannot be written: %s", error)
