"""The subjects that demands can be about, and where they are kept."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pytest

from encoders import checkpoint, templates
from encoders.alignment import FoundModel
from encoders.catalogue import FILE, MAX_HEADINGS, Catalogue, Subject, plain
from encoders.checkpoint import CheckpointError

ROWS = [
    Subject("purchase", "SHREDDED CHEESE", 3, "CHEESE", 7),
    Subject("purchase", "CHEESE", 2, "GROCERY", 20),
    Subject("purchase", "GROCERY", 1, "", 30),
    Subject("channel", "gift card", 0, "", 3),
    Subject("purchase", templates.NOTHING, 0, "", 1),
]


def test_a_catalogue_has_one_order_and_leaves_out_nothing_but_nothing() -> None:
    catalogue = Catalogue.of(ROWS)
    assert catalogue == Catalogue.of(reversed(ROWS))
    assert [s.name for s in catalogue.subjects] == [
        "gift card", "GROCERY", "CHEESE", "SHREDDED CHEESE",
    ]  # fmt: skip
    assert [s.name for s in catalogue.items] == ["GROCERY", "CHEESE", "SHREDDED CHEESE"]
    assert [s.name for s in catalogue.headings] == ["GROCERY", "CHEESE"]


def test_with_one_level_or_two_every_item_is_a_heading() -> None:
    flat = Catalogue.of([Subject("click", "skis", 0, "", 2), Subject("click", "boots", 2, "", 2)])
    assert [s.name for s in flat.headings] == ["skis", "boots"]


def test_only_the_most_frequent_of_very_many_are_headings() -> None:
    many = Catalogue.of(Subject("click", f"thing {i}", 1, "", i) for i in range(MAX_HEADINGS + 7))
    assert len(many.headings) == MAX_HEADINGS
    assert min(subject.count for subject in many.headings) == 7


def test_json_and_tables_bring_back_the_same_catalogue() -> None:
    catalogue = Catalogue.of(ROWS)
    assert Catalogue.from_json(catalogue.to_json()) == catalogue
    columns = {f.name: [getattr(row, f.name) for row in ROWS] for f in fields(Subject)}
    assert Catalogue.from_table(pa.table(columns)) == catalogue


def test_names_lose_their_punctuation_but_no_word() -> None:
    assert plain("VEGETABLES - ALL OTHERS (2%)") == "vegetables all others 2%"
    assert plain("CAT_FOOD/ДЛЯ КОШЕК") == "cat food для кошек"
    assert plain("커피, 우유") == "커피 우유" and plain("कॉफ़ी (चाय)") == "कॉफ़ी चाय"
    assert plain("STRASSE, Cafe\u0301") == plain("straße café")


def test_a_name_without_words_is_spelt_as_it_is() -> None:
    assert plain(" 🍺 ") == "" and Subject("purchase", " 🍺 ", 1, "", 1).words == "🍺"


def test_a_checkpoint_keeps_its_catalogue_under_its_fingerprint(
    tmp_path: Path, tiny_config: Callable, info_of: Callable
) -> None:
    config = tiny_config(search=None)
    model, info = FoundModel(config), info_of("alignment", config)
    bare = checkpoint.save(tmp_path / "c", model, info)
    assert checkpoint.read_catalogue(tmp_path / "c") is None
    one = checkpoint.save(tmp_path / "c", model, info, Catalogue.of(ROWS))
    assert checkpoint.read_catalogue(tmp_path / "c") == Catalogue.of(ROWS)
    other = checkpoint.save(tmp_path / "c", model, info, Catalogue.of(ROWS[:2]))
    assert len({bare, one, other}) == 3
    (tmp_path / "c" / FILE).write_text('[["purchase"]]')
    with pytest.raises(CheckpointError, match="catalogue.json is damaged"):
        checkpoint.read_catalogue(tmp_path / "c")


def test_an_outcome_that_nobody_showed_is_no_subject() -> None:
    catalogue = Catalogue.of([]).with_outcomes({"coupon": 3, "more": 0})
    assert [subject.name for subject in catalogue.outcomes] == ["coupon"]
    assert Catalogue.from_json(catalogue.to_json()) == catalogue
    assert catalogue.headings == () and catalogue.outcomes[0].spoken == "use of coupons"


def test_a_catalogue_without_a_subject_lacks_what_lies_below_it() -> None:
    rows = [
        Subject("purchase", "FOOD", 1, "", 9), Subject("purchase", "CHEESE", 2, "FOOD", 5),
        Subject("purchase", "GOUDA", 3, "CHEESE", 2), Subject("click", "CHEESE", 2, "FOOD", 1),
        Subject("purchase", "MILK", 2, "FOOD", 4), Subject("search", "fondue", 0, "", 1),
    ]  # fmt: skip
    left = Catalogue.of(rows).without(["CHEESE"])
    assert {subject.name for subject in left.subjects} == {"FOOD", "MILK", "fondue"}
    assert Catalogue.of(rows).without(["FOOD"]).subjects == (rows[-1],)
