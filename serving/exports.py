"""An audience as a file to send on: Parquet, CSV, or the IAB's agentic-audiences format.

The last is one OpenRTB ``user.data`` object (IABTechLab/agentic-audiences, version 1.0): a segment
whose extension holds the vector that the audience was ranked by, the model it belongs to, and when
it expires. It names no user. Two vectors can be compared only if they name the same model, which
is the space here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from feature_repo.errors import InputError
from feature_repo.schema import TIMESTAMP
from sdk.saved import ExportFormat
from serving.picked import Audience

MEDIA_TYPES: Final[dict[ExportFormat, str]] = {
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv",
    "iab": "application/json",
}
SUFFIXES: Final[dict[ExportFormat, str]] = {"parquet": "parquet", "csv": "csv", "iab": "json"}
_PIECE: Final = 1 << 18
_IN_MEMORY: Final = 1 << 22  # what is larger goes through a temporary file


def export(audience: Audience, wanted: ExportFormat, *, name: str, key: str) -> Iterator[bytes]:
    """The file, piece by piece. ``name`` and ``key`` are the audience's name and id."""
    if wanted == "iab":
        return iter([json.dumps(agentic(audience, name=name, key=key)).encode()])
    table = pa.table({"user_id": audience.ids, "score": pa.array(audience.scores)})
    if wanted == "csv":
        return _pieces(lambda file: pc.write_csv(table, file))
    meta = audience.meta
    for column, value, kind in (
        ("space", meta.space, pa.string()),
        ("snapshot", meta.snapshot, pa.string()),
        ("as_of", meta.as_of, TIMESTAMP),
    ):
        table = table.append_column(column, pa.repeat(pa.scalar(value, kind), len(table)))
    return _pieces(lambda file: pq.write_table(table, file, coerce_timestamps="us"))


def agentic(audience: Audience, *, name: str, key: str) -> dict[str, Any]:
    """The audience's vector as an OpenRTB ``user.data`` object with model and expiry."""
    if audience.query is None:
        raise InputError(
            "format: an audience that only rules chose has no vector to send as 'iab'; "
            "use 'parquet' or 'csv'"
        )
    meta = audience.meta
    expires = meta.as_of + timedelta(days=meta.horizon_days)
    extension = {
        "ver": "1.0",
        "vector": [float(number) for number in audience.query],
        "model": f"openfound/{meta.space}",
        "dimension": len(audience.query),
        "type": "intent",
        "metric": "inner_product",
        "as_of": meta.as_of.isoformat(),
        "expires_at": expires.isoformat(),
        "ttl_seconds": meta.horizon_days * 86_400,
    }
    segment = {"id": key, "name": name, "ext": extension}
    return {"data": {"id": "openfound", "name": "OpenFound audiences", "segment": [segment]}}


def _pieces(write: Any) -> Iterator[bytes]:
    """What ``write`` puts into a file, in pieces; written whole before the first one leaves."""
    file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
    write(file)
    file.seek(0)

    def pieces() -> Iterator[bytes]:
        with file:
            while piece := file.read(_PIECE):
                yield piece

    return pieces()
