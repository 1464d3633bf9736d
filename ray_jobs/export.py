"""A snapshot's embeddings as one Parquet file.

    python -m ray_jobs.export --workspace DIR --kind fused --out e.parquet

Columns: user_id string, embedding fixed-size list of float32, space and snapshot string, as_of.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from feature_repo import durable
from feature_repo.matrix import Matrix
from feature_repo.schema import TIMESTAMP
from feature_repo.snapshots import SnapshotStore
from ray_jobs.command import Job, console, main


class Export(Job):
    """Export one kind of embedding."""

    kind: str = Field("fused", description="behaviour, tabular, search, fused or shopper_bert")
    out: str = Field(description="Parquet file to write")
    snapshot: str | None = Field(None, description="id; default the live one")


def run(settings: Export) -> dict[str, Any]:
    """Write the file; returns its path and number of rows."""
    snapshots = SnapshotStore(settings.place)
    manifest = snapshots.load(settings.snapshot) if settings.snapshot else snapshots.live()
    entry = manifest.entry(settings.kind)
    vectors = np.load(settings.place.root / entry.matrix)
    n = len(vectors)
    table = pa.table(
        {
            "user_id": pa.array(Matrix.open(manifest, settings.kind, settings.place).ids),
            "embedding": pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), entry.dim),
            "space": pa.array([manifest.space] * n),
            "snapshot": pa.array([manifest.id] * n),
            "as_of": pa.array([manifest.as_of] * n, TIMESTAMP),
        }
    )
    out = Path(settings.out).resolve()
    with durable.replacing(out) as temporary:
        pq.write_table(table, temporary, coerce_timestamps="us")
    console.print(f"{n:,} × {entry.dim} {settings.kind} embeddings of {manifest.id} → {out}")
    return {"out": str(out), "rows": n}


if __name__ == "__main__":
    main(Export, run)
