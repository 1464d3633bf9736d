"""The one vocabulary: Arrow schemas of every table that crosses a stage, and their column names.

Sources turn raw data into the canonical tables below; transforms turn those into weekly feature
rows; everything downstream reads columns by these names. Nothing here imports anything of ours.

Time has two columns. ``timestamp`` is when something happened, ``known_at`` when it reached us.
A row counts as history before a date only if *both* lie strictly before it, so a late row first
shows in the window in which it became known, and no window is ever rewritten.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")

BILL: Final = "bill"
CLICK: Final = "click"
MINI_PROGRAM: Final = "mini_program"
EVENT_SOURCES: Final = (BILL, CLICK, MINI_PROGRAM)

SUCCESSFUL: Final = "successful"
FAILED: Final = "failed"
STATUSES: Final = (SUCCESSFUL, FAILED)
"""What our own sources write. A failed bill bought nothing and is no purchase."""

MAX_TEXT: Final = 2_000
"""Longest text, in characters, that a row may carry; longer ones are quarantined."""

MAX_USER_ID: Final = 256
"""Longest user id, in characters, that the wire takes; in UTF-8 twice that, as Milvus keeps it."""

MAX_NUMBER: Final = 1e11
"""Largest quantity, amount or discount of one row. Sums are kept in ten-thousandths in 64 bits, so
half a year of one user may hold 9,000 such rows; without a limit one row could stop a build."""


def _field(name: str, kind: pa.DataType, *, required: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=not required)


EVENTS: Final = pa.schema(
    [
        _field("event_id", pa.string(), required=True),
        _field("user_id", pa.string(), required=True),
        _field("timestamp", TIMESTAMP, required=True),
        _field("known_at", TIMESTAMP, required=True),
        _field("source", pa.string(), required=True),  # one of EVENT_SOURCES
        _field("item_id", pa.string(), required=True),
        _field("quantity", pa.float64()),
        _field("amount", pa.float64()),
        _field("discount", pa.float64()),  # what the user was spared, never negative
        _field("channel", pa.string()),  # how it was paid
        _field("status", pa.string()),  # FAILED; anything else, or nothing, is a paid bill
        _field("basket_id", pa.string()),
        _field("place", pa.string()),  # store, city, app section
    ]
)

ITEMS: Final = pa.schema(
    [
        _field("item_id", pa.string(), required=True),
        _field("text", pa.string(), required=True),
        _field("categories", pa.list_(pa.string()), required=True),  # coarse to fine, may be empty
        _field("brand", pa.string()),
    ]
)

PROFILES: Final = pa.schema(
    [
        _field("user_id", pa.string(), required=True),
        _field("timestamp", TIMESTAMP, required=True),  # valid from
        _field("known_at", TIMESTAMP, required=True),
        _field("categorical", pa.map_(pa.string(), pa.string()), required=True),
        _field("continuous", pa.map_(pa.string(), pa.float64()), required=True),
    ]
)

SEARCHES: Final = pa.schema(
    [
        _field("search_id", pa.string(), required=True),
        _field("user_id", pa.string(), required=True),
        _field("timestamp", TIMESTAMP, required=True),
        _field("known_at", TIMESTAMP, required=True),
        _field("text", pa.string(), required=True),
    ]
)

EXPOSURES: Final = pa.schema(
    [
        _field("exposure_id", pa.string(), required=True),
        _field("user_id", pa.string(), required=True),
        _field("timestamp", TIMESTAMP, required=True),
        _field("known_at", TIMESTAMP, required=True),
        _field("campaign_id", pa.string(), required=True),
        _field("kind", pa.string(), required=True),  # "sent", "impression", "click", "redeemed"
        _field("text", pa.string()),
    ]
)

SEGMENTS: Final = pa.schema(
    [
        _field("segment", pa.string(), required=True),
        _field("user_id", pa.string(), required=True),
        _field("timestamp", TIMESTAMP, required=True),  # member from
        _field("known_at", TIMESTAMP, required=True),
    ]
)

QUARANTINE: Final = pa.schema(
    [
        _field("table", pa.string(), required=True),
        _field("row", pa.int64(), required=True),  # position in the raw input, from 0
        _field("column", pa.string(), required=True),
        _field("reason", pa.string(), required=True),
        _field("record", pa.string(), required=True),  # the row as JSON
    ]
)

CANONICAL: Final[dict[str, pa.Schema]] = {
    "events": EVENTS,
    "items": ITEMS,
    "profiles": PROFILES,
    "searches": SEARCHES,
    "exposures": EXPOSURES,
    "segments": SEGMENTS,
}

KEYS: Final[dict[str, tuple[str, ...]]] = {
    "events": ("event_id",),
    "items": ("item_id",),
    "profiles": ("user_id", "timestamp"),  # of each file that brings columns of its own
    "searches": ("search_id",),
    "exposures": ("exposure_id",),
    "segments": ("segment", "user_id"),
}

# Weekly feature rows: one per user and window, stamped at the window's exclusive end.
# ``created`` is the ``as_of`` of the build, never the clock, so that a build repeats to the byte.
# Where two builds hold the same window Feast takes the one of the later ``as_of``; both are of the
# same tables, so they say the same of it.

_WEEKLY = [
    _field("user_id", pa.string(), required=True),
    _field("event_timestamp", TIMESTAMP, required=True),
    _field("created", TIMESTAMP, required=True),
]
_TEXTS = pa.list_(pa.string())
_WEIGHTS = pa.list_(pa.float32())

BEHAVIOUR_WEEKLY: Final = pa.schema(
    [
        *_WEEKLY,
        _field("bills", _TEXTS),  # distinct lines, sorted
        _field("bill_counts", _WEIGHTS),  # baskets that hold the line, aligned with bills
        _field("clicks", _TEXTS),
        _field("click_counts", _WEIGHTS),
        _field("mini_programs", _TEXTS),
        _field("mini_program_counts", _WEIGHTS),
        _field("num_events", pa.int64()),
        _field("amount", pa.float64()),
    ]
)

SEARCH_WEEKLY: Final = pa.schema(
    [*_WEEKLY, _field("searches", _TEXTS), _field("search_counts", _WEIGHTS)]
)

HABITS_WEEKLY: Final = pa.schema(
    [
        *_WEEKLY,
        _field("bought", _TEXTS),  # distinct subjects of the coarse taxonomy levels, sorted
        _field("bought_counts", _WEIGHTS),  # baskets that hold the subject, aligned with bought
        _field("clicked", _TEXTS),
        _field("clicked_counts", _WEIGHTS),
        _field("browsed", _TEXTS),
        _field("browsed_counts", _WEIGHTS),
    ]
)

PURCHASES_WEEKLY: Final = pa.schema(
    [
        *_WEEKLY,
        _field("products", _TEXTS),  # {"text": …, "categories": […]} as JSON, oldest first
        _field("bought_at", pa.list_(pa.int64())),  # microseconds since 1970, aligned with products
    ]
)

EMBEDDING: Final = pa.schema(
    [
        *_WEEKLY,
        _field("embedding", pa.list_(pa.float32())),
        _field("space", pa.string()),
        _field("snapshot", pa.string()),
        _field("trained_as_of", TIMESTAMP),
    ]
)

SCORES: Final = pa.schema(
    [
        *_WEEKLY,
        _field("score", pa.float64()),
        _field("space", pa.string()),  # of the embeddings that the score was made from
    ]
)

FACTS: Final = pa.schema(
    [
        _field("user_id", pa.string(), required=True),
        _field("cutoff", TIMESTAMP, required=True),
        _field("kind", pa.string(), required=True),  # one of FACT_KINDS
        _field("subject", pa.string(), required=True),
        _field("level", pa.int8(), required=True),  # depth in the taxonomy, 1 = coarsest; 0 = none
        _field("count", pa.float32()),  # distinct baskets, or events where there are none
        _field("amount", pa.float64()),
    ]
)
OUTCOMES: Final = pa.schema(
    [
        _field("user_id", pa.string(), required=True),
        _field("cutoff", TIMESTAMP, required=True),
        _field("outcome", pa.string(), required=True),  # one of OUTCOME_NAMES
        _field("horizon_days", pa.int32(), required=True),
        _field("happened", pa.bool_(), required=True),
    ]
)
OUTCOME_NAMES: Final = ("nothing", "a lot", "more", "coupon")

FACT_KINDS: Final = ("purchase", "browsing", "search", "click", "channel")

AGGREGATE_PREFIX: Final = "agg_"  # profile columns made by hand from counts and sums

WEEKLY_VIEWS: Final = (
    "behaviour_weekly",
    "profile_weekly",
    "search_weekly",
    "habits_weekly",
    "purchases_weekly",
)

EMBEDDING_KINDS: Final = ("behaviour", "tabular", "search", "fused", "shopper_bert")
