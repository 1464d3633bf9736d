"""Items of own data: what is learnt of one later changes nothing that was built before."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from feature_repo.habits import habits_weekly
from feature_repo.outcomes import outcomes
from feature_repo.profiles import profile_weekly
from feature_repo.purchases import purchases_weekly
from feature_repo.schema import CANONICAL
from feature_repo.sources import read_source
from feature_repo.transforms import behaviour_weekly, catalogue, facts, open_tables

AS_OF = datetime(2026, 1, 26, tzinfo=UTC)
CUTOFF = AS_OF - timedelta(days=14)
MAPPING = """
events:
  - path: orders*.csv
    source: bill
    event_id: id
    user_id: customer
    timestamp: at
    known_at: known
    item_id: sku
    text: title
    categories: [family]
    brand: brand
"""
HEADER = "id,customer,at,known,sku,title,family,brand\n"
ORDERS = HEADER + (
    "1,u,2026-01-05,2026-01-05,x,Espresso,Coffee,\n"
    "2,u,2026-01-20,2026-01-20,x,Espresso,Coffee,\n"
    "3,v,2026-01-06,2026-01-06,y,Mystery,,\n"
    "4,v,2026-01-21,2026-01-21,y,Mystery,,\n"
)
LATE = "5,w,2026-01-02,2026-03-01,x,SEEN LATER,SEEN LATER,SEEN LATER\n"
FUTURE = "6,w,2026-02-20,2026-02-20,y,FUTURE,FUTURE,FUTURE\n"


def built(folder: Path, planted: str, as_of: datetime = AS_OF) -> dict[str, bytes]:
    """Every table that is made of items, as a Parquet file."""
    folder.mkdir()
    (folder / "mapping.yaml").write_text(MAPPING)
    (folder / "orders.csv").write_text(ORDERS)
    (folder / "orders-0.csv").write_text(HEADER + planted)  # sorts before: its rows come first
    tables = read_source(f"files:{folder / 'mapping.yaml'}", now=datetime(2026, 6, 1, tzinfo=UTC))
    assert tables.quarantine.num_rows == 0 and tables.events.num_rows == 4 + bool(planted)
    with open_tables({name: getattr(tables, name) for name in CANONICAL}) as con:
        made = {
            view.__name__: view(con, as_of)
            for view in (behaviour_weekly, habits_weekly, purchases_weekly, profile_weekly)
        }
        made["facts"] = facts(con, [CUTOFF], horizon_days=14, known_before=as_of)
        made["catalogue"] = catalogue(con, made["facts"], known_before=as_of)
        made["outcomes"] = outcomes(con, [CUTOFF], known_before=as_of)
    files = {}
    for name, table in made.items():
        sink = io.BytesIO()
        pq.write_table(table.combine_chunks(), sink)
        files[name] = sink.getvalue()
    return files


@pytest.mark.parametrize("planted", [LATE, FUTURE], ids=["known too late", "in the future"])
def test_what_is_learnt_of_an_item_too_late_changes_nothing(tmp_path: Path, planted: str) -> None:
    assert built(tmp_path / "leaky", planted) == built(tmp_path / "clean", "")


@pytest.mark.parametrize("planted", [LATE, FUTURE], ids=["known too late", "in the future"])
def test_the_same_words_known_in_time_do_show(tmp_path: Path, planted: str) -> None:
    """That the test above can fail: known before the first event, they are the item's words."""
    early = planted.replace("2026-03-01", "2026-01-03").replace("2026-02-20", "2026-01-03")
    made, word = built(tmp_path / "early", early), planted.split(",")[5].encode()
    assert word in made["behaviour_weekly"] and word in made["habits_weekly"]
    assert word in made["facts"] and made["purchases_weekly"] != built(tmp_path / "late", planted)


def test_events_before_and_after_an_item_was_named(tmp_path: Path) -> None:
    """A click knows the number only; the purchase that follows names it from then on."""
    (tmp_path / "mapping.yaml").write_text(
        MAPPING + "  - {path: clicks.csv, source: click, user_id: u, timestamp: at, item_id: sku}\n"
    )
    (tmp_path / "orders.csv").write_text(ORDERS)
    (tmp_path / "clicks.csv").write_text("u,at,sku\nu,2026-01-04,x\nu,2026-01-06,x\nu,2026-01-07,z")
    tables = read_source(f"files:{tmp_path / 'mapping.yaml'}")
    words = {row.pop("item_id"): row for row in tables.items.to_pylist()}
    told = [words[item] for item in tables.events["item_id"].to_pylist()]
    assert [each["text"] for each in told[:4]] == ["Espresso", "Espresso", "Mystery", "Mystery"]
    assert [each["text"] for each in told[4:]] == ["x", "Espresso", "z"]
    assert [each["categories"] for each in told[4:]] == [[], ["Coffee"], []]
