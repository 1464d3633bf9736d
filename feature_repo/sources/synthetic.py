"""A made-up world with every modality, any size and known truth; always labelled synthetic.

    synthetic:users=2000,seed=0[,weeks=40,start=2024-01-01]
    synthetic:users=3000,plant=search                         see ``synthetic_planted``

``load`` holds the whole world in memory; ``stream`` yields it chunk by chunk (20,000 users), for
worlds that do not fit. Figures per size stand in docs/bring-your-own-data.md.

How the world works is told in ``synthetic_world``, its words are in ``synthetic_topics``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa

from feature_repo.schema import CANONICAL, CLICK
from feature_repo.sources import synthetic_planted
from feature_repo.sources.synthetic_events import (
    DAY,
    SECOND,
    WEEK,
    catalogue,
    draw_times,
    events,
    first_moment,
    moments,
    pick,
    random_stream,
    searches,
)
from feature_repo.sources.synthetic_topics import CITIES, PLANS, TOPICS
from feature_repo.sources.synthetic_world import (
    Floats,
    People,
    Truth,
    World,
    numbered,
    populate,
    truth,
)
from feature_repo.sources.tables import CanonicalTables, as_maps, assemble, empty

__all__ = ["Truth", "load", "stream", "truth"]

NAME: Final = "synthetic"
CAMPAIGN_WEEKS: Final = 4


def load(world: World, *, now: datetime, demographics: bool = True) -> CanonicalTables:
    """The whole world in memory.

    Args:
        world: see ``synthetic_world.parse``.
        now: the clock; what the world puts after it is quarantined.
        demographics: with False the profiles table is empty.
    """
    chunks = list(stream(world, now=now, demographics=demographics))
    tables = {
        name: pa.concat_tables([getattr(chunk, name) for chunk in chunks])
        for name in (*CANONICAL, "quarantine")
        if name != "items"
    }
    return CanonicalTables(**tables, items=chunks[0].items, dropped={}, synthetic=True, name=NAME)


def stream(world: World, *, now: datetime, demographics: bool = True) -> Iterator[CanonicalTables]:
    """The world chunk by chunk; each chunk holds some users entirely, and all items."""
    if world.plant:
        yield from synthetic_planted.stream(world, now=now, demographics=demographics)
        return
    items = catalogue()
    for chunk in range(world.num_chunks):
        people = populate(world, chunk)
        raw = {"items": items, "events": events(world, chunk, people)}
        raw["searches"] = searches(world, chunk, people)
        raw["exposures"] = _exposures(world, chunk, people)
        raw["segments"] = _segments(world, people)
        raw["profiles"] = _profiles(world, chunk, people) if demographics else empty("profiles")
        yield assemble(raw, name=NAME, now=now, synthetic=True)


def _profiles(world: World, chunk: int, people: People) -> pa.Table:
    """Everybody at the start of the world; one in ten moves to another city later."""
    rng = random_stream(world, chunk, "profiles")
    movers = np.flatnonzero(rng.random(len(people)) < 0.1)
    user = np.concatenate([np.arange(len(people)), movers])
    city = np.concatenate([people.city, rng.integers(0, len(CITIES), len(movers))])
    weeks = rng.integers(1, world.weeks, len(movers))
    times = first_moment(world) + np.concatenate([np.zeros(len(people), int), weeks]) * WEEK
    index = pa.array(user)
    columns = {
        "city": pick(CITIES, city),
        "plan": pick(PLANS, people.plan[user]),
        **{name: pa.array(values).take(index) for name, values in people.profile.items()},
    }
    return pa.table(
        {
            "user_id": people.ids.take(index),
            "timestamp": moments(times),
            "known_at": moments(times),
            "categorical": as_maps(columns, len(user)),
            "continuous": as_maps({"age": pa.array(people.age[user].astype(float))}, len(user)),
        },
        schema=CANONICAL["profiles"],
    )


def _exposures(world: World, chunk: int, people: People) -> pa.Table:
    """Every four weeks an advertisement and an article, for topics that show everywhere."""
    rng = random_stream(world, chunk, "exposures")
    eligible = [index for index, topic in enumerate(TOPICS) if len(topic.visible) > 1]
    parts = []
    for number, week in enumerate(range(0, world.weeks, CAMPAIGN_WEEKS)):
        for form, shift in (("ad", 0), ("article", 3)):
            topic = eligible[(number + shift) % len(eligible)]
            text = f"{form}: {', '.join(TOPICS[topic].things)}"
            parts.append(_campaign(rng, world, people, f"{form}-{number}", topic, week, text))
    table = pa.concat_tables(parts)
    ids = numbered(f"exposure-{chunk}-", np.arange(len(table)))
    return table.add_column(0, CANONICAL["exposures"].field(0), ids)


def _campaign(
    rng: np.random.Generator,
    world: World,
    people: People,
    campaign: str,
    topic: int,
    week: int,
    text: str,
) -> pa.Table:
    """One campaign's impressions, the clicks on it, and (advertisements only) the redemptions."""
    interest: Floats = people.interests[:, topic]
    seen = np.flatnonzero(rng.random(len(people)) < 0.08 + 0.3 * interest)
    at = draw_times(rng, world, np.full(len(seen), week), CLICK)
    clicked = rng.random(len(seen)) < 0.03 + 0.4 * interest[seen]
    redeemed = clicked & (rng.random(len(seen)) < (0.4 if text.startswith("ad") else 0.0))
    kinds = {
        "impression": (seen, at),
        "click": (seen[clicked], at[clicked] + 20 * SECOND),
        "redeemed": (seen[redeemed], at[redeemed] + DAY),
    }
    schema = pa.schema(list(CANONICAL["exposures"])[1:])
    tables = []
    for kind, (user, times) in kinds.items():
        constants = [pa.repeat(pa.scalar(word), len(user)) for word in (campaign, kind, text)]
        when = moments(times)
        arrays = [people.ids.take(pa.array(user)), when, when, *constants]
        tables.append(pa.table(arrays, schema=schema))
    return pa.concat_tables(tables)


def _segments(world: World, people: People) -> pa.Table:
    """Planted audiences: rules over interests and age that no event states."""
    held = {topic.name: people.interests[:, n] for n, topic in enumerate(TOPICS)}
    rules = {
        "pet households": np.maximum(held["cat care"], held["dog care"]) > 0.4,
        "young parents": (held["infant care"] > 0.3) & (people.age < 35),
        "outdoor people": held["running"] + held["camping"] > 0.8,
        "young gamers": (held["video games"] > 0.3) & (people.age < 30),
        "gourmets": held["wine"] + held["coffee"] > 1.0,
    }
    members = [np.flatnonzero(member) for member in rules.values()]
    user = np.concatenate(members)
    names = np.repeat(np.arange(len(rules)), [len(each) for each in members])
    begins = moments(np.full(len(user), first_moment(world)))
    arrays = [pick(tuple(rules), names), people.ids.take(pa.array(user)), begins, begins]
    return pa.table(arrays, schema=CANONICAL["segments"])
