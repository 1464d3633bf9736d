"""Keys in the database: hashed, rotated with an overlap, revoked; and the ring that knows them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from feature_repo.errors import InputError, UnknownKey
from sdk.access import CreateKey
from serving.auth import ApiKeys, Principal
from serving.database import open_database
from serving.key_ring import REFRESH_SECONDS, STALE_SECONDS, KeyRing
from serving.keys import PREFIX, KeyStore

HOUR = timedelta(hours=1)


class Time:
    """A clock that goes when told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        return self.now.timestamp()

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def engine(world: Any, database: str) -> sa.Engine:
    return open_database(world.workspace)


@pytest.fixture
def keys(engine: sa.Engine, time: Time) -> KeyStore:
    return KeyStore(engine, clock=time)


def ring(keys: Any, time: Time) -> KeyRing:
    """As another replica has it: it knows only what it reads."""
    environment = ApiKeys.parse("boot")
    assert environment is not None
    return KeyRing(environment, keys, clock=time, seconds=time.seconds)


def test_a_key_opens_what_its_scopes_say_and_only_its_digest_is_kept(
    keys: KeyStore, engine: sa.Engine, time: Time
) -> None:
    made = keys.create(CreateKey(name="crm", scopes=["target", "export"], rate="5/second"), "me")
    assert made.key.startswith(PREFIX) and len(made.key) > 40 and made.owner == "me"
    found = ring(keys, time).find(made.key)
    assert found == Principal("crm", frozenset({"target", "export"}), "5/second")
    assert ring(keys, time).find(made.key + "x") is None
    with engine.connect() as connection:
        kept = str(connection.execute(sa.text("SELECT * FROM keys")).all())
    assert made.key not in kept and made.key.removeprefix(PREFIX) not in kept
    assert hashlib.sha256(made.key.encode()).hexdigest() in kept
    assert made.key not in repr(keys.list())


def test_the_environment_s_keys_stay_and_come_first(keys: KeyStore, time: Time) -> None:
    found = ring(keys, time).find("boot")
    assert found is not None and found.may("admin") and found.name.startswith("key-")


def test_rotation_overlaps_and_then_ends(keys: KeyStore, time: Time) -> None:
    first = keys.create(CreateKey(name="crm", scopes=["read"]), "me")
    second = keys.rotate(first.id, HOUR)
    assert second.id == first.id and second.overlap_until == time.now + HOUR
    elsewhere = ring(keys, time)
    assert elsewhere.find(first.key) == elsewhere.find(second.key) is not None
    time.pass_(3599)
    assert elsewhere.find(first.key) is not None
    time.pass_(1)
    assert elsewhere.find(first.key) is None, "to the second, whenever the ring last read"
    third = keys.rotate(first.id, timedelta(0))
    time.pass_(REFRESH_SECONDS)
    assert elsewhere.find(second.key) is None and elsewhere.find(third.key) is not None
    keys.rotate(first.id, HOUR)
    fifth = keys.rotate(first.id, HOUR)
    time.pass_(REFRESH_SECONDS)
    assert elsewhere.find(third.key) is None, "only one secret before the present one"
    assert elsewhere.find(fifth.key) is not None


def test_a_revoked_key_dies_within_the_time_stated(keys: KeyStore, time: Time) -> None:
    made = keys.create(CreateKey(name="crm", scopes=["read"]), "me")
    rotated = keys.rotate(made.id, HOUR)
    elsewhere = ring(keys, time)
    assert elsewhere.find(made.key) and elsewhere.find(rotated.key)
    assert keys.revoke(made.id).revoked_at == time.now
    time.pass_(REFRESH_SECONDS)
    assert elsewhere.find(made.key) is None and elsewhere.find(rotated.key) is None
    for change in (lambda: keys.revoke(made.id), lambda: keys.rotate(made.id, HOUR)):
        with pytest.raises(UnknownKey, match="openfound keys list"):
            change()
    assert [key.revoked_at for key in keys.list()] != [None]
    keys.create(CreateKey(name="crm", scopes=["read"]), "me")  # its name is free again


def test_a_key_expires_to_the_second(keys: KeyStore, time: Time) -> None:
    asked = CreateKey(name="crm", scopes=["read"], expires_at=time.now + timedelta(seconds=3))
    made = keys.create(asked, "me")
    rotated = keys.rotate(made.id, HOUR)
    here = ring(keys, time)
    assert here.find(made.key) and here.find(rotated.key)
    time.pass_(3)
    assert here.find(made.key) is None and here.find(rotated.key) is None
    with pytest.raises(InputError, match="expires_at: expected a time to come"):
        keys.create(asked.model_copy(update={"name": "late"}), "me")


def test_names_of_living_keys_are_unique(keys: KeyStore) -> None:
    keys.create(CreateKey(name="crm", scopes=["read"]), "me")
    with pytest.raises(InputError, match="name: a key named 'crm'"):
        keys.create(CreateKey(name=" crm ", scopes=["admin"]), "me")


def test_last_use_is_written_once_a_minute(keys: KeyStore, time: Time) -> None:
    made = keys.create(CreateKey(name="crm", scopes=["read"]), "me")
    here = ring(keys, time)

    def used() -> datetime | None:
        time.pass_(REFRESH_SECONDS)
        here.find("boot")  # the next request writes what the ring has seen
        return keys.list()[0].last_used_at

    assert used() is None
    moments = []
    for _ in range(20):
        here.find(made.key)
        moments.append(used())
    assert len(set(moments)) == 2, "twenty uses over 100 seconds"
    assert moments[0] is not None and time.now - moments[0] >= timedelta(seconds=95)


def test_without_the_database_the_last_list_holds_for_a_minute(keys: KeyStore, time: Time) -> None:
    class Away:
        """A database that goes away."""

        away = False

        def valid(self) -> Any:
            if self.away:
                raise OperationalError("SELECT", {}, Exception("nobody answers"))
            return keys.valid()

        def used(self, moments: Any) -> None:
            pass

    made = keys.create(CreateKey(name="crm", scopes=["read"]), "me")
    kept = Away()
    here = ring(kept, time)
    assert here.find(made.key)
    kept.away = True
    time.pass_(STALE_SECONDS)
    assert here.find(made.key) and here.find("boot")
    time.pass_(STALE_SECONDS)
    assert here.find(made.key) is None and here.find("boot")
    kept.away = False
    time.pass_(REFRESH_SECONDS)
    assert here.find(made.key)
