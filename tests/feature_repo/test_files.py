"""Own data: what the mapping says is what comes out, and every mistake is named."""

from __future__ import annotations

import json
import os
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.errors import InputError
from feature_repo.profiles import profile_weekly
from feature_repo.schema import CANONICAL
from feature_repo.sources import CanonicalTables, default_as_of, read_source, source_fingerprint
from feature_repo.transforms import open_tables

NOW = datetime(2026, 6, 1, tzinfo=UTC)
GUIDE = Path(__file__).parents[2] / "docs" / "bring-your-own-data.md"
HEADER = "id,customer,at,sku,title,units,price\n"
BILLS = """
events:
  - path: orders*.csv
    source: bill
    event_id: id
    user_id: customer
    timestamp: at
    item_id: sku
    text: title
    quantity: units
    amount: {sql: "units * price"}
"""


def load(folder: Path, mapping: str, **files: str) -> CanonicalTables:
    """Write the mapping and the files (``orders_csv="…"`` → orders.csv), and read them."""
    for name, text in files.items():
        (folder / name.replace("_csv", ".csv")).write_text(text, encoding="utf-8")
    (folder / "mapping.yaml").write_text(mapping, encoding="utf-8")
    return read_source(f"files:{folder / 'mapping.yaml'}", now=NOW)


def test_the_guide_is_true(tmp_path: Path) -> None:
    blocks = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```", GUIDE.read_text(), re.S | re.M)
    for _, name, text in blocks:
        if name:
            (tmp_path / name).write_text(text)
    tables = read_source(f"files:{tmp_path / 'mapping.yaml'}", now=NOW)
    said = next(text for kind, _, text in blocks if kind == "text").splitlines()
    assert said[0] == f"{tables.events.num_rows} events, {tables.items.num_rows} items"
    assert said[1] == f"left out by keep_if: {tables.dropped}"
    row = tables.quarantine.to_pylist()[0]
    line = " ".join(str(row[key]) for key in ("table", "row", "column", "reason", "record"))
    assert line.startswith(said[2].removesuffix("...}"))
    assert tables.quarantine.num_rows == len(said) - 2
    assert tables.events["user_id"].to_pylist() == ["0012", "0012"]
    assert tables.profiles["categorical"].to_pylist() == [[("plan", "gold")], [("plan", "basic")]]
    assert tables.profiles["continuous"].to_pylist() == [[("age", 41.0)], []]


def test_ids_keep_their_zeros_and_values_are_computed(tmp_path: Path) -> None:
    text = (
        HEADER + "1,0012,2026-01-05,007,Tea,2,1.5\n2,12,2026-01-06 08:00:00+02:00,007,Tea,1,1.5\n"
    )
    tables = load(tmp_path, BILLS, orders_csv=text)
    assert tables.events["user_id"].to_pylist() == ["0012", "12"]
    assert tables.events["item_id"].to_pylist() == ["007", "007"]
    assert tables.events["amount"].to_pylist() == [3.0, 1.5]
    assert tables.events["timestamp"][1].as_py() == datetime(2026, 1, 6, 6, tzinfo=UTC)
    assert (tables.synthetic, tables.name, tables.dropped) == (False, "files", {})


def test_globs_parquet_and_positions(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for n, users in enumerate((["a", "b"], ["c"])):
        at = pa.array([datetime(2026, 1, 1)] * len(users), pa.timestamp("ns"))
        table = pa.table({"u": users, "at": at, "page": [f"p{n}"] * len(users)})
        pq.write_table(table, tmp_path / "data" / f"clicks-{n}.parquet")
    mapping = """
events:
  - {path: "data/clicks-*.parquet", source: click, user_id: u, timestamp: at, text: page}
"""
    tables = load(tmp_path, mapping)
    assert tables.events["event_id"].to_pylist() == ["events-0-0-0", "events-0-0-1", "events-0-1-0"]
    assert tables.events["user_id"].to_pylist() == ["a", "b", "c"]
    # Without an item id, the text is the id.
    assert tables.events["item_id"].to_pylist() == ["p0", "p0", "p1"]
    assert tables.items["text"].to_pylist() == ["p0", "p1"]


def test_entries_of_different_types_meet_in_one_table(tmp_path: Path) -> None:
    at = pa.array([datetime(2026, 1, 1)], pa.timestamp("us"))
    pq.write_table(pa.table({"u": [7], "at": at, "p": ["x"]}), tmp_path / "a.parquet")
    mapping = """
events:
  - {path: a.parquet, source: click, user_id: u, timestamp: at, text: p}
  - {path: b.csv, source: mini_program, user_id: u, timestamp: at, text: p}
"""
    tables = load(tmp_path, mapping, b_csv="u,at,p\n07,2026-01-02,y\n8,never,y\n")
    assert tables.events["user_id"].to_pylist() == ["7", "07"]
    assert tables.events["source"].to_pylist() == ["click", "mini_program"]
    assert [at.day for at in tables.events["timestamp"].to_pylist()] == [1, 2]
    record = json.loads(tables.quarantine["record"][0].as_py())
    assert record == {"@file": "b.csv", "u": "8", "at": "never", "p": "y"}
    assert tables.quarantine["row"].to_pylist() == [1]


def test_float_ids_meet_those_of_another_file(tmp_path: Path) -> None:
    """Tables with gaps keep ids as floats; the same user may stand in a CSV file."""
    at = pa.array([datetime(2026, 1, 1)] * 2, pa.timestamp("us"))
    users = pa.table({"u": [123456789012.0, None], "at": at, "p": ["x", "x"]})
    pq.write_table(users, tmp_path / "a.parquet")
    mapping = """
events:
  - {path: a.parquet, source: click, user_id: u, timestamp: at, text: p}
  - {path: b.csv, source: click, user_id: u, timestamp: at, text: p}
"""
    alone = load(tmp_path, mapping[: mapping.index("  - {path: b")])
    both = load(tmp_path, mapping, b_csv="u,at,p\n123456789012,2026-01-02,y\n")
    assert alone.events["user_id"].to_pylist() == ["123456789012"]
    assert both.events["user_id"].to_pylist() == ["123456789012"] * 2
    assert both.quarantine["reason"].to_pylist() == ["null"]


def test_items_take_the_earliest_known_words(tmp_path: Path) -> None:
    mapping = BILLS.replace("text: title", "text: title\n    categories: [big, small]")
    text = (
        "id,customer,at,sku,title,units,price,big,small\n"
        "1,u,2026-01-03,s,Late,1,1,Food,Tea\n"
        "2,u,2026-01-01,s,,1,1,,Tea\n"  # earliest, but says nothing
        "3,u,2026-01-02,s,First,1,1,Drinks,\n"
        "4,u,2026-01-02,s,Tie,1,1,Other,\n"
        "5,u,2025-01-01,s,Wrong,-1,1,Bad,Bad\n"  # quarantined, so it has no say
    )
    tables = load(tmp_path, mapping, orders_csv=text)
    assert tables.items.to_pylist() == [
        {"item_id": "s", "text": "First", "categories": ["Drinks"], "brand": None},
        {"item_id": "s @0", "text": "s", "categories": [], "brand": None},
    ]
    # What happened before the item had a name is not renamed.
    assert tables.events["item_id"].to_pylist() == ["s", "s @0", "s", "s"]


def test_keep_if_is_counted_and_unreadable_rows_are_not_dropped(tmp_path: Path) -> None:
    text = HEADER + "".join(
        f"{n},u,2026-01-01,s,t,{units},2\n" for n, units in enumerate(["1", "0", "n/a", "", "3"])
    )
    mapping = BILLS + '    keep_if: {sql: "units > 0"}\n'
    tables = load(tmp_path, mapping, orders_csv=text)
    assert tables.events["amount"].to_pylist() == [2.0, 6.0]
    assert tables.dropped == {"events": 2}  # zero, and unknown
    row = tables.quarantine.to_pylist()[0]
    assert (row["row"], row["column"], row["reason"]) == (2, "units", "not a number")
    assert json.loads(row["record"])["units"] == "n/a"


def test_only_the_entry_that_names_known_at_has_late_rows(tmp_path: Path) -> None:
    mapping = """
searches:
  - {path: a.csv, user_id: u, timestamp: at, known_at: seen, text: q}
  - {path: b.csv, user_id: u, timestamp: at, text: q}
"""
    late, plain = "u,at,seen,q\n1,2026-01-01,2026-01-03,tea\n", "u,at,q\n1,2026-01-02,tea\n"
    tables = load(tmp_path, mapping, a_csv=late, b_csv=plain)
    assert [at.day for at in tables.searches["known_at"].to_pylist()] == [3, 2]


def test_a_fault_in_the_second_entry_hits_its_own_row(tmp_path: Path) -> None:
    first = "id,customer,at,sku,title,units,price\n1,u,2026-01-01,s,t,1,1\n2,u,2026-01-01,s,t,1,1\n"
    second = first.replace("1,u,", "3,u,").replace("2,u,", "4,u,").replace("t,1,1", "t,?,1", 1)
    mapping = BILLS + BILLS.replace("\nevents:\n", "").replace("orders*", "returns*")
    tables = load(tmp_path, mapping, orders_csv=first, returns_csv=second)
    assert tables.events["event_id"].to_pylist() == ["1", "2", "4"]
    assert json.loads(tables.quarantine["record"][0].as_py())["id"] == "3"


def test_blank_profile_values_are_unknown(tmp_path: Path) -> None:
    mapping = "profiles: [{path: p.csv, user_id: u, timestamp: at, categorical: [plan, city]}]"
    tables = load(tmp_path, mapping, p_csv="u,at,plan,city\n1,2026-01-01, ,Bonn\n")
    assert tables.profiles["categorical"].to_pylist() == [[("city", "Bonn")]]


PROFILES = """
events: [{path: e.csv, source: click, user_id: u, timestamp: at, text: u}]
profiles:
  - {path: p.csv, user_id: u, timestamp: at, categorical: [plan]}
  - {path: q.csv, user_id: u, timestamp: at, continuous: [age]}
  - {path: r.csv, user_id: u, timestamp: at, categorical: [plan, city]}
"""


@pytest.mark.parametrize("day", ["2026-01-01", "2026-01-02"], ids=["same time", "later"])
def test_profiles_of_several_entries_complete_each_other(tmp_path: Path, day: str) -> None:
    tables = load(
        tmp_path, PROFILES, e_csv="u,at\n1,2026-01-01\n2,2026-01-01\n",
        p_csv="u,at,plan\n1,2026-01-01,gold\n", q_csv=f"u,at,age\n1,{day},41\n",
        r_csv="u,at,plan,city\n1,2026-01-01,basic,Rome\n2,2026-01-01,basic,Bonn\n",
    )  # fmt: skip
    # Two entries that tell the same column are one table: the first row of a user and time stays.
    row = tables.quarantine.to_pylist()[0]
    assert (row["reason"], json.loads(row["record"])["plan"]) == ("duplicate key", "basic")
    with open_tables({name: getattr(tables, name) for name in CANONICAL}) as con:
        weekly = profile_weekly(con, datetime(2026, 1, 5, tzinfo=UTC), tables.own)
    told = weekly.select(["profile_plan", "profile_age", "profile_city"]).to_pylist()
    assert [tuple(each.values()) for each in told] == [
        ("gold", 41.0, None),
        ("basic", None, "Bonn"),
    ]
    assert tables.own == {"categorical": ["city", "plan"], "continuous": ["age"]}


@pytest.mark.parametrize(
    ("first", "second", "got"),
    [
        ("categorical: [age], continuous: [age]", "continuous: [x]", "categorical 'age' and cont"),
        ("categorical: [age]", "continuous: [age]", "categorical 'age' and continuous 'age'"),
        ("continuous: [age]", "continuous: [Age]", "continuous 'age' and continuous 'Age'"),
        ("continuous: [age, age]", "continuous: [x]", "'age' is named twice"),
    ],
)
def test_a_profile_column_is_of_one_kind(tmp_path: Path, first: str, second: str, got: str) -> None:
    mapping = f"""
profiles:
  - {{path: p.csv, user_id: u, timestamp: at, {first}}}
  - {{path: p.csv, user_id: u, timestamp: at, {second}}}
"""
    with pytest.raises(InputError, match=f"mapping.yaml: .*{got}"):
        load(tmp_path, mapping, p_csv="u,at,age,Age,x\n1,2026-01-01,4,4,4\n")


def test_malformed_lines_are_quarantined_at_their_place(tmp_path: Path) -> None:
    text = (
        HEADER + '1,u,2026-01-01,s,"a, b",1,1\n2,u\n3,u,never,s,t,1,1\n4,u,2026-01-01,s,t,1,1,9\n'
    )
    tables = load(tmp_path, BILLS, orders_csv=text)
    assert tables.items["text"].to_pylist() == ["a, b"]
    bad = {row["row"]: row for row in tables.quarantine.to_pylist()}
    assert {row: each["reason"] for row, each in bad.items()} == {
        1: "expected 7 values, got 2",
        2: "unparsable timestamp",
        3: "expected 7 values, got 8",
    }
    assert json.loads(bad[1]["record"]) == {"@file": "orders.csv", "line": "2,u"}


def test_overlong_text_is_quarantined(tmp_path: Path) -> None:
    text = HEADER + f"1,u,2026-01-01,s,{'x' * 2001},1,1\n2,u,2026-01-01,s,ok,1,1\n"
    tables = load(tmp_path, BILLS, orders_csv=text)
    assert tables.events["event_id"].to_pylist() == ["2"]
    assert tables.quarantine["reason"].to_pylist() == ["longer than 2000 characters"]


def test_other_delimiters_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeff" + HEADER.replace(",", ";") + "1;u;2026-01-01;s;a, b;1;2\n"
    tables = load(tmp_path, BILLS, orders_csv=text)
    assert (tables.events["event_id"][0].as_py(), tables.items["text"][0].as_py()) == ("1", "a, b")


def test_all_kinds_of_tables(tmp_path: Path) -> None:
    mapping = """
searches: [{path: s.csv, user_id: u, timestamp: at, known_at: seen, text: q}]
exposures: [{path: s.csv, user_id: u, timestamp: at, campaign_id: q, kind: {sql: "'sent'"}}]
segments: [{path: s.csv, user_id: u, timestamp: at, segment: q}]
profiles: [{path: s.csv, user_id: u, timestamp: at, categorical: [q], continuous: [n]}]
"""
    text = "u,at,seen,q,n\n1,2026-01-01,2026-01-03,tea,5\n2,2026-01-01,2026-01-01,tea,x\n"
    tables = load(tmp_path, mapping, s_csv=text)
    assert tables.profiles["categorical"].to_pylist() == [[("q", "tea")]]
    assert tables.searches["search_id"].to_pylist() == ["searches-0-0-0", "searches-0-0-1"]
    assert [at.day for at in tables.searches["known_at"].to_pylist()] == [3, 1]
    assert tables.exposures["kind"].to_pylist() == ["sent", "sent"]
    assert tables.segments["segment"].to_pylist() == ["tea", "tea"]
    assert tables.profiles["continuous"].to_pylist() == [[("n", 5.0)]]
    assert tables.quarantine["reason"].to_pylist() == ["not a number"]
    assert tables.events.num_rows == tables.items.num_rows == 0
    spec = f"files:{tmp_path / 'mapping.yaml'}"
    assert read_source(spec, demographics=False, now=NOW).profiles.num_rows == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("timestamp: at", "timestamp: when", r"orders.csv has no column 'when'; its columns are"),
        ("units * price", "units * cost", r"orders.csv has no column 'cost'"),
        ("orders\\*.csv", "sales*.csv", r"events.0.path: no file matches 'sales\*.csv' in /"),
        ("source: bill", "source: fax", r"events.0.source: .*'bill', 'click'.*got 'fax'"),
        ("source: bill", "sauce: bill", r"events.0.source: Field required; .*sauce: unknown key"),
        ("user_id: customer", "user_id: [a]", r"expected a column name or {sql: .*got \['a'\]"),
        ("item_id: sku\n    text: title", "place: sku", r"expected item_id, text or both"),
        ("source: bill", "source: [bill", r"mapping.yaml: expected YAML"),
        ("events:", "event:", r"event: unknown key"),
        ("[^$]*", "- 3", r"expected a mapping with events, profiles.*got list"),
        ("[^$]*", "events: []", r"it has none"),
        (
            "units \\* price",
            "month(title) + 1",
            r"events.0.amount: 'month\(title\) \+ 1' failed on columns",
        ),
        (
            "quantity: units",
            "keep_if: {sql: units}",
            r"keep_if: expected true or false",
        ),
        ("units \\* price", "(SELECT 1)", r"events.0.amount: expected one value computed from"),
    ],
)
def test_mistakes_in_the_mapping_are_named(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    mapping = re.sub(old.replace(" * ", r" \* "), lambda _: new, BILLS, count=1)
    assert mapping != BILLS
    with pytest.raises(InputError, match=message):
        load(tmp_path, mapping, orders_csv=HEADER + "1,u,2026-01-01,s,t,1,1\n")


def test_mistakes_about_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no mapping file at .*nowhere.yaml"):
        read_source(f"files:{tmp_path}/nowhere.yaml", now=NOW)
    with pytest.raises(InputError, match="several columns named 'sku'"):
        load(tmp_path, BILLS, orders_csv=HEADER.replace("title", "sku") + "\n")
    (tmp_path / "orders.csv").unlink()
    (tmp_path / "orders.json").write_text("{}")
    with pytest.raises(InputError, match="expected .parquet or .csv or .csv.gz, got .*orders.json"):
        load(tmp_path, BILLS.replace("orders*.csv", "orders*"))
    with pytest.raises(InputError, match="has no default date"):
        default_as_of("files:mapping.yaml")


def test_the_fingerprint_follows_mapping_and_files(tmp_path: Path) -> None:
    load(tmp_path, BILLS, orders_csv=HEADER + "1,u,2026-01-01,s,t,1,1\n")
    spec = f"files:{tmp_path / 'mapping.yaml'}"
    seen = {source_fingerprint(spec)}
    assert source_fingerprint(spec) in seen
    os.utime(tmp_path / "orders.csv", (1, 1))
    seen.add(source_fingerprint(spec))
    (tmp_path / "orders-2.csv").write_text(HEADER)
    seen.add(source_fingerprint(spec))
    (tmp_path / "mapping.yaml").write_text(BILLS + "\n")
    seen.add(source_fingerprint(spec))
    assert len(seen) == 4


CELL = st.sampled_from(["1", "2.5", "-1", "0", "", "x", "007", "2026-01-01", "2099-01-01", "nan"])


@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.lists(CELL, min_size=5, max_size=9), max_size=8))
def test_rows_read_are_good_quarantined_or_dropped(rows: list[list[str]]) -> None:
    text = HEADER + "".join(",".join(row) + "\n" for row in rows)
    mapping = BILLS + "    keep_if: {sql: \"coalesce(title, '') <> 'x'\"}\n"
    with tempfile.TemporaryDirectory() as folder:
        tables = load(Path(folder), mapping, orders_csv=text)
    assert tables.events.num_rows + tables.quarantine.num_rows + tables.dropped["events"] == len(
        rows
    )
    assert set(tables.events["item_id"].to_pylist()) == set(tables.items["item_id"].to_pylist())
