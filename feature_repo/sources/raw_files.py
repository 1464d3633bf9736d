"""Reading own files: what a glob matches, the columns asked for, and every row's place.

CSV columns are read as text, whatever they look like: the id "0012" must stay "0012". Lines of a
CSV file with too few or too many values are handed over apart, with their numbers.
"""

from __future__ import annotations

import csv
import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from feature_repo.errors import InputError
from feature_repo.records import to_json
from feature_repo.schema import QUARANTINE

FORMATS: Final = (".parquet", ".csv", ".csv.gz")
FILE: Final = "@file"
"""Key that names the file in a quarantined row's record."""


@dataclass(frozen=True)
class RawRows:
    """The rows of all files of one entry, in the files' sorted order."""

    columns: pa.Table
    """[num rows] the columns asked for, under the files' own names."""
    file: np.ndarray[Any, Any]
    """[num rows] number of the file."""
    row: np.ndarray[Any, Any]
    """[num rows] position in the file, from 0."""
    files: list[str]
    malformed: list[tuple[str, int, str, str]]
    """Lines that are no rows: (file, position, reason, line)."""
    is_csv: bool

    def records(self) -> pa.Table:
        """The rows as they came, with their file, for the quarantine."""
        names = pa.DictionaryArray.from_arrays(pa.array(self.file, pa.int32()), self.files)
        return self.columns.add_column(0, FILE, names)

    def quarantine(self, table: str) -> pa.Table:
        """The malformed lines as quarantine rows of a canonical table."""
        columns = {
            "table": [table] * len(self.malformed),
            "row": [row for _, row, _, _ in self.malformed],
            "column": ["*"] * len(self.malformed),
            "reason": [reason for _, _, reason, _ in self.malformed],
            "record": [to_json({FILE: file, "line": line}) for file, _, _, line in self.malformed],
        }
        return pa.table(columns, schema=QUARANTINE)


def find_files(folder: Path, pattern: str, *, where: str) -> list[Path]:
    """The files that a glob matches, sorted; relative globs start in ``folder``.

    Raises:
        InputError: none matches, or one is neither Parquet nor CSV.
    """
    names = glob.glob(pattern, root_dir=folder, recursive=True)
    paths = sorted(path for name in names if (path := folder / name).is_file())
    if not paths:
        raise InputError(f"{where}.path: no file matches {pattern!r} in {folder.resolve()}")
    for path in paths:
        if not path.name.endswith(FORMATS):
            raise InputError(f"{where}.path: expected {' or '.join(FORMATS)}, got {path}")
    if len({path.name.endswith(".parquet") for path in paths}) > 1:
        raise InputError(
            f"{where}.path: expected one format per entry, but {pattern!r} matches CSV and Parquet"
        )
    return paths


def read_rows(
    folder: Path, pattern: str, *, names: Iterable[str], references: Iterable[str], where: str
) -> RawRows:
    """Read the columns that an entry needs from all its files.

    Args:
        folder: where relative globs start.
        pattern: the glob.
        names: columns asked for by name, spelled exactly.
        references: columns that expressions read, in lower case (SQL ignores case).
        where: the entry's place in the mapping, for messages.

    Raises:
        InputError: no file, a missing column, an unreadable file, files that do not fit together.
    """
    tables, malformed, rows = [], [], []
    paths = find_files(folder, pattern, where=where)
    labels = [_label(folder, path) for path in paths]
    for path, label in zip(paths, labels, strict=True):
        present = _columns_of(path)
        wanted = _wanted(present, sorted(names), sorted(references), path, where)
        try:
            table, bad = _read(path, present, wanted)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InputError(f"{where}.path: cannot read {path}: {error}") from error
        tables.append(table)
        malformed += [(label, row, reason, line) for row, reason, line in bad]
        every = np.arange(table.num_rows + len(bad))
        rows.append(np.setdiff1d(every, [row for row, _, _ in bad]))
    try:
        columns = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    except pa.ArrowException as error:
        raise InputError(f"{where}.path: the files of {pattern!r} differ: {error}") from error
    return RawRows(
        columns=columns,
        file=np.repeat(np.arange(len(tables)), [table.num_rows for table in tables]),
        row=np.concatenate(rows).astype(np.int64),
        files=labels,
        malformed=malformed,
        is_csv=not paths[0].name.endswith(".parquet"),
    )


def _label(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _columns_of(path: Path) -> list[str]:
    try:
        if path.name.endswith(".parquet"):
            return list(pq.read_schema(path).names)
        header, delimiter = _header(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    return next(csv.reader([header], delimiter=delimiter), [])


def _header(path: Path) -> tuple[str, str]:
    """A CSV file's first line and its delimiter: the candidate that occurs most often there."""
    with pa.input_stream(str(path), compression="detect") as stream:
        line = stream.read(1 << 16).split(b"\n", 1)[0].decode("utf-8-sig").rstrip("\r")
    return line, max(",;\t|", key=line.count)


def _wanted(
    present: list[str], names: list[str], references: list[str], path: Path, where: str
) -> list[str]:
    """The columns to read, in the file's order; every one asked for must be there, once."""
    lower = [name.lower() for name in present]
    repeated = [n for n in present if present.count(n) > 1 and n in names]
    repeated += [n for n in lower if lower.count(n) > 1 and n in references]
    if repeated:
        raise InputError(f"{where}: {path} has several columns named {repeated[0]!r}")
    missing = [name for name in names if name not in present]
    missing += [name for name in references if name not in lower]
    if missing:
        raise InputError(f"{where}: {path} has no column {missing[0]!r}; its columns are {present}")
    return [name for name in present if name in names or name.lower() in references]


def _read(
    path: Path, present: list[str], wanted: list[str]
) -> tuple[pa.Table, list[tuple[int, str, str]]]:
    """(the wanted columns, malformed lines as (position, reason, line))."""
    if path.name.endswith(".parquet"):
        return pq.read_table(path, columns=wanted).replace_schema_metadata(), []
    bad: list[tuple[int, str, str]] = []

    def set_aside(line: Any) -> str:
        reason = f"expected {line.expected_columns} values, got {line.actual_columns}"
        bad.append((line.number - 2, reason, line.text))  # rows count from 1 and with the header
        return "skip"

    table = pyarrow.csv.read_csv(
        path,
        # One thread, or the numbers of malformed lines are unknown.
        read_options=pyarrow.csv.ReadOptions(use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=_header(path)[1], newlines_in_values=True, invalid_row_handler=set_aside
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(present, pa.string()),
            include_columns=wanted,
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    return table, bad
