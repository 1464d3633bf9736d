"""The service's database: what people save, and who did what.

SQLite in the workspace unless ``OPENFOUND_DATABASE_URL`` names another (``postgresql+psycopg://…``,
its driver by ``pip install -e ".[postgres]"``). The schema is brought up to date when it is
opened, by Alembic, under a lock: of the workspace, and of PostgreSQL's own for machines that share
nothing else.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.types import TypeDecorator

from feature_repo import durable
from feature_repo.errors import InputError
from feature_repo.settings import Workspace

DATABASE_VARIABLE: Final = "OPENFOUND_DATABASE_URL"
CONNECT_SECONDS: Final = 5
"""How long a PostgreSQL may take to answer a call; libpq would wait for two minutes."""
_LOCK: Final = 0x6F70656E_666F756E  # "openfoun"
_MIGRATIONS: Final = Path(__file__).parent / "migrations"


class _Utc(TypeDecorator[datetime]):
    """Times in UTC: SQLite forgets the zone, and PostgreSQL answers in the zone of its server."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else _in_utc(value)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else _in_utc(value)


def _in_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# A hundred picks a second use up four bytes within a year; SQLite numbers only INTEGER by itself.
_Number: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class Base(DeclarativeBase):
    """Tables as classes; ``migrations/`` makes and changes them."""


_Row = TypeVar("_Row", bound=Base)


class AudienceRow(Base):
    """A saved audience: its plan as JSON (``sdk.types.TargetRequest``), and its hold-out."""

    __tablename__ = "audiences"

    id: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(200))
    owner: Mapped[str] = mapped_column(sa.String(200))
    plan: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    holdout: Mapped[float] = mapped_column(sa.Float)
    holdout_key: Mapped[str] = mapped_column(sa.String(200))
    created_at: Mapped[datetime] = mapped_column(_Utc)


class RunRow(Base):
    """One run of an audience on one snapshot.

    ``members`` is a Parquet file, relative to the workspace; ``query`` the float32 vector it was
    ranked by, null where only rules chose.
    """

    __tablename__ = "audience_runs"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    audience_id: Mapped[str] = mapped_column(sa.ForeignKey("audiences.id", ondelete="CASCADE"))
    meta: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    snapshot: Mapped[str] = mapped_column(sa.String(200))
    space: Mapped[str] = mapped_column(sa.String(200))
    kind: Mapped[str] = mapped_column(sa.String(128))
    size: Mapped[int]
    members: Mapped[str] = mapped_column(sa.String(500))
    query: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    created_at: Mapped[datetime] = mapped_column(_Utc)


class KeyRow(Base):
    """An API key: SHA-256 of its secret, and of the one before while their times overlap."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(100))
    owner: Mapped[str] = mapped_column(sa.String(200))
    digest: Mapped[str] = mapped_column(sa.String(64))
    previous_digest: Mapped[str | None] = mapped_column(sa.String(64))
    overlap_until: Mapped[datetime | None] = mapped_column(_Utc)
    scopes: Mapped[list[Any]] = mapped_column(sa.JSON)
    rate: Mapped[str | None] = mapped_column(sa.String(50))
    created_at: Mapped[datetime] = mapped_column(_Utc)
    expires_at: Mapped[datetime | None] = mapped_column(_Utc)
    rotated_at: Mapped[datetime | None] = mapped_column(_Utc)
    last_used_at: Mapped[datetime | None] = mapped_column(_Utc)
    revoked_at: Mapped[datetime | None] = mapped_column(_Utc)


class AuditRow(Base):
    """Who did what; never changed, and never deleted with what it was done to."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(_Number, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(_Utc)
    who: Mapped[str] = mapped_column(sa.String(200))
    action: Mapped[str] = mapped_column(sa.String(50))
    audience_id: Mapped[str | None] = mapped_column(sa.String(32))
    detail: Mapped[dict[str, Any]] = mapped_column(sa.JSON)


def database_url(workspace: Workspace) -> str:
    """The environment's database, or SQLite in the workspace."""
    return os.environ.get(DATABASE_VARIABLE) or f"sqlite:///{workspace.root / 'openfound.db'}"


def find(session: Session, kind: type[_Row], key: str) -> _Row | None:
    """A row by its id; PostgreSQL refuses to look for text with NUL, which nothing has as id."""
    return None if "\x00" in key else session.get(kind, key)


def open_database(workspace: Workspace, url: str | None = None) -> sa.Engine:
    """The database with an up-to-date schema. Raises InputError if the URL leads to none."""
    workspace.root.mkdir(parents=True, exist_ok=True)
    engine = _engine(url or database_url(workspace))
    with durable.locked(workspace.root / ".database.lock"):
        try:
            migrate(engine)
        except OperationalError as error:
            raise InputError(
                f"{DATABASE_VARIABLE}: {engine.url!r} cannot be opened ({error.orig}); start it, "
                f"or name another"
            ) from error
    return engine


def migrate(engine: sa.Engine, revision: str = "head") -> None:
    """Bring the schema to a revision, ``base`` being none, in one transaction."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        (command.downgrade if revision == "base" else command.upgrade)(config, revision)


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "postgresql" and "connect_timeout" not in parsed.query:
            parsed = parsed.update_query_dict({"connect_timeout": str(CONNECT_SECONDS)})
        engine = sa.create_engine(parsed, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise InputError(
            f"{DATABASE_VARIABLE}: expected postgresql+psycopg://user:password@host/name or "
            f"sqlite:////path, got another sort of URL"
        ) from error
    except ModuleNotFoundError as error:
        raise InputError(
            f"{DATABASE_VARIABLE}: its driver is missing ({error}); install PostgreSQL's with "
            f"`pip install -e '.[postgres]'`"
        ) from error
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _sqlite_settings)
    return engine


def _sqlite_settings(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA journal_mode = WAL")  # readers do not wait for a writer
    cursor.execute("PRAGMA busy_timeout = 10000")
    cursor.close()
