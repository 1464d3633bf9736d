"""The made-up people of the synthetic world and the truth about them; everything is synthetic.

The world covers ``weeks`` whole weeks from ``start`` (a Monday). Users come in chunks of fixed
size, each drawn from its own random streams, so that a chunk needs no other one and the same seed
gives the same bytes however it is read.

A user buys something of a topic in week w with the chance 1 - exp(-rate), where

    rate = topic rate x interest x activity x season(topic, w) x recency(weeks since the last one)

plus a small background. ``Truth`` knows every factor, so it can say how well the best possible
audience would do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.errors import InputError
from feature_repo.schema import BILL
from feature_repo.sources.synthetic_topics import (
    CHANNELS,
    CITIES,
    OTHER_VALUES,
    PLANS,
    PROFILE,
    TOPICS,
    Topic,
)

Floats = np.ndarray[Any, np.dtype[np.float32]]
Array = np.ndarray[Any, Any]

CHUNK: Final = 20_000
"""Users per chunk; part of the world's definition, since every chunk has its own streams."""

BACKGROUND: Final = 0.05
"""Share of a topic's rate with which uninterested users act as well: noise."""

ONCE_BACKGROUND: Final = 0.01
"""The same for purchases of topics that are bought once."""

AFTER_PURCHASE: Final = 0.4
"""How likely, against the usual, a repeat purchase is right after the last one."""

HOLD_OUT: Final = timedelta(weeks=6)
USERS: Final = (10, 20_000_000)
WEEKS: Final = (12, 520)
PLANTS: Final = ("bills", "clicks", "search", "profile")
"""Modalities in which ``synthetic_planted`` can plant interests."""


@dataclass(frozen=True)
class World:
    """What a synthetic world is drawn from."""

    users: int = 2_000
    seed: int = 0
    weeks: int = 40
    start: date = date(2024, 1, 1)
    plant: str = ""  # one of PLANTS: the world of synthetic_planted instead of the usual one
    without: str = ""  # the planted modality again: the same world with it taken away

    def __post_init__(self) -> None:
        for name, (least, most) in {"users": USERS, "weeks": WEEKS}.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise InputError(f"synthetic: {name} must be {least} to {most}, got {value}")
        if self.seed < 0:
            raise InputError(f"synthetic: seed must not be negative, got {self.seed}")
        if self.plant not in ("", *PLANTS):
            raise InputError(f"synthetic: plant must be one of {PLANTS}, got {self.plant!r}")
        if self.without not in ("", self.plant):
            raise InputError(f"synthetic: without must be {self.plant!r}, got {self.without!r}")
        if self.start.weekday():
            monday = self.start - timedelta(days=self.start.weekday())
            raise InputError(f"synthetic: start must be a Monday, got {self.start}; try {monday}")

    @property
    def spec(self) -> str:
        """The complete spec, with the defaults spelled out."""
        planted = [f",{name}={value}" for name in ("plant", "without")
                   if (value := getattr(self, name))]  # fmt: skip
        return (
            f"synthetic:users={self.users},seed={self.seed},weeks={self.weeks},start={self.start}"
            f"{''.join(planted)}"
        )

    @property
    def begins(self) -> datetime:
        return datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC)

    @property
    def ends(self) -> datetime:
        """The first moment after the world."""
        return self.begins + timedelta(weeks=self.weeks)

    @property
    def default_as_of(self) -> datetime:
        """Six weeks before the end, a Monday: leaves a horizon to check predictions in."""
        return self.ends - HOLD_OUT

    @property
    def num_chunks(self) -> int:
        return -(-self.users // CHUNK)


@dataclass(frozen=True)
class People:
    """The users of one chunk; every array has one entry per user."""

    first: int
    """Number of the first user; user i of the chunk is called ``s<first + i>``."""
    age: Array
    city: Array
    plan: Array
    channel: Array
    activity: Floats
    """Multiplies all rates; median 1."""
    uses: dict[str, Array]
    """Per modality, whether the user has it at all."""
    interests: Floats
    """[users, topics], 0 = none, 1 = full."""
    profile: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.age)

    @property
    def ids(self) -> pa.Array:
        return numbered("s", np.arange(self.first, self.first + len(self)))


@dataclass(frozen=True)
class Truth:
    """What only the world's maker knows, for evaluation."""

    world: World
    topics: tuple[Topic, ...]
    user_ids: pa.Array
    interests: Floats
    """[users, topics]"""
    activity: Floats
    """[users]"""

    def purchase_chance(self, as_of: datetime, days: int, events: pa.Table | None = None) -> Floats:
        """[users, topics] chance of a purchase in [as_of, as_of + days): the oracle's score.

        Args:
            as_of: a moment inside the world.
            days: the horizon.
            events: canonical events, to know who bought when; None: as if nobody ever had.
        """
        first = (as_of - self.world.begins).days // 7
        last = (as_of - self.world.begins).days + days
        season = seasons(self.world)[:, first : -(-last // 7)].mean(axis=1) * days / 7
        rates = self.interests + purchase_background()
        rates = rates * (purchase_rates() * season) * self.activity[:, None]
        if events is not None:
            rates = rates * recency(self._weeks_since(events, as_of) + days / 14)
        chance: Floats = (1 - np.exp(-rates)).astype(np.float32)
        return chance

    def _weeks_since(self, events: pa.Table, as_of: datetime) -> Floats:
        """[users, topics] weeks since the last known purchase, infinite if there is none."""
        with duckdb.connect() as connection:
            connection.register("events", events)
            last = connection.sql(
                """SELECT user_id, item_id, max(timestamp) AS at FROM events
                WHERE source = $bill AND timestamp < $as_of AND known_at < $as_of GROUP BY ALL""",
                params={"bill": BILL, "as_of": as_of},
            ).to_arrow_table()
        user = pc.index_in(last.column("user_id"), self.user_ids).to_numpy()
        topic = pc.index_in(last.column("item_id"), pa.array(bill_items())).to_numpy()
        weeks = (as_of.timestamp() - _seconds(last.column("at"))) / (7 * 86_400)
        since = np.full(self.interests.shape, np.inf, np.float32)
        topical = ~np.isnan(topic.astype(float))
        topic_of = np.repeat(np.arange(len(TOPICS)), [len(topic.things) for topic in TOPICS])
        where = user[topical].astype(int), topic_of[topic[topical].astype(int)]
        np.minimum.at(since, where, weeks[topical].astype(np.float32))
        return since


def truth(spec: str) -> Truth:
    """The truth about the world of a spec ``synthetic:…``; events are not generated for it."""
    source, _, argument = spec.partition(":")
    if source != "synthetic":
        raise InputError(f"truth: expected a spec like synthetic:users=2000,seed=0, got {spec!r}")
    world = parse(argument)
    people = [populate(world, chunk) for chunk in range(world.num_chunks)]
    return Truth(
        world=world,
        topics=TOPICS,
        user_ids=pa.concat_arrays([each.ids for each in people]),
        interests=np.concatenate([each.interests for each in people]),
        activity=np.concatenate([each.activity for each in people]),
    )


def parse(argument: str) -> World:
    """``"users=2000,seed=0,weeks=40,start=2024-01-01"`` → World; what is left out has a default.

    Raises:
        InputError: unknown key, unreadable or impossible value.
    """
    values: dict[str, Any] = {}
    readers: dict[str, Callable[[str], Any]] = {
        "users": int,
        "seed": int,
        "weeks": int,
        "start": date.fromisoformat,
        "plant": str,
        "without": str,
    }
    for pair in filter(None, argument.split(",")):
        key, _, text = (part.strip() for part in pair.partition("="))
        if key not in readers:
            raise InputError(f"synthetic: expected {', '.join(readers)}, got {key!r}")
        if key in values:
            raise InputError(f"synthetic: {key} is given twice")
        if readers[key] is int and not re.fullmatch(r"-?[0-9]+", text):
            raise InputError(f"synthetic: {key} must be a whole number, got {text!r}")
        try:
            values[key] = readers[key](text)
        except ValueError as error:
            raise InputError(
                f"synthetic: {key} must be a date like 2024-01-01, got {text!r}"
            ) from error
    return World(**values)


def populate(world: World, chunk: int) -> People:
    """Draw the users of one chunk: who they are and what they are interested in."""
    first = chunk * CHUNK
    size = min(CHUNK, world.users - first)
    rng = np.random.default_rng([world.seed, chunk, 0])
    age = np.clip(rng.normal(44, 16, size), 14, 90).round()
    interests = _interests(rng, age)
    young = (70 - age) / 56  # the young pay by wallet
    channel = np.where(rng.random(size) < 0.6 * young, 1, rng.integers(0, len(CHANNELS), size))
    shares = {BILL: 1.0, "click": 0.9, "mini_program": 0.7, "search": 0.8}
    return People(
        first=first,
        age=age,
        city=rng.choice(len(CITIES), size, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.1]),
        plan=rng.choice(len(PLANS), size, p=[0.6, 0.3, 0.1]),
        channel=channel,
        activity=np.exp(rng.normal(0, 0.5, size)).astype(np.float32),
        uses={modality: rng.random(size) < share for modality, share in shares.items()},
        interests=interests,
        profile=_revealing_columns(rng, interests),
    )


def _interests(rng: np.random.Generator, age: Array) -> Floats:
    """[users, topics]: topics of one department go together, single-modality ones stand alone."""
    departments = sorted({topic.department for topic in TOPICS if not topic.once})
    taste = rng.dirichlet(np.full(len(departments), 0.5), len(age)) * len(departments)
    chance = np.empty((len(age), len(TOPICS)))
    for index, topic in enumerate(TOPICS):
        chance[:, index] = topic.share
        if not topic.once:
            chance[:, index] *= 0.4 + 0.6 * taste[:, departments.index(topic.department)]
        if topic.ages:
            inside = (age >= topic.ages[0]) & (age <= topic.ages[1])
            chance[:, index] *= np.where(inside, 1.5, 0.5)
    strength = 0.25 + 0.75 * rng.random(chance.shape)
    held = rng.random(chance.shape) < np.minimum(chance, 0.95)
    return np.where(held, strength, 0.0).astype(np.float32)


def _revealing_columns(rng: np.random.Generator, interests: Floats) -> dict[str, list[str]]:
    """Profile columns that mostly, not always, give a profile-only interest away."""
    columns = {}
    for index, topic in enumerate(TOPICS):
        if topic.visible != (PROFILE,) or topic.profile is None:
            continue
        column, value = topic.profile
        says_so = rng.random(len(interests)) < np.where(interests[:, index] > 0, 0.85, 0.05)
        other = rng.choice(len(OTHER_VALUES[column]), len(interests))
        words = np.array(OTHER_VALUES[column])[other]
        columns[column] = np.where(says_so, value, words).tolist()
    return columns


def seasons(world: World) -> Floats:
    """[topics, weeks] factor of demand: yearly season and trend."""
    week = np.arange(world.weeks)
    of_year = (world.start.timetuple().tm_yday // 7 + week) % 52
    rows = [
        (1 + topic.swing * np.cos(2 * np.pi * (of_year - topic.peak) / 52))
        * np.exp(topic.trend * week / 52)
        for topic in TOPICS
    ]
    return np.stack(rows).astype(np.float32)


def purchase_rates() -> Floats:
    """[topics] purchases per week at full interest."""
    return np.array([topic.rate for topic in TOPICS], np.float32)


def purchase_background() -> Floats:
    """[topics] what is added to everybody's interest in buying."""
    return np.array([ONCE_BACKGROUND if t.once else BACKGROUND for t in TOPICS], np.float32)


def recency(weeks_since: Floats) -> Floats:
    """[users, topics] factor: low after a purchase, back to 1 after the topic's pause.

    Topics that are bought once stay at 0 after a purchase.
    """
    pause = np.array([topic.pause for topic in TOPICS], np.float32)
    back = AFTER_PURCHASE + (1 - AFTER_PURCHASE) * np.minimum(weeks_since / pause, 1)
    done = np.array([topic.once for topic in TOPICS]) & np.isfinite(weeks_since)
    return np.where(done, 0, back).astype(np.float32)


def bill_items() -> list[str]:
    """Item ids of what can be bought, topic by topic in the order of TOPICS."""
    return [f"{BILL}-{n}" for n in range(sum(len(topic.things) for topic in TOPICS))]


def numbered(prefix: str, numbers: Array) -> pa.Array:
    """[n] integers → [n] ids like ``s12``."""
    return pc.binary_join_element_wise(prefix, pa.array(numbers).cast(pa.string()), "")


def _seconds(times: pa.ChunkedArray) -> Array:
    seconds: Array = times.cast(pa.int64()).to_numpy() / 1e6
    return seconds
