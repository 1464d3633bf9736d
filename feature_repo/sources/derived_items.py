"""Items out of the events that name them, without a word that was not known at the time.

An item's text, categories and brand are the first that became known of it, each at its own moment
(the row's ``timestamp`` or ``known_at``, whichever is later). An event speaks of its item as it was
known by then, so an item that was named only later is two items: ``x @0`` of the events before and
``x`` of those after. A window that has ended never learns what an item turned out to be.
"""

from __future__ import annotations

from typing import Final

import duckdb
import numpy as np
import pyarrow as pa

ATTRIBUTES: Final = ("text", "brand", "categories")

# Of rows that became known together, the first in the sorted files has its say.
_TOLD: Final = """CREATE TEMP TABLE told AS SELECT item_id,
        arg_min(text, (seen, position)) AS text,
        arg_min(brand, (seen, position)) AS brand,
        arg_min(categories, (seen, position)) FILTER (len(categories) > 0) AS categories,
        min(seen) FILTER (text IS NOT NULL) AS text_at,
        min(seen) FILTER (brand IS NOT NULL) AS brand_at,
        min(seen) FILTER (len(categories) > 0) AS categories_at
    FROM known GROUP BY item_id"""

_VERSIONS: Final = """CREATE TEMP TABLE versions AS SELECT position, item_id,
        coalesce(seen >= text_at, false) AS named,
        coalesce(seen >= brand_at, false) AS branded,
        coalesce(seen >= categories_at, false) AS placed,
        named::INT + branded::INT + placed::INT AS num_known,
        CASE WHEN num_known = (text_at IS NOT NULL)::INT + (brand_at IS NOT NULL)::INT
                              + (categories_at IS NOT NULL)::INT
             THEN item_id ELSE item_id || ' @' || num_known END AS version
    FROM known JOIN told USING (item_id)"""

_ITEMS: Final = """SELECT version AS item_id,
        CASE WHEN named THEN text ELSE item_id END AS text,
        CASE WHEN placed THEN categories ELSE [] END AS categories,
        CASE WHEN branded THEN brand END AS brand
    FROM (SELECT DISTINCT ON (version) * FROM versions) JOIN told USING (item_id)
    ORDER BY version"""


def derive_items(events: pa.Table, rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The events, each with the id of its item as it was known by then, and those items.

    Args:
        events: [num events] good events.
        rows: [num events] the rows that they were made of, with :data:`ATTRIBUTES`.
    """
    known = pa.table(
        {
            "position": np.arange(events.num_rows),
            "happened": events["timestamp"],
            "known_at": events["known_at"],
            "item_id": events["item_id"],
            **{name: rows[name] for name in ATTRIBUTES},
        }
    )
    with duckdb.connect() as connection:
        connection.register("given", known)
        connection.execute(
            "CREATE VIEW known AS SELECT *, greatest(happened, known_at) AS seen FROM given"
        )
        connection.execute(_TOLD)
        connection.execute(_VERSIONS)
        ids = connection.sql("SELECT version FROM versions ORDER BY position").to_arrow_table()
        items = connection.sql(_ITEMS).to_arrow_table()
    place = events.column_names.index("item_id")
    return events.set_column(place, events.schema.field(place), ids["version"]), items
