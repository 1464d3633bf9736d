"""Complete Journey as it is: counts, names that the benchmark uses, and what must not be there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_repo.errors import InputError
from feature_repo.sources import (
    CanonicalTables,
    complete_journey,
    default_as_of,
    read_source,
    source_fingerprint,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BENCHMARK = {
    "CHEESE", "COLD CEREAL", "FROZEN PIZZA", "ICE CREAM/MILK/SHERBTS", "COFFEE", "YOGURT",
    "BEERS/ALES", "HAIR CARE PRODUCTS", "COLD AND FLU", "CIGARETTES", "SEAFOOD - FROZEN",
    "GREETING CARDS/WRAP/PARTY SPLY", "DOG FOODS", "ORGANICS FRUIT & VEGETABLES", "CAT FOOD",
    "DOMESTIC WINE", "DIAPERS & DISPOSABLES", "BABY FOODS", "VITAMINS", "FLORAL-FRESH CUT",
}  # fmt: skip


@pytest.fixture(scope="module")
def tables() -> CanonicalTables:
    return read_source("complete-journey", now=NOW)


def test_every_line_of_every_receipt_is_there_or_quarantined(tables: CanonicalTables) -> None:
    assert tables.events.num_rows == 1_464_471
    assert tables.quarantine.num_rows == 4_836  # 17 pseudo products that the catalogue lacks
    assert set(tables.quarantine.column("reason").to_pylist()) == {"unknown item"}
    assert tables.events.num_rows + tables.quarantine.num_rows == 1_469_307
    assert tables.items.num_rows == 92_331
    assert not tables.synthetic and tables.name == "complete-journey"


def test_absent_modalities_stay_absent(tables: CanonicalTables) -> None:
    assert tables.searches.num_rows == tables.segments.num_rows == 0
    assert pc.unique(tables.events.column("source")).to_pylist() == ["bill"]


def test_money_is_kept(tables: CanonicalTables) -> None:
    quarantined = 172.57
    total = pc.sum(tables.events.column("amount")).as_py()
    assert total + quarantined == pytest.approx(4_596_039.58)


def test_households_with_history_at_the_final_cut_off(tables: CanonicalTables) -> None:
    before = pc.less(tables.events.column("timestamp"), datetime(2017, 11, 6, tzinfo=UTC))
    users = tables.events.column("user_id").filter(before)
    assert pc.count_distinct(users).as_py() == 2_456


def test_times_are_the_raw_ones_as_utc_and_known_at_once(tables: CanonicalTables) -> None:
    times = tables.events.column("timestamp")
    assert pc.min(times).as_py() == datetime(2017, 1, 1, 11, 53, 26, tzinfo=UTC)
    assert pc.max(times).as_py() == datetime(2018, 1, 1, 4, 1, 20, tzinfo=UTC)
    assert times.equals(tables.events.column("known_at"))


def test_benchmark_categories_are_named_as_in_the_data_set(tables: CanonicalTables) -> None:
    with duckdb.connect() as connection:
        connection.register("items", tables.items)
        connection.register("events", tables.events)
        buyers = connection.execute(
            """WITH known AS (SELECT DISTINCT user_id FROM events WHERE timestamp < '2017-10-01')
            SELECT categories[2], count(DISTINCT user_id) FROM events JOIN items USING (item_id)
            WHERE timestamp >= '2017-10-01' AND user_id IN (FROM known) GROUP BY ALL"""
        ).fetchall()
    counts = dict(buyers)
    assert BENCHMARK <= set(counts)
    # As counted elsewhere, from the raw files, of the households with history before October.
    assert [counts[name] for name in ("BABY FOODS", "CAT FOOD", "COFFEE")] == [199, 345, 805]


def count(column: pa.ChunkedArray) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in column.value_counts().to_pylist()}


def test_items_read_like_words_with_the_original_taxonomy(tables: CanonicalTables) -> None:
    row = tables.items.filter(pc.equal(tables.items.column("item_id"), "25671")).to_pylist()[0]
    assert row["text"] == "ice - crushed / cubed 22 lb"
    assert row["categories"] == ["GROCERY", "FRZN ICE", "ICE - CRUSHED/CUBED"]
    assert row["brand"] == "National"
    unnamed = tables.items.filter(pc.equal(tables.items.column("item_id"), "26081")).to_pylist()[0]
    assert (unnamed["text"], unnamed["categories"]) == ("miscellaneous", ["MISCELLANEOUS"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("FRZN MEAT/MEAT DINNERS", "frozen meat / meat dinners"),
        ("CHEESE:SPECIALTY PREPACK", "cheese: specialty prepack"),
        ("SALD DRSNG/SNDWCH SPRD", "salad dressing / sandwich spread"),
        ("DIAPERS & DISPOSABLES", "diapers and disposables"),
        ("WOMENS  HAIR SPRAYS", "womens hair sprays"),
    ],
)
def test_readable(name: str, words: str) -> None:
    assert complete_journey.readable(name) == words


def test_channel_says_by_which_door_the_price_came(tables: CanonicalTables) -> None:
    counts = {
        row["values"]: row["counts"]
        for row in tables.events.column("channel").value_counts().to_pylist()
    }
    assert set(counts) == {"coupon", "loyalty card", "regular price"}
    assert counts["coupon"] == 21_889 - 2_969  # lines with a coupon, less the quarantined ones
    spared = pc.greater(tables.events.column("discount"), 0.0)
    assert pc.sum(spared).as_py() == tables.events.num_rows - counts["regular price"]


def test_campaigns_and_redemptions(tables: CanonicalTables) -> None:
    kinds = {
        row["values"]: row["counts"]
        for row in tables.exposures.column("kind").value_counts().to_pylist()
    }
    assert kinds == {"sent": 6_589, "redeemed": 2_102}
    sent = tables.exposures.filter(
        pc.equal(tables.exposures.column("campaign_id"), "5")
    ).to_pylist()
    assert {row["timestamp"] for row in sent if row["kind"] == "sent"} == {
        datetime(2017, 4, 3, tzinfo=UTC)
    }
    assert sent[0]["text"].startswith("campaign of type b with coupons for baby foods, baby health")


def test_demographics_can_be_left_out(
    tables: CanonicalTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tables.profiles.num_rows == 801
    first = dict(tables.profiles.column("categorical")[0].as_py())
    assert first["age"] == "65+" and first["household_comp"] == "2 Adults No Kids"
    third = dict(tables.profiles.column("categorical")[2].as_py())
    assert "home_ownership" not in third  # unknown of this household
    monkeypatch.setattr(complete_journey, "_events", lambda _: tables.events.slice(0, 10))
    without = read_source("complete-journey", demographics=False, now=NOW)
    assert without.profiles.num_rows == 0 and without.profiles.schema == tables.profiles.schema


def test_a_missing_package_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="make install"):
        complete_journey.load(now=NOW, folder=tmp_path)
    monkeypatch.setattr(complete_journey, "PACKAGE", "no_such_package")
    with pytest.raises(InputError, match="no_such_package is not installed; run `make install`"):
        complete_journey.data_folder()


def test_default_as_of_and_fingerprint() -> None:
    assert default_as_of("complete-journey") == datetime(2017, 9, 11, tzinfo=UTC)
    prints = {source_fingerprint("complete-journey", demographics=known) for known in (True, False)}
    assert len(prints) == 2
    assert source_fingerprint("complete-journey", demographics=True) in prints
