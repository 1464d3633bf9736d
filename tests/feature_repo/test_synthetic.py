"""The synthetic world: repeats to the byte, shows interests where it should, can be foreseen."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.errors import InputError
from feature_repo.schema import BILL, CANONICAL, CLICK, MINI_PROGRAM
from feature_repo.sources import (
    CanonicalTables,
    default_as_of,
    read_source,
    source_fingerprint,
    synthetic,
    synthetic_world,
)
from feature_repo.sources.synthetic_events import STREAMS, random_stream
from feature_repo.sources.synthetic_topics import PROFILE, SEARCH, TEMPLATES, TOPICS, Topic
from feature_repo.sources.synthetic_world import Truth

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = "synthetic:users=2000,seed=0"
TABLES = (*CANONICAL, "quarantine")


@pytest.fixture(scope="module")
def tables() -> CanonicalTables:
    return read_source(SPEC, now=NOW)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return synthetic.truth(SPEC)


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not() -> None:
    first, again, other = (
        read_source(f"synthetic:users=60,seed={seed},weeks=12", now=NOW) for seed in (3, 3, 4)
    )
    for name in TABLES:
        assert getattr(first, name).equals(getattr(again, name)), name
    assert not first.events.equals(other.events)


def test_seeds_chunks_and_tables_have_streams_of_their_own() -> None:
    worlds = [synthetic_world.World(seed=seed) for seed in (0, 1)]
    drawn = {
        random_stream(world, chunk, table).random()
        for world in worlds
        for chunk in (0, 1)
        for table in STREAMS
    }
    assert len(drawn) == 2 * 2 * 6


def test_everything_is_there_in_every_modality_and_labelled(tables: CanonicalTables) -> None:
    assert tables.synthetic and tables.name == "synthetic"
    assert tables.quarantine.num_rows == 0
    sources = {
        row["values"]: row["counts"]
        for row in tables.events.column("source").value_counts().to_pylist()
    }
    assert set(sources) == {BILL, CLICK, MINI_PROGRAM}
    assert min(*sources.values(), tables.searches.num_rows) > 30_000
    assert pc.count_distinct(tables.profiles.column("user_id")).as_py() == 2_000
    assert set(pc.unique(tables.exposures.column("kind")).to_pylist()) == {
        "impression",
        "click",
        "redeemed",
    }
    assert pc.count_distinct(tables.segments.column("segment")).as_py() == 5
    for name in TABLES[:-1]:
        assert getattr(tables, name).schema == CANONICAL[name]
    without = read_source("synthetic:users=50,weeks=12", demographics=False, now=NOW)
    assert without.profiles.num_rows == 0


def test_it_covers_its_weeks_and_some_rows_are_late(tables: CanonicalTables) -> None:
    times, known = tables.events.column("timestamp"), tables.events.column("known_at")
    world = synthetic_world.parse("users=2000,seed=0")
    assert pc.min(times).as_py() - world.begins < timedelta(days=1)
    assert timedelta(0) < world.ends - pc.max(times).as_py() < timedelta(days=1)
    late = pc.mean(pc.greater(known, times).cast(pa.float64())).as_py()
    assert 0.03 < late < 0.05
    assert default_as_of(SPEC) == datetime(2024, 8, 26, tzinfo=UTC)
    assert default_as_of(SPEC).weekday() == 0


def test_chunks_are_independent_of_what_else_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_world, "CHUNK", 40)
    world = synthetic_world.parse("users=100,weeks=12")
    chunks = list(synthetic.stream(world, now=NOW))
    assert [pc.count_distinct(chunk.profiles["user_id"]).as_py() for chunk in chunks] == [
        40,
        40,
        20,
    ]
    whole = synthetic.load(world, now=NOW)
    assert pa.concat_tables([chunk.events for chunk in chunks]).equals(whole.events)
    for table, key in (
        ("events", "event_id"),
        ("searches", "search_id"),
        ("exposures", "exposure_id"),
    ):
        ids = getattr(whole, table)[key]
        assert pc.count_distinct(ids).as_py() == len(ids)
    assert synthetic.truth(world.spec).user_ids.to_pylist() == [f"s{n}" for n in range(100)]


# ---------------------------------------------------------------- interests show where they should


def acts(tables: CanonicalTables, truth: Truth, topic: int, source: str) -> np.ndarray[Any, Any]:
    """[users] how often each user acted on a topic in a source."""
    if source == SEARCH:
        words = {t.format(thing) for thing in TOPICS[topic].things for t in TEMPLATES[SEARCH]}
        hit = pc.is_in(tables.searches["text"], value_set=pa.array(sorted(words)))
        users = tables.searches["user_id"].filter(hit)
    else:
        name = pc.list_element(tables.items["categories"], 1)
        wanted = tables.items["item_id"].filter(pc.equal(name, TOPICS[topic].name))
        hit = pc.and_(
            pc.equal(tables.events["source"], source),
            pc.is_in(tables.events["item_id"], value_set=wanted),
        )
        users = tables.events["user_id"].filter(hit)
    index = pc.index_in(users, truth.user_ids).to_numpy()
    return np.bincount(index.astype(int), minlength=len(truth.user_ids))


@pytest.mark.parametrize("topic", range(len(TOPICS)), ids=[topic.name for topic in TOPICS])
def test_an_interest_shows_in_its_modalities_only(
    tables: CanonicalTables, truth: Truth, topic: int
) -> None:
    interested = truth.interests[:, topic] > 0
    for source in (BILL, CLICK, MINI_PROGRAM, SEARCH):
        count = acts(tables, truth, topic, source)
        if source in TOPICS[topic].visible:
            assert count[interested].mean() > 3 * count[~interested].mean() > 0
        elif source == BILL:
            assert count.max() == 1  # bought once at most
        else:
            assert count.max() == 0


def test_profile_topics_show_in_the_profile(tables: CanonicalTables, truth: Truth) -> None:
    rows = dict(
        zip(
            tables.profiles["user_id"].to_pylist(),
            tables.profiles["categorical"].to_pylist(),
            strict=True,
        )
    )
    for index, topic in enumerate(TOPICS):
        if topic.visible != (PROFILE,):
            continue
        assert topic.profile is not None
        column, value = topic.profile
        says = np.array([dict(rows[user])[column] == value for user in truth.user_ids.to_pylist()])
        interested = truth.interests[:, index] > 0
        assert says[interested].mean() > 0.8 and says[~interested].mean() < 0.1


def test_kinds_of_topics() -> None:
    alone = [topic.visible[0] for topic in TOPICS if len(topic.visible) == 1]
    assert {kind: alone.count(kind) for kind in alone} == {
        BILL: 3,
        CLICK: 3,
        MINI_PROGRAM: 3,
        SEARCH: 4,
        PROFILE: 3,
    }
    assert len(TOPICS) == 24


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_demands_share_no_word_with_events(topic: Topic) -> None:
    templates = [text for texts in TEMPLATES.values() for text in texts]
    said = stems(" ".join([topic.name, topic.department, *topic.things, *templates]))
    assert topic.demands and not said & stems(" ".join(topic.demands))


def stems(text: str) -> set[str]:
    """Words of three letters or more, without common endings, without filling words."""
    filling = {"the", "and", "for", "who", "with", "those", "people", "near", "best"}
    words = set(re.findall(r"[a-z]{3,}", text.lower())) - filling
    return {re.sub(r"(ing|s|er|ers)$", "", word) for word in words}


# ---------------------------------------------------------------- the future can be foreseen


def future_buyers(tables: CanonicalTables, truth: Truth, as_of: datetime) -> np.ndarray[Any, Any]:
    """[users, topics] whether the user buys in the four weeks from as_of."""
    with duckdb.connect() as connection:
        connection.register("events", tables.events)
        connection.register("items", tables.items)
        rows = connection.execute(
            """SELECT DISTINCT user_id, categories[2] FROM events JOIN items USING (item_id)
            WHERE source = 'bill' AND timestamp >= $1 AND timestamp < $2""",
            [as_of, as_of + timedelta(weeks=4)],
        ).fetchall()
    names = [topic.name for topic in truth.topics]
    bought = np.zeros(truth.interests.shape, bool)
    for user, name in rows:
        if name in names:
            bought[int(user[1:]), names.index(name)] = True
    return bought


def auc(score: np.ndarray[Any, Any], label: np.ndarray[Any, Any]) -> float:
    """Area under the ROC curve by counting pairs, ties one half."""
    good, bad = score[label], score[~label]
    above = (good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean()
    return float(above)


def test_the_oracle_is_good_and_not_perfect(tables: CanonicalTables, truth: Truth) -> None:
    as_of = default_as_of(SPEC)
    bought = future_buyers(tables, truth, as_of)
    chance = truth.purchase_chance(as_of, 28, tables.events)
    scores = np.array([auc(chance[:, k], bought[:, k]) for k in range(len(TOPICS))])
    again = np.array([not topic.once for topic in TOPICS])
    assert 0.75 < scores.mean() < 0.9
    assert scores[again].min() > 0.75 and scores[again].max() < 0.9
    # It is calibrated, too: about as many buy as it says.
    assert chance[:, again].sum() == pytest.approx(bought[:, again].sum(), rel=0.1)
    # Knowing who bought already is worth a lot where one buys once.
    blind = truth.purchase_chance(as_of, 28)
    once = [auc(blind[:, k], bought[:, k]) for k in np.flatnonzero(~again)]
    assert scores[~again].mean() > np.mean(once) + 0.03


def test_the_oracle_uses_nothing_from_as_of_on(tables: CanonicalTables, truth: Truth) -> None:
    as_of = default_as_of(SPEC)
    known = pc.and_(
        pc.less(tables.events["timestamp"], as_of), pc.less(tables.events["known_at"], as_of)
    )
    chance = truth.purchase_chance(as_of, 28, tables.events)
    assert np.array_equal(chance, truth.purchase_chance(as_of, 28, tables.events.filter(known)))


def test_seasons_and_ages_move_demand(tables: CanonicalTables, truth: Truth) -> None:
    summer = future_buyers(tables, truth, datetime(2024, 7, 1, tzinfo=UTC)).sum(axis=0)
    winter = future_buyers(tables, truth, datetime(2024, 1, 8, tzinfo=UTC)).sum(axis=0)
    camping = [topic.name for topic in TOPICS].index("camping")
    assert summer[camping] > 2 * winter[camping]
    ages = {
        u: dict(c)["age"]
        for u, c in zip(
            tables.profiles["user_id"].to_pylist(),
            tables.profiles["continuous"].to_pylist(),
            strict=True,
        )
    }
    age = np.array([ages[user] for user in truth.user_ids.to_pylist()])
    games = truth.interests[:, [topic.name for topic in TOPICS].index("video games")] > 0
    assert games[age < 30].mean() > 2 * games[age > 30].mean()


def test_exposures_are_answered_by_the_interested(tables: CanonicalTables, truth: Truth) -> None:
    first = tables.exposures.filter(pc.equal(tables.exposures["campaign_id"], "ad-0"))
    topic = [topic.name for topic in TOPICS].index("cat care")
    rates = {}
    for kind in ("impression", "click"):
        users = first["user_id"].filter(pc.equal(first["kind"], kind)).to_pylist()
        rates[kind] = np.mean([truth.interests[int(user[1:]), topic] > 0 for user in users])
    assert rates["click"] > rates["impression"] > (truth.interests[:, topic] > 0).mean()


# ---------------------------------------------------------------- specs


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("synthetic:users=many", "users must be a whole number, got 'many'"),
        ("synthetic:users=3", "users must be 10 to"),
        ("synthetic:people=3", "expected users, seed, weeks, start, plant, without, got 'people'"),
        ("synthetic:seed=1,seed=2", "seed is given twice"),
        ("synthetic:start=2024-01-03", "must be a Monday, got 2024-01-03; try 2024-01-01"),
        ("synthetic:start=soon", "start must be a date"),
        ("synthetic:weeks=2", "weeks must be 12 to"),
        ("synthetic:plant=radio", "plant must be one of"),
        ("synthetic:plant=search,without=clicks", "without must be 'search'"),
        ("synthetical", 'expected "complete-journey"'),
        ("complete-journey:x", 'expected "complete-journey"'),
    ],
)
def test_wrong_specs_say_what_was_expected(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_source(spec, now=NOW)


@settings(max_examples=25, deadline=None)
@given(
    users=st.integers(10, 10_000_000),
    seed=st.integers(0, 2**31),
    weeks=st.integers(12, 520),
    monday=st.integers(0, 500),
)
def test_a_world_is_named_by_its_spec(users: int, seed: int, weeks: int, monday: int) -> None:
    start = date(2020, 1, 6) + timedelta(weeks=monday)
    world = synthetic_world.World(users=users, seed=seed, weeks=weeks, start=start)
    assert synthetic_world.parse(world.spec.removeprefix("synthetic:")) == world
    assert world.default_as_of.weekday() == 0
    assert world.ends - world.default_as_of == timedelta(weeks=6)


def test_the_fingerprint_follows_the_world_not_its_spelling() -> None:
    assert source_fingerprint("synthetic:") == source_fingerprint("synthetic:seed=0,users=2000")
    assert source_fingerprint("synthetic:") != source_fingerprint("synthetic:seed=1")
