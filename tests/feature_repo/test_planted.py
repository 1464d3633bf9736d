"""Planted worlds: seen in one modality only, in other words, foreseeable, and gone without it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_repo.schema import BILL, CLICK
from feature_repo.sources import CanonicalTables, read_source, source_fingerprint
from feature_repo.sources.synthetic_planted import HELD, PLANTED, truth
from feature_repo.sources.synthetic_topics import EVERYDAY
from feature_repo.sources.synthetic_world import PLANTS

SOURCES = {"bills": BILL, "clicks": CLICK}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
AS_OF = datetime(2024, 8, 26, tzinfo=UTC)  # 34 weeks in
SPEC = "synthetic:users=3000,seed=0,plant={}"
Bools = np.ndarray[Any, Any]


@pytest.fixture(scope="module", params=PLANTS)
def plant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def world(plant: str) -> CanonicalTables:
    return read_source(SPEC.format(plant), now=NOW)


def goods(tables: CanonicalTables, days: tuple[int, int]) -> Bools:
    """[users, topics] who buys what between these days, counted from AS_OF."""
    with duckdb.connect() as connection:
        connection.register("events", tables.events)
        connection.register("items", tables.items)
        rows = connection.execute(
            """SELECT DISTINCT user_id, categories[2] FROM events JOIN items USING (item_id)
            WHERE categories[1] = 'goods' AND timestamp >= $1 AND timestamp < $2""",
            [AS_OF + timedelta(days=day) for day in days],
        ).fetchall()
    names = [topic.name for topic in PLANTED]
    bought = np.zeros((3000, len(PLANTED)), bool)
    for user, name in rows:
        bought[int(user[1:]), names.index(name)] = True
    return bought


def signs(tables: CanonicalTables, plant: str) -> Bools:
    """[users, topics] how much the planted modality shows in the last eight weeks."""
    found = np.zeros((3000, len(PLANTED)))
    if plant == "profile":
        for row in tables.profiles.filter(pc.less(tables.profiles["timestamp"], AS_OF)).to_pylist():
            told = dict(row["categorical"])
            if PLANTED[0].signs[0] in told:
                found[int(row["user_id"][1:])] = [told[t.signs[0]] == "member" for t in PLANTED]
        return found
    texts = dict(zip(*(tables.items[c].to_pylist() for c in ("item_id", "text")), strict=True))
    table, column = (tables.searches, "text") if plant == "search" else (tables.events, "item_id")
    if plant in SOURCES:
        table = table.filter(pc.equal(table["source"], SOURCES[plant]))
    start = datetime(2024, 7, 1, tzinfo=UTC)
    recent = table.filter(
        pc.and_(pc.less(table["timestamp"], AS_OF), pc.greater(table["timestamp"], start))
    )
    topic = {sign: k for k, each in enumerate(PLANTED) for sign in each.signs}
    for user, said in zip(recent["user_id"].to_pylist(), recent[column].to_pylist(), strict=True):
        word = texts.get(said, said).split()[0]
        if word in topic:
            found[int(user[1:]), topic[word]] += 1
    return found


def auc(scores: Bools, labels: Bools) -> float:
    """Mean over topics, ties one half."""
    values = []
    for k in range(labels.shape[1]):
        good, bad = scores[labels[:, k], k], scores[~labels[:, k], k]
        values.append((good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean())
    return float(np.mean(values))


def test_the_oracle_is_good_and_not_perfect(world: CanonicalTables, plant: str) -> None:
    held = truth(SPEC.format(plant)).held_at(AS_OF)
    assert (held.sum(1) == HELD).all()
    assert 0.75 < auc(held, goods(world, (0, 28))) < 0.90


def test_the_modality_shows_nearly_all_that_the_oracle_knows(
    world: CanonicalTables, plant: str
) -> None:
    held, bought = truth(SPEC.format(plant)).held_at(AS_OF), goods(world, (0, 28))
    assert auc(signs(world, plant), bought) > auc(held, bought) - 0.03


def test_past_purchases_say_nothing_about_what_is_held(world: CanonicalTables, plant: str) -> None:
    held = truth(SPEC.format(plant)).held_at(AS_OF)
    for days in ((-28, 0), (-112, 0)):
        before = goods(world, days)
        share = held[before].mean()
        error = 3 * np.sqrt(0.25 * 0.75 / before.sum())
        assert share == pytest.approx(HELD / len(PLANTED), abs=error)
    assert auc(goods(world, (-112, 0)), goods(world, (0, 28))) == pytest.approx(0.5, abs=0.02)


def test_without_the_modality_the_same_people_buy_the_same(
    world: CanonicalTables, plant: str
) -> None:
    bare = read_source(f"{SPEC.format(plant)},without={plant}", now=NOW)
    assert signs(bare, plant).sum() == 0 < signs(world, plant).sum()

    def bought(tables: CanonicalTables) -> pa.Table:
        return tables.events.filter(pc.starts_with(tables.events["item_id"], "good-"))

    assert bought(bare).equals(bought(world))
    one, other = (truth(f"{SPEC.format(plant)}{w}").held for w in ("", f",without={plant}"))
    assert np.array_equal(one, other)


def test_signs_turn_up_in_their_modality_only(world: CanonicalTables, plant: str) -> None:
    for other in set(PLANTS) - {plant}:
        assert signs(world, other).sum() == 0, other


def words(*texts: str) -> set[str]:
    return {re.sub(r"(ing|s|er|ers)$", "", w) for w in re.findall(r"[a-z]{3,}", " ".join(texts))}


def test_demands_share_no_word_with_the_signs() -> None:
    """Nor with anything else that is seen before a purchase, but for goods bought in the past."""
    everyday = [text for texts in EVERYDAY.values() for text in texts]
    shown = words(*(sign for topic in PLANTED for sign in topic.signs), *everyday, "page gallery")
    asked = words(*(text for topic in PLANTED for text in (*topic.demands, *topic.goods)))
    assert not shown & (asked - {"new"}), shown & asked
    listed = [sign for topic in PLANTED for sign in topic.signs]
    assert len(set(listed)) == len(listed) == 2 * len(PLANTED)


def test_a_planted_world_is_labelled_and_named_by_its_spec(world: CanonicalTables) -> None:
    assert world.synthetic and world.quarantine.num_rows == 0
    specs = [SPEC.format(p) for p in PLANTS] + ["synthetic:users=3000,seed=0"]
    assert len({source_fingerprint(spec) for spec in specs}) == len(specs)
