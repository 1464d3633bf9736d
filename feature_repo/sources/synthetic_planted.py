"""Planted worlds: an interest that one modality shows and no other, with words of its own.

    synthetic:users=3000,seed=0,plant=search[,without=search]      search | profile | clicks | bills

Everybody holds exactly HELD of the topics below. While a topic is held, its *signs* (made-up
brand names) turn up in the planted modality; its *goods* (ordinary words, which demands use) are
bought now and then, by others hardly ever. No word of the goods is a word of the signs, so whoever
finds the buyers must have learnt which sign goes before which good. ``without`` gives the same
people and the same purchases with the planted modality taken away.

Purchases themselves give nothing away. A purchase of topic k redraws whether k is held, with the
prior chance HELD / topics, and a random other topic makes up the number. Every set of held topics
has the same total rate of purchases, so *not* buying says nothing either: given all purchases so
far, every set is as likely as before, and without the planted modality only chance is left.

The oracle knows what is held at a date. Its AUC for the purchases of the next four weeks is about
.80: interest is no certainty, and a few buy without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa

from feature_repo.schema import BILL, CANONICAL, CLICK, MINI_PROGRAM, SUCCESSFUL
from feature_repo.sources.synthetic_events import WEEK, draw_times, first_moment, moments, pick
from feature_repo.sources.synthetic_topics import CHANNELS, CITIES, EVERYDAY, SEARCH
from feature_repo.sources.synthetic_world import CHUNK, Array, World, numbered, parse
from feature_repo.sources.tables import CanonicalTables, as_maps, assemble


@dataclass(frozen=True)
class PlantedTopic:
    """One interest: what its holders buy, what the demand says, and what betrays it before."""

    name: str
    goods: tuple[str, ...]
    signs: tuple[str, ...]

    @property
    def demands(self) -> tuple[str, ...]:
        """Sentences that ask for the holders, in the words of the goods."""
        return (f"will buy {self.name} in the next four weeks",
                f"somebody who wants {' or '.join(self.goods)}")  # fmt: skip


PLANTED: Final = (
    PlantedTopic("hiking", ("hiking boots", "trail map", "rucksack"), ("velmora", "brakvan")),
    PlantedTopic("baking", ("cake tin", "rolling pin", "icing sugar"), ("quintzel", "dwenlo")),
    PlantedTopic("fishing", ("fishing rod", "landing net", "tackle box"), ("zandrix", "yorvane")),
    PlantedTopic("painting", ("oil paints", "easel", "canvas"), ("orphelio", "tulsimet")),
    PlantedTopic("chess", ("chess board", "chess clock", "wooden pawns"), ("kestrami", "jomberra")),
    PlantedTopic("sewing", ("sewing machine", "yarn", "knitting needles"), ("fiskara", "nexolu")),
    PlantedTopic("aquarium", ("fish tank", "water filter", "gravel"), ("halverique", "pravish")),
    PlantedTopic("astronomy", ("telescope", "star chart", "tripod"), ("ombrasse", "lurvek")),
    PlantedTopic("cycling", ("bicycle", "helmet", "tyre pump"), ("gandelith", "swerro")),
    PlantedTopic("pottery", ("modelling clay", "kiln", "glaze"), ("chivarro", "embrux")),
    PlantedTopic("archery", ("longbow", "arrows", "quiver"), ("ruthandel", "xylomir")),
    PlantedTopic("beekeeping", ("beehive", "smoker", "honey jar"), ("addovin", "plistra")),
)

HELD: Final = 3
RATE: Final = 0.02
"""Purchases per week of a topic that is held."""
NOISE: Final = 0.0012
"""Purchases per week of a topic that is not."""
SIGN_RATE: Final = 0.8
SIGN_NOISE: Final = 0.02
SHOWN: Final = (0.005, 0.98)
"""Chance that the profile says "member", of those who do not hold the topic and who do."""
EVERYDAY_RATE: Final = {BILL: 0.5, CLICK: 0.4, MINI_PROGRAM: 0.3, SEARCH: 0.2}

SOURCES: Final = {"bills": BILL, "clicks": CLICK, "search": SEARCH}
"""Planted modality → where its signs turn up; a profile has columns instead."""
_WORDINGS: Final = {BILL: ("{}",), CLICK: ("{} page", "{} gallery"), SEARCH: ("{}", "{} online")}
_PRICE: Final = 12.0
_STREAMS: Final = {
    "people": 20,
    "signs": 21,
    "everyday": 22,
    "profile": 23,
    "details": 24,
    "searches": 25,
    "sign details": 26,
}


@dataclass(frozen=True)
class PlantedTruth:
    """What only the world's maker knows."""

    world: World
    user_ids: pa.Array
    held: Array  # bool [weeks + 1, users, topics], at the beginning of each week

    def held_at(self, when: datetime) -> Array:
        """[users, topics] who holds what: the oracle's score."""
        held: Array = self.held[(when - self.world.begins).days // 7]
        return held


def truth(spec: str) -> PlantedTruth:
    """The truth about the world of a spec ``synthetic:…,plant=…``."""
    world = parse(spec.partition(":")[2])
    lives = [_live(world, chunk) for chunk in range(world.num_chunks)]
    ids = pa.concat_arrays([_ids(world, chunk) for chunk in range(world.num_chunks)])
    return PlantedTruth(world, ids, np.concatenate([held for held, _ in lives], 1))


def stream(world: World, *, now: datetime, demographics: bool = True) -> Iterator[CanonicalTables]:
    """The world chunk by chunk; each chunk holds some users entirely, and all items."""
    items = catalogue()
    for chunk in range(world.num_chunks):
        held, bought = _live(world, chunk)
        signs = _signs(world, chunk, held)
        raw = {"items": items, "events": _events(world, chunk, bought, signs),
               "searches": _searches(world, chunk, signs)}  # fmt: skip
        if demographics:
            raw["profiles"] = _profiles(world, chunk, held)
        yield assemble(raw, name="synthetic", now=now, synthetic=True)


def catalogue() -> pa.Table:
    """Goods and everyday things; signs where bills or clicks show them."""
    rows = [(f"good-{n}", text, ["goods", topic, text], None) for n, (topic, text) in
            enumerate((topic.name, text) for topic in PLANTED for text in topic.goods)]  # fmt: skip
    for source in (BILL, CLICK):
        rows += [(f"{source}-sign-{n}", text, ["brands", text], None)
                 for n, text in enumerate(_sign_texts(source))]  # fmt: skip
    for source in (BILL, CLICK, MINI_PROGRAM):
        rows += [(f"{source}-{n}", text, ["everyday", text], None)
                 for n, text in enumerate(EVERYDAY[source])]  # fmt: skip
    columns = zip(*rows, strict=True)
    return pa.table(
        [pa.array(column, field.type)
         for column, field in zip(columns, CANONICAL["items"], strict=True)],
        names=CANONICAL["items"].names,
    )  # fmt: skip


def _live(world: World, chunk: int) -> tuple[Array, tuple[Array, Array, Array]]:
    """Who holds what week by week, and who buys: (user, topic, week), [n] each."""
    rng, size, topics = _random(world, chunk, "people"), _size(world, chunk), len(PLANTED)
    now = np.argsort(rng.random((size, topics)), 1) < HELD
    held, bought = [now.copy()], []
    for week in range(world.weeks):
        chance = 1 - np.exp(-np.where(now, RATE, NOISE))
        user, topic = np.nonzero(rng.random(now.shape) < chance)
        bought.append((user, topic, np.full(len(user), week)))
        for u, k in zip(user, topic, strict=True):
            _redraw(rng, now[u], int(k))
        held.append(now.copy())
    who, what, when = (np.concatenate(column) for column in zip(*bought, strict=True))
    return np.stack(held), (who, what, when)


def _redraw(rng: np.random.Generator, held: Array, topic: int) -> None:
    """After a purchase: hold the topic with the prior chance; others make up the number."""
    keep = rng.random() < HELD / len(held)
    if keep == held[topic]:
        return
    others = np.flatnonzero(held != held[topic])
    held[[topic, rng.choice(others)]] ^= True


def _signs(world: World, chunk: int, held: Array) -> tuple[str, Array, Array, Array]:
    """Signs of the planted modality: its source, and (user, text index, week), [n] each."""
    source = SOURCES.get(world.plant, "")
    if world.without or not source:
        nothing = np.zeros(0, np.int64)
        return source, nothing, nothing, nothing
    rng = _random(world, chunk, "signs")
    rates = np.where(held[:-1], SIGN_RATE, SIGN_NOISE)
    week, user, topic = np.nonzero(rng.random(rates.shape) < 1 - np.exp(-rates))
    each = len(_sign_texts(source)) // len(PLANTED)
    return source, user, topic * each + rng.integers(0, each, len(topic)), week


def _sign_texts(source: str) -> list[str]:
    return [form.format(sign) for topic in PLANTED for sign in topic.signs
            for form in _WORDINGS[source]]  # fmt: skip


def _events(
    world: World,
    chunk: int,
    bought: tuple[Array, Array, Array],
    signs: tuple[str, Array, Array, Array],
) -> pa.Table:
    """Purchases of goods, signs where they are events, and what everybody does."""
    rng = _random(world, chunk, "details")
    user, topic, week = bought
    each = len(PLANTED[0].goods)
    goods = numbered("good-", topic * each + rng.integers(0, each, len(topic)))
    parts = [_acts(rng, world, chunk, BILL, user, week, goods, "goods")]
    source, user, text, week = signs
    everyday = _random(world, chunk, "everyday")
    for each_source in (BILL, CLICK, MINI_PROGRAM):
        who, when = _everyday(everyday, world, chunk, each_source)
        what = everyday.integers(0, len(EVERYDAY[each_source]), len(who))
        ids = numbered(f"{each_source}-", what)
        parts.append(_acts(everyday, world, chunk, each_source, who, when, ids, "everyday"))
    if source in (BILL, CLICK):
        ids = numbered(f"{source}-sign-", text)
        own = _random(world, chunk, "sign details")
        parts.append(_acts(own, world, chunk, source, user, week, ids, "signs"))
    return pa.concat_tables(parts)


def _acts(
    rng: np.random.Generator, world: World, chunk: int, source: str, user: Array, week: Array,
    items: pa.Array, kind: str,
) -> pa.Table:  # fmt: skip
    """Canonical events; one basket per user, week and kind of thing."""
    count = len(user)
    when = moments(draw_times(rng, world, week, source))
    columns: dict[str, Any] = {
        "event_id": numbered(f"{kind}-{source}-{chunk}-", np.arange(count)),
        "user_id": _ids(world, chunk).take(pa.array(user)),
        "timestamp": when,
        "known_at": when,
        "source": pa.repeat(pa.scalar(source), count),
        "item_id": items,
    }
    if source == BILL:
        price = np.round(_PRICE * np.exp(rng.normal(0, 0.2, count)), 2)
        columns |= {
            "quantity": pa.array(np.ones(count)),
            "amount": pa.array(price),
            "discount": pa.array(np.zeros(count)),
            "channel": pick(CHANNELS, rng.integers(0, len(CHANNELS), count)),
            "status": pa.repeat(pa.scalar(SUCCESSFUL), count),
            "basket_id": numbered(f"{kind}-{chunk}-", user * world.weeks + week),
        }
    schema = CANONICAL["events"]
    arrays = [columns.get(field.name, pa.nulls(count, field.type)) for field in schema]
    return pa.table(arrays, schema=schema)


def _searches(world: World, chunk: int, signs: tuple[str, Array, Array, Array]) -> pa.Table:
    rng = _random(world, chunk, "searches")
    user, week = _everyday(rng, world, chunk, SEARCH)
    texts = pick(EVERYDAY[SEARCH], rng.integers(0, len(EVERYDAY[SEARCH]), len(user)))
    if signs[0] == SEARCH:
        user, week = np.concatenate([user, signs[1]]), np.concatenate([week, signs[3]])
        texts = pa.concat_arrays([texts, pick(_sign_texts(SEARCH), signs[2])])
    # Drawn last, so that signs move no other number of the stream.
    when = moments(draw_times(rng, world, week, SEARCH))
    ids = numbered(f"search-{chunk}-", np.arange(len(user)))
    who = _ids(world, chunk).take(pa.array(user))
    return pa.table([ids, who, when, when, texts], schema=CANONICAL["searches"])


def _profiles(world: World, chunk: int, held: Array) -> pa.Table:
    """A city; in the world of profiles also who is a member of what, anew at every change."""
    rng = _random(world, chunk, "profile")
    size = _size(world, chunk)
    city = rng.integers(0, len(CITIES), size)
    planted = world.plant == "profile" and not world.without
    changed = np.zeros((world.weeks, size), bool)
    changed[0] = True
    if planted:
        changed[1:] = (held[1:-1] != held[:-2]).any(2)
    week, user = np.nonzero(changed)
    columns = {"city": pick(CITIES, city[user])}
    if planted:
        says_if = [rng.random(held.shape[1:]) < chance for chance in SHOWN]
        member = np.where(held[week, user], says_if[1][user], says_if[0][user])
        for k, topic in enumerate(PLANTED):
            columns[topic.signs[0]] = pick(("no", "member"), member[:, k].astype(int))
    when = moments(first_moment(world) + week * WEEK)
    return pa.table(
        {
            "user_id": _ids(world, chunk).take(pa.array(user)),
            "timestamp": when,
            "known_at": when,
            "categorical": as_maps(columns, len(user)),
            "continuous": as_maps({"tenure": pa.array(np.ones(len(user)))}, len(user)),
        },
        schema=CANONICAL["profiles"],
    )


def _everyday(
    rng: np.random.Generator, world: World, chunk: int, source: str
) -> tuple[Array, Array]:
    """Acts that say nothing about any interest: (user, week), [n] each."""
    rate = EVERYDAY_RATE[source] * np.exp(rng.normal(0, 0.5, _size(world, chunk)))
    times = rng.poisson(rate[:, None], (len(rate), world.weeks))
    cell = np.repeat(np.arange(times.size), times.ravel())
    return cell // world.weeks, cell % world.weeks


def _random(world: World, chunk: int, what: str) -> np.random.Generator:
    return np.random.default_rng([world.seed, chunk, _STREAMS[what]])


def _size(world: World, chunk: int) -> int:
    return min(CHUNK, world.users - chunk * CHUNK)


def _ids(world: World, chunk: int) -> pa.Array:
    return numbered("s", chunk * CHUNK + np.arange(_size(world, chunk)))
