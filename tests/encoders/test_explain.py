"""Explanations: of a score that is known in closed form, and of the real encoder in small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from encoders.alignment import AlignmentConfig, FoundModel
from encoders.explain import (
    AGGREGATES,
    TOLERANCE,
    FutureSentences,
    Part,
    Tables,
    UserPast,
    decisive,
    explain,
    scored,
    subject_of,
)

QUERY = np.array([1.0, 0.0])


@pytest.fixture
def one_user(world: Any) -> Callable[[], dict[str, Any]]:
    """The weekly rows of the user with the longest past, by view."""

    def tables() -> dict[str, Any]:
        views = {f"{view}_weekly": world.table(view) for view in ("behaviour", "profile", "habits")}
        return {
            view: table.filter([user == "u0" for user in table["user_id"].to_pylist()])
            for view, table in views.items()
        }

    return tables


def counting(weights: dict[str, float]) -> Callable[[Tables, Sequence[str]], np.ndarray]:
    """An encoder whose score is a saturating sum of what was bought."""

    def encode(tables: Tables, ids: Sequence[str]) -> np.ndarray:
        total = dict.fromkeys(ids, 0.0)
        for row in tables["behaviour_weekly"].to_pylist():
            total[row["user_id"]] += sum(weights.get(line, 0.0) for line in row["bills"])
        return np.array([[np.log1p(total[name]), 0.0] for name in ids])

    return encode


def test_contributions_add_up_although_effects_saturate(one_user: Any) -> None:
    past = UserPast(one_user(), {})
    found = explain(past, QUERY, counting({"bread": 2.0, "cheese": 1.0}), orders=2)
    assert found.score > found.without == 0.0
    assert found.unexplained < TOLERANCE
    assert sum(found.modalities().values()) == pytest.approx(found.score - found.without)
    one_out = [
        found.score - scored(past, [frozenset([part])], QUERY, counting({"bread": 2.0}))[0]
        for part in past.parts
    ]
    assert len(one_out) == len(past.parts)


def test_what_carried_the_score_is_named_first(one_user: Any) -> None:
    past = UserPast(one_user(), {})
    found = explain(past, QUERY, counting({"dog food": 3.0}), orders=4)
    bought = sum(part.name == "dog food" for part in past.parts)
    assert bought > 0
    encode = counting({"dog food": 3.0})
    few = min(bought, 3)
    named = decisive(past, found, QUERY, encode, num=few)
    assert {part.name for part in named} == {"dog food"} and len(named) == few
    assert found.contributions[0][0].words().startswith("bought dog food in the week before")


def test_events_that_stand_in_for_one_another_are_named_together(one_user: Any) -> None:
    def encode(tables: Tables, ids: Sequence[str]) -> np.ndarray:
        """Bread counts 2 however often it was bought, each cheese 0.4."""
        lines: dict[str, list[str]] = {name: [] for name in ids}
        for row in tables["behaviour_weekly"].to_pylist():
            lines[row["user_id"]] += row["bills"]
        return np.array([[2.0 * ("bread" in lines[n]) + 0.4 * lines[n].count("cheese"), 0.0]
                         for n in ids])  # fmt: skip

    past = UserPast(one_user(), {})
    found = explain(past, QUERY, encode, orders=8)
    weeks = {part.week_end for part in past.parts if part.name == "bread"}
    loaves = {part for part in past.parts if part.name == "bread"}
    named = decisive(past, found, QUERY, encode, num=len(weeks))
    assert set(named) == loaves
    one = scored(past, [frozenset([named[0]])], QUERY, encode)[0]
    assert one == found.score and len(weeks) > 1  # one loaf less changes nothing


def test_taking_an_event_out_takes_its_habit_and_its_share_above(one_user: Any) -> None:
    past = UserPast(one_user(), {"bread": "apples"})
    event = next(p for p in past.parts if p.name == "bread" and p.source == "bill")
    tables, ids = past.without([frozenset(), frozenset([event])])
    kept, gone = (
        [row for row in tables["habits_weekly"].to_pylist()
         if row["user_id"] == name and row["event_timestamp"] == event.week_end][0]
        for name in ids
    )  # fmt: skip
    assert "bread" in kept["bought"] and "bread" not in gone["bought"]
    if "apples" in kept["bought"]:
        assert "apples" not in gone["bought"]  # nothing else accounts for it
    others = [row for row in tables["behaviour_weekly"].to_pylist()
              if row["event_timestamp"] != event.week_end]  # fmt: skip
    assert [r["bills"] for r in others if r["user_id"] == ids[0]] == [
        r["bills"] for r in others if r["user_id"] == ids[1]
    ]


def test_profile_columns_are_parts_and_aggregates_are_one(one_user: Any) -> None:
    tables = one_user()
    profile = tables["profile_weekly"]
    renamed = [f"agg_{n}" if n == "spend" else n for n in profile.column_names]
    past = UserPast({**tables, "profile_weekly": profile.rename_columns(renamed)}, {})
    names = {part.name for part in past.parts if part.modality == "tabular"}
    assert AGGREGATES in names or profile["spend"].to_pylist()[-1] is None
    assert "agg_spend" not in names
    without, ids = past.without([frozenset([Part("tabular", AGGREGATES)])])
    assert set(without["profile_weekly"]["agg_spend"].to_pylist()) == {None}


def test_the_real_encoder_through_the_same_collate(
    world: Any, tiny_config: Callable[..., AlignmentConfig], one_user: Any, vector_of: Any,
    jolt: Any,
) -> None:  # fmt: skip
    from encoders.batch import Collate
    from encoders.history import History

    model = FoundModel(tiny_config(search=None)).eval()
    jolt(model)

    def encode(tables: Tables, ids: Sequence[str]) -> np.ndarray:
        history = History(
            tables["behaviour_weekly"], tables["profile_weekly"], None, vector_of,
            tables["habits_weekly"],
        )  # fmt: skip
        collate = Collate(history, windows=4, table=world.columns())
        rows = history.rows(list(ids), [int(max(history.times_R))] * len(ids))
        return model(collate(rows)).detach().numpy()

    query = np.random.default_rng(0).standard_normal(model.dim)
    past = UserPast(one_user(), {})
    found = explain(past, query, encode, orders=2)
    assert found.unexplained < TOLERANCE
    assert found.contributions[0][1] > 0 > found.contributions[-1][1]


def test_the_nearest_sentence_is_the_one_that_fits_the_user_and_not_everybody() -> None:
    everybody = np.array([[5.0, 0.0], [5.1, 0.1], [4.9, 0.0], [5.0, 2.0]])
    queries = np.eye(2)
    sentences = FutureSentences(everybody, queries, ["all", "mine"])
    [(sentence, above), _] = sentences.nearest(everybody[3])
    assert sentence == "mine" and above > 1


def test_a_line_is_about_what_stands_before_its_colon() -> None:
    assert subject_of("CAT FOOD: DRY CAT FOOD") == "CAT FOOD"
    assert subject_of("red wine") == "red wine"


def test_old_events_are_joined_by_subject_until_few_enough_are_left(one_user: Any) -> None:
    weights = {"bread": 2.0, "cheese": 1.0, "dog food": 3.0}
    apart = UserPast(one_user(), {})
    events = [part for part in apart.parts if part.week_end is not None]
    subjects = {(part.source, part.name) for part in events}
    past = UserPast(one_user(), {}, most=len(subjects) + 2)
    joined = [part for part in past.parts if part.week_end is not None]
    assert len(subjects) <= len(joined) <= len(subjects) + 2 < len(events)
    old = next(part for part in joined if part.earlier)
    assert old.words() == (
        f"{old.verb} {old.name} in {len(old.earlier) + 1} weeks up to {old.week_end:%Y-%m-%d}"
    )
    every = {(p.source, p.name, week) for p in joined for week in (p.week_end, *p.earlier)}
    assert every == {(p.source, p.name, p.week_end) for p in events}
    # Taken out together, they are what was there apart.
    whole, ids = past.without([frozenset(joined)])
    bare, _ = apart.without([frozenset(events)])
    assert ids == ["variant-000000"] and whole == bare
    found = explain(past, QUERY, counting(weights))
    assert found.unexplained < TOLERANCE and found.score > 0


def test_what_any_event_is_worth_is_shared_by_all_of_them(one_user: Any) -> None:
    def encode(tables: Tables, ids: Sequence[str]) -> np.ndarray:
        """A customer at all scores 3, and one more with bread."""
        lines: dict[str, set[str]] = {name: set() for name in ids}
        for row in tables["behaviour_weekly"].to_pylist():
            lines[row["user_id"]] |= {*row["bills"], *row["clicks"], *row["mini_programs"]}
        return np.array([[3.0 * bool(lines[n]) + ("bread" in lines[n]), 0.0] for n in ids])

    past = UserPast(one_user(), {})
    found = explain(past, QUERY, encode, orders=2)
    worth = dict(found.contributions)
    others = [worth[p] for p in past.parts if p.week_end is not None and p.name != "bread"]
    events = sum(part.week_end is not None for part in past.parts)
    assert found.score - found.without == 4.0 and found.unexplained < TOLERANCE
    assert max(others) == pytest.approx(3.0 / events) and min(others) == pytest.approx(3.0 / events)
