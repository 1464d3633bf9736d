"""What the people of the synthetic world do: purchases, page clicks, mini-programs, searches.

Acts are drawn week by week, because a purchase changes the chance of the next one; within a week
all users and topics of a chunk are drawn at once.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from feature_repo.schema import BILL, CANONICAL, CLICK, MINI_PROGRAM, STATUSES, TIMESTAMP
from feature_repo.sources.synthetic_topics import (
    CHANNELS,
    CITIES,
    EVERYDAY,
    SEARCH,
    TEMPLATES,
    TOPICS,
)
from feature_repo.sources.synthetic_world import (
    BACKGROUND,
    Array,
    People,
    World,
    numbered,
    purchase_background,
    purchase_rates,
    recency,
    seasons,
)

SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND
WEEK: Final = 7 * DAY

EVIDENCE: Final = {CLICK: 0.35, MINI_PROGRAM: 0.2, SEARCH: 0.2}
"""Acts per week, of a fully interested user, in the modalities that are not purchases."""

EVERYDAY_RATE: Final = {BILL: 0.5, CLICK: 0.4, MINI_PROGRAM: 0.3, SEARCH: 0.1}
WEEKDAYS: Final = {
    BILL: (0.09, 0.09, 0.10, 0.12, 0.20, 0.25, 0.15),
    CLICK: (0.13, 0.13, 0.13, 0.13, 0.13, 0.17, 0.18),
    MINI_PROGRAM: (0.19, 0.18, 0.17, 0.17, 0.16, 0.07, 0.06),
    SEARCH: (0.15, 0.15, 0.14, 0.14, 0.13, 0.14, 0.15),
}
EVERYDAY_PRICE: Final = 4.0
LATE: Final = 0.04
"""Share of rows that reach us one day or more after they happened."""

STREAMS: Final = {BILL: 1, CLICK: 2, MINI_PROGRAM: 3, SEARCH: 4, "profiles": 5, "exposures": 6}
"""Every table of a chunk has its own random stream; 0 draws the people."""


def random_stream(world: World, chunk: int, table: str) -> np.random.Generator:
    """The random numbers of one chunk's table; no other table or chunk touches them."""
    return np.random.default_rng([world.seed, chunk, STREAMS[table]])


def _texts(source: str) -> tuple[list[str], Array, Array]:
    """All texts of a source → (texts, [topics + 1] first text of a topic, [topics + 1] how many).

    The last entry stands for the everyday texts.
    """
    groups = [
        [template.format(thing) for thing in topic.things for template in TEMPLATES[source]]
        for topic in TOPICS
    ] + [list(EVERYDAY[source])]
    sizes = np.array([len(group) for group in groups])
    return sum(groups, []), np.cumsum(sizes) - sizes, sizes


def catalogue() -> pa.Table:
    """Raw items of bills, clicks and mini-programs; categories: department, topic, text."""
    rows = []
    for source in (BILL, CLICK, MINI_PROGRAM):
        texts, firsts, _ = _texts(source)
        topics = np.searchsorted(firsts, np.arange(len(texts)), side="right") - 1
        for n, (text, topic) in enumerate(zip(texts, topics, strict=True)):
            above = ["everyday", "everyday"]
            if topic < len(TOPICS):
                above = [TOPICS[topic].department, TOPICS[topic].name]
            brand = ("National", "Private")[n % 2] if source == BILL else None
            rows.append((f"{source}-{n}", text, [*above, text], brand))
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(column) for column in columns], names=CANONICAL["items"].names)


def _acts(
    rng: np.random.Generator, world: World, people: People, source: str
) -> tuple[Array, Array, Array]:
    """Draw one source's acts → (user index, topic index, week), [n] each; last topic = everyday."""
    active = people.activity * people.uses[source]
    shown = np.array([source == BILL or source in topic.visible for topic in TOPICS])
    own = purchase_rates() if source == BILL else np.full(len(TOPICS), EVIDENCE[source])
    noise = purchase_background() if source == BILL else BACKGROUND
    rates = (people.interests + noise) * (own * shown) * active[:, None]
    season = seasons(world)
    everyday = EVERYDAY_RATE[source] * active
    bought = np.full(rates.shape, -np.inf, np.float32)  # week of the last purchase
    parts = []
    for week in range(world.weeks):
        current = rates * season[:, week]
        if source == BILL:
            current = current * recency(week - bought)
        chance = 1 - np.exp(-np.column_stack([current, everyday]))
        user, topic = np.nonzero(rng.random(chance.shape, np.float32) < chance)
        if source == BILL:
            topical = topic < len(TOPICS)
            bought[user[topical], topic[topical]] = week
        parts.append((user, topic, np.full(len(user), week)))
    user, topic, weeks = (np.concatenate(column) for column in zip(*parts, strict=True))
    return user, topic, weeks


def _choose_texts(rng: np.random.Generator, source: str, topics: Array) -> Array:
    """[n] topic → [n] index of one of its texts; the first ones are the most popular."""
    _, firsts, sizes = _texts(source)
    chosen: Array = firsts[topics] + (rng.random(len(topics)) ** 1.5 * sizes[topics]).astype(int)
    return chosen


def draw_times(rng: np.random.Generator, world: World, weeks: Array, source: str) -> Array:
    """[n] week → [n] microseconds since 1970, with the source's weekdays and waking hours."""
    day = rng.choice(7, len(weeks), p=WEEKDAYS[source])
    second = rng.integers(7 * 3600, 23 * 3600, len(weeks))
    times: Array = first_moment(world) + weeks * WEEK + day * DAY + second * SECOND
    return times


def first_moment(world: World) -> int:
    """The world's start in microseconds since 1970."""
    return int(world.begins.timestamp()) * SECOND


def _known_at(rng: np.random.Generator, times: Array) -> Array:
    """[n] when it happened → [n] when it reached us: at once, or days later."""
    late = rng.random(len(times)) < LATE
    delay = DAY + (rng.exponential(3 * 86_400, len(times)).astype(np.int64)) * SECOND
    return times + late * delay


def moments(times: Array) -> pa.Array:
    """[n] microseconds since 1970 → timestamps."""
    return pa.array(times).cast(TIMESTAMP)


def pick(words: tuple[str, ...] | list[str], index: Array) -> pa.Array:
    """[n] index → [n] words."""
    return pa.array(words, pa.string()).take(pa.array(index))


def events(world: World, chunk: int, people: People) -> pa.Table:
    """Bills, clicks and mini-program visits of one chunk."""
    visits = [_visits(world, chunk, people, source) for source in (CLICK, MINI_PROGRAM)]
    return pa.concat_tables([_bills(world, chunk, people), *visits])


def _bills(world: World, chunk: int, people: People) -> pa.Table:
    """Purchases; all those of a user and week are one basket, at one moment."""
    rng = random_stream(world, chunk, BILL)
    user, topic, week = _acts(rng, world, people, BILL)
    item = _choose_texts(rng, BILL, topic)
    baskets, basket = np.unique(user * world.weeks + week, return_inverse=True)
    times = draw_times(rng, world, baskets % world.weeks, BILL)
    known = _known_at(rng, times)
    count = len(user)
    quantity = 1.0 + (rng.random(count) < 0.2)
    reduction = np.where(rng.random(count) < 0.3, rng.uniform(0.1, 0.3, count), 0.0)
    price = np.array([*(topic.price for topic in TOPICS), EVERYDAY_PRICE])[topic]
    price = price * np.exp(rng.normal(0, 0.2, count)) * (1 + 0.2 * people.plan[user])
    unusual = rng.random(count) < 0.15
    channel = np.where(unusual, rng.integers(0, len(CHANNELS), count), people.channel[user])
    failed = (rng.random(count) < 0.02).astype(int)
    order = np.lexsort((item, user, times[basket]))
    more = {
        "quantity": pa.array(quantity[order]),
        "amount": pa.array(np.round(quantity * price * (1 - reduction), 2)[order]),
        "discount": pa.array(np.round(quantity * price * reduction, 2)[order]),
        "channel": pick(CHANNELS, channel[order]),
        "status": pick(STATUSES, failed[order]),
        "basket_id": numbered(f"basket-{chunk}-", basket[order]),
        "place": pick(CITIES, people.city[user[order]]),
    }
    when = times[basket[order]], known[basket[order]]
    return _event_table(f"{BILL}-{chunk}-", people, BILL, user[order], item[order], when, more)


def _visits(world: World, chunk: int, people: People, source: str) -> pa.Table:
    """Page clicks or mini-program visits."""
    rng = random_stream(world, chunk, source)
    user, topic, week = _acts(rng, world, people, source)
    item = _choose_texts(rng, source, topic)
    times = draw_times(rng, world, week, source)
    known = _known_at(rng, times)
    order = np.lexsort((item, user, times))
    sections = (*(topic.department for topic in TOPICS), "everyday")
    more = {"place": pick(sections, topic[order])}
    when = times[order], known[order]
    return _event_table(f"{source}-{chunk}-", people, source, user[order], item[order], when, more)


def _event_table(
    prefix: str,
    people: People,
    source: str,
    user: Array,
    item: Array,
    when: tuple[Array, Array],
    more: dict[str, pa.Array],
) -> pa.Table:
    """Canonical events of one source from [n] arrays; what ``more`` leaves out is null."""
    columns = {
        "event_id": numbered(prefix, np.arange(len(user))),
        "user_id": people.ids.take(pa.array(user)),
        "timestamp": moments(when[0]),
        "known_at": moments(when[1]),
        "source": pa.repeat(pa.scalar(source), len(user)),
        "item_id": numbered(f"{source}-", item),
        **more,
    }
    schema = CANONICAL["events"]
    arrays = [columns.get(field.name, pa.nulls(len(user), field.type)) for field in schema]
    return pa.table(arrays, schema=schema)


def searches(world: World, chunk: int, people: People) -> pa.Table:
    """Search texts of one chunk."""
    rng = random_stream(world, chunk, SEARCH)
    user, topic, week = _acts(rng, world, people, SEARCH)
    text = _choose_texts(rng, SEARCH, topic)
    times = draw_times(rng, world, week, SEARCH)
    known = _known_at(rng, times)
    order = np.lexsort((text, user, times))
    arrays = [
        numbered(f"{SEARCH}-{chunk}-", np.arange(len(user))),
        people.ids.take(pa.array(user[order])),
        moments(times[order]),
        moments(known[order]),
        pick(_texts(SEARCH)[0], text[order]),
    ]
    return pa.table(arrays, schema=CANONICAL["searches"])
