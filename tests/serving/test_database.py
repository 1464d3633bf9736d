"""The service's database, on SQLite and on a real PostgreSQL: what only one of them gets wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.orm import Session

from feature_repo.errors import InputError, UnknownAudience, UnknownKey
from feature_repo.settings import Workspace
from sdk.access import CreateKey
from serving.audience_store import AudienceStore, NewRun
from serving.audit import AuditLog
from serving.database import AuditRow, Base, KeyRow, migrate, open_database
from serving.keys import KeyStore

MOMENT = datetime(2026, 3, 29, 1, 30, 0, 123_456, tzinfo=UTC)  # clocks are put forward that night
TEXT = 'Käse, 乳酪 \u0000 "quoted" \\ 🧀'
UNMODELLED = ("remove_index", "remove_constraint")  # only the migrations know them
OPEN = """
from pathlib import Path
import sys
from feature_repo.settings import Workspace
from serving.database import open_database
open_database(Workspace(Path(sys.argv[1])))
"""


@pytest.fixture
def engine(tmp_path: Path, database: str) -> sa.Engine:
    opened = open_database(Workspace(tmp_path))
    assert opened.dialect.name == database
    return opened


def tables(engine: sa.Engine) -> set[str]:
    return set(sa.inspect(engine).get_table_names()) - {"alembic_version"}


def test_migrations_go_up_from_nothing_and_down_to_it(tmp_path: Path, engine: sa.Engine) -> None:
    open_database(Workspace(tmp_path))  # again changes nothing
    for _ in range(2):
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            changes = compare_metadata(context, Base.metadata)
        assert all(change[0] in UNMODELLED for change in changes), changes
        migrate(engine, "base")
        assert tables(engine) == set()
        migrate(engine)
    assert tables(engine) == set(Base.metadata.tables)


def test_processes_that_open_it_at_once_make_it_once(tmp_path: Path, database: str) -> None:
    """On PostgreSQL from two workspaces, as two machines have them."""
    places = [tmp_path / ("a" if database == "sqlite" else name) for name in "ab"]
    opening = [
        subprocess.Popen([sys.executable, "-c", OPEN, str(place)], env=os.environ | {
            "PYTHONPATH": str(Path(__file__).parents[2])
        }, stderr=subprocess.PIPE, text=True)
        for place in places
    ]  # fmt: skip
    told = [process.communicate(timeout=120)[1] for process in opening]
    assert [process.returncode for process in opening] == [0, 0], told
    assert tables(open_database(Workspace(places[0]))) == set(Base.metadata.tables)


def test_times_come_back_in_utc_to_the_microsecond(engine: sa.Engine) -> None:
    east = MOMENT.astimezone(timezone(timedelta(hours=9)))
    keys = KeyStore(engine, clock=lambda: east)
    keys.create(CreateKey(name="crm", scopes=["read"], expires_at=east + timedelta(days=1)), "me")
    with Session(engine) as session:
        row = session.scalars(sa.select(KeyRow)).one()
    assert row.created_at == MOMENT and row.created_at.utcoffset() == timedelta(0)
    assert row.expires_at is not None and row.expires_at.utcoffset() == timedelta(0)
    with Session(engine) as session:
        later = sa.select(KeyRow.id).where(KeyRow.created_at > MOMENT - timedelta(microseconds=1))
        assert session.scalar(later) == row.id, "times are compared as moments"


def test_plans_vectors_and_pages_come_back_as_they_went(tmp_path: Path, engine: sa.Engine) -> None:
    """Made within one microsecond, the pages fall back on ids."""
    store = AudienceStore(Workspace(tmp_path), engine, clock=lambda: MOMENT)
    plan = {"text": TEXT, "size": 2**53 + 1, "share": 0.1 + 0.2, "rules": [None, True, {"a": []}]}
    vector = np.float32([0.1, -1e-38, 3e38])
    ids, scores = pa.array(["u1", "u2"]), np.float32([1, 0.5])
    meta = {"snapshot": "s" * 200, "space": "one", "notes": [TEXT]}
    made = {
        store.create(
            name="Käse", owner="me", plan=plan, holdout=0.1, holdout_key=None,
            run=NewRun(meta, "fused", ids, scores, vector),
        ).id
        for _ in range(5)
    }  # fmt: skip
    one = store.get(made.copy().pop())
    assert (one.plan, one.latest.meta, one.holdout) == (plan, meta, 0.1)
    assert one.latest.query is not None and (one.latest.query == vector).all()
    listed, after = store.list(2)
    while after is not None:
        more, after = store.list(2, after)
        listed = [*listed, *more]
    assert [each.id for each in listed] == sorted(made, reverse=True)


def test_text_with_nul_finds_nothing(tmp_path: Path, engine: sa.Engine) -> None:
    """PostgreSQL answers it with an error of its own."""
    with pytest.raises(UnknownAudience):
        AudienceStore(Workspace(tmp_path), engine).get("a\x00b")
    with pytest.raises(UnknownKey):
        KeyStore(engine).revoke("a\x00b")


def test_the_log_outgrows_four_bytes(engine: sa.Engine) -> None:
    log = AuditLog(engine)
    with engine.begin() as connection:
        line = {"id": 2**31 - 1, "at": MOMENT, "who": "me", "action": "save", "detail": {}}
        connection.execute(sa.insert(AuditRow), line)
        if engine.dialect.name == "postgresql":  # a number that was given does not move it
            connection.execute(sa.text("SELECT setval('audit_id_seq', 2147483647)"))
    log.note("me", "run", "a1", text=TEXT)
    assert [line.id for line in log.page().lines] == [2**31, 2**31 - 1]
    assert [line.id for line in log.page(before=2**63 - 1).lines] == [2**31, 2**31 - 1]
    assert log.page(action="run").lines[0].detail == {"text": TEXT}


def at_once(*calls: Any) -> list[Any]:
    """What calls return or raise that are made in threads of their own."""
    with ThreadPoolExecutor(len(calls)) as pool:
        made = [pool.submit(call) for call in calls]
    return [future.exception() or future.result() for future in made]


def test_of_two_who_take_a_name_at_once_one_has_it(engine: sa.Engine) -> None:
    keys = KeyStore(engine)
    for number in range(5):
        asked = CreateKey(name=f"crm {number}", scopes=["read"])
        made = at_once(*[lambda asked=asked: keys.create(asked, "me")] * 4)
        assert sum(isinstance(one, InputError) for one in made) == 3, made
    assert len(keys.list()) == 5


def test_replicas_that_note_the_same_keys_do_not_deadlock(engine: sa.Engine) -> None:
    keys = KeyStore(engine)
    ids = [keys.create(CreateKey(name=f"k{n}", scopes=["read"]), "me").id for n in range(30)]
    for round_ in range(1, 16):
        moment = MOMENT + timedelta(hours=round_)
        orders = [dict.fromkeys(order, moment) for order in (ids, ids[::-1])]
        assert at_once(*[lambda used=used: keys.used(used) for used in orders]) == [None, None]
    assert {key.last_used_at for key in keys.list()} == {moment}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_connection_that_was_cut_is_made_again(engine: sa.Engine) -> None:
    log = AuditLog(engine)
    log.note("me", "save")
    with engine.connect() as held:
        held.execute(sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                             "WHERE pid <> pg_backend_pid()"))  # fmt: skip
        log.note("me", "run")
    assert [line.action for line in log.page().lines] == ["run", "save"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgres://me:hidden@host/db", r"expected postgresql\+psycopg://"),
        ("me:hidden@host", r"expected postgresql\+psycopg://"),
        ("postgresql+psycopg://me:hidden@host:port/db", r"expected postgresql\+psycopg://"),
        ("postgresql+pg8000://me:hidden@host/db", r"driver is missing .*\.\[postgres\]"),
        ("postgresql+psycopg://me:hidden@127.0.0.1:1/db", "cannot be opened .*; start it"),
    ],
)
def test_urls_that_lead_nowhere_are_told_without_their_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    monkeypatch.setenv("OPENFOUND_DATABASE_URL", url)
    with pytest.raises(InputError, match=f"(?s)OPENFOUND_DATABASE_URL: .*{said}") as error:
        open_database(Workspace(tmp_path))
    assert "hidden" not in str(error.value)
