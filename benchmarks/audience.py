"""An exact, filtered audience against one plain product in memory, and against Milvus Lite.

    python benchmarks/audience.py [--users 1000000] [--dim 384] [--size 100000] [--milvus-users N]

Synthetic users with random vectors, a profile and purchases of 90 days. Three ways to the same
audience of ``size`` users who pass two filters (plan is "pro", bought C7 in the last 30 days not at
all), timed in turn and reported as medians:

- *engine*: rules by DuckDB over the snapshot's facts, the blocked scan of the memory-mapped matrix,
  the cut, and the ids as an Arrow array; with and without remembered masks;
- *plain*: ``vectors @ query`` over the same matrix in memory, and a partial sort of all scores;
- *Milvus Lite*: one search with the same filters as metadata, its limit raised to ``size`` (a
  Milvus server would refuse more than 16,384).

Peak memory beyond the mapped matrix is anonymous memory (RssAnon), watched every millisecond, of a
fresh process that opens the snapshot and answers once: all of it, Python and libraries included,
and its growth since they were imported.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.facts import write_sorted
from feature_repo.matrix import Matrix
from feature_repo.rule_filter import RuleFilter
from feature_repo.rules import All, Behaviour, Not, Profile

RULE = All((Profile("plan", "is", "pro"), Not(Behaviour("bought", "C7", days=30))))
_BLOCK = 50_000


def make(directory: Path, users: int, dim: int) -> tuple[Matrix, RuleFilter]:
    """Write a matrix and facts of ``users`` synthetic users, and open them as a snapshot does."""
    path = directory / "fused.npy"
    generator = np.random.default_rng(0)
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(users, dim))
    for start in range(0, users, _BLOCK):
        shape = (min(_BLOCK, users - start), dim)
        vectors[start : start + _BLOCK] = generator.standard_normal(shape, dtype=np.float32)
    vectors.flush()
    del vectors
    place = directory / "facts"
    place.mkdir()
    plans = np.array(["free", "pro", "pro"])[generator.integers(0, 3, users)]
    pq.write_table(pa.table({"plan": plans}), place / "profiles.parquet", row_group_size=1 << 17)
    names = [{"subject": n, "verb": "bought", "name": f"C{n}", "num_users": 0} for n in range(50)]
    pq.write_table(pa.Table.from_pylist(names), place / "subjects.parquet")
    with duckdb.connect() as con:
        facts = con.sql(
            f"""SELECT (hash(n) % 50)::INT AS subject, (hash(n, 1) % 90)::INT AS day,
                (hash(n, 2) % {users})::INT AS row, 1::INT AS count, 2.5::DOUBLE AS amount
            FROM range({5 * users}) AS r(n) ORDER BY ALL"""
        )
        write_sorted(facts, place / "behaviour.parquet")
    ids = pa.array([f"u{n:08}" for n in range(users)])
    pq.write_table(pa.table({"user_id": ids}), directory / "users.parquet")
    return opened(directory)


def opened(directory: Path) -> tuple[Matrix, RuleFilter]:
    """What :func:`make` wrote, as the service opens a snapshot."""
    ids = pq.read_table(directory / "users.parquet")["user_id"].combine_chunks()
    matrix = Matrix(np.load(directory / "fused.npy", mmap_mode="r"), ids)
    return matrix, RuleFilter(ids, directory / "facts", "benchmark")


def engine(matrix: Matrix, rules: RuleFilter, query: np.ndarray, size: int) -> pa.Array:
    """The audience, exactly: ids, best first."""
    allowed = rules.allowed(RULE)
    scores = matrix.scores(query)
    return matrix.users.take(pa.array(matrix.best(scores, size, allowed=allowed)))


def plain(vectors: np.ndarray, query: np.ndarray, size: int) -> np.ndarray:
    """One matrix-vector product and a partial sort: no filter, no ids, no ties."""
    scores = vectors @ query
    best = np.argpartition(-scores, size)[:size]
    return best[np.argsort(-scores[best])]


def milvus(directory: Path, matrix: Matrix, rules: RuleFilter, users: int) -> Callable[..., Any]:
    """Load the first ``users`` into Milvus Lite; returns a search for (query, size)."""
    from feature_repo import vectors as store
    from feature_repo.milvus_server import milvus as server
    from feature_repo.settings import Workspace

    store._SECONDS = 600.0  # Lite compacts within an insert: half a minute at 200,000 users
    stack = server(Workspace(directory))
    vectors = store.Vectors(stack.__enter__())
    ids = matrix.users[:users].to_pylist()
    pro = rules.allowed(RULE.rules[0])[:users]
    idle = rules.allowed(RULE.rules[1])[:users]
    columns = pa.table({"user_id": ids, "pro": pro, "idle": idle})
    vectors.create(
        "bench", ids, np.asarray(matrix.vectors[:users]), space="b", as_of=datetime.now(UTC),
        metadata=columns,
    )  # fmt: skip

    def search(query: np.ndarray, size: int) -> list[str]:
        hits = vectors._client.search(
            "bench", data=[query], anns_field="embedding", limit=size, output_fields=[],
            filter="pro == true and idle == true", timeout=600,
        )[0]  # fmt: skip
        return [hit.id for hit in hits]

    search.close = lambda: stack.__exit__(None, None, None)  # type: ignore[attr-defined]
    return search


def timed(work: Callable[[], Any], repeat: int) -> float:
    """Median seconds of ``repeat`` calls, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def cold(directory: Path, dim: int, size: int) -> dict[str, float]:
    """Megabytes of anonymous memory of this process, which has done nothing yet, at most."""
    imported = _anonymous()

    def work() -> None:
        matrix, rules = opened(directory)
        query = np.random.default_rng(1).standard_normal(dim).astype(np.float32)
        assert len(engine(matrix, rules, query, size)) == size

    peak = peak_memory(work)
    return {"cold_peak_megabytes": round(peak / 1e6, 1),
            "cold_growth_megabytes": round((peak - imported) / 1e6, 1)}  # fmt: skip


def in_fresh_process(directory: Path, dim: int, size: int) -> dict[str, float]:
    """:func:`cold`, in a process of its own."""
    words = [sys.executable, __file__, "--cold", str(directory), "--dim", str(dim)]
    run = subprocess.run([*words, "--size", str(size)], check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(run.stdout)
    return found


def peak_memory(work: Callable[[], Any]) -> int:
    """Bytes of anonymous memory that the process had at most while ``work`` ran."""
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, _anonymous())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return peak


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell RssAnon")


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--milvus-users", type=int, default=1_000_000, help="0 leaves Milvus out")
    parser.add_argument("--cold", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cold:
        print(json.dumps(cold(given.cold, given.dim, given.size)))
        return
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        matrix, rules = make(directory, given.users, given.dim)
        query = np.random.default_rng(1).standard_normal(given.dim).astype(np.float32)
        forget = rules._kept.clear
        found = engine(matrix, rules, query, given.size)
        in_memory = [np.array(matrix.vectors)]
        result = {
            "users": given.users, "dim": given.dim, "size": len(found),
            "eligible": int(rules.allowed(RULE).sum()), "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            **in_fresh_process(directory, given.dim, given.size),
            "engine_ms": _ms(
                lambda: (forget(), engine(matrix, rules, query, given.size)), given.repeat
            ),
            "engine_remembered_ms": _ms(
                lambda: engine(matrix, rules, query, given.size), given.repeat
            ),
            "plain_ms": _ms(lambda: plain(in_memory[0], query, given.size), given.repeat),
        }  # fmt: skip
        in_memory.clear()
        result["engine_over_plain"] = round(result["engine_ms"] / result["plain_ms"], 2)
        print(json.dumps(result), file=sys.stderr, flush=True)  # the rest takes minutes
        if given.milvus_users:
            users = min(given.milvus_users, given.users)
            size = given.size * users // given.users
            started = time.perf_counter()
            search = milvus(directory, matrix, rules, users)
            result["milvus_load_s"] = round(time.perf_counter() - started, 1)
            try:
                result |= {"milvus_users": users, "milvus_size": len(search(query, size))}
                result["milvus_ms"] = _ms(lambda: search(query, size), 3)
            finally:
                search.close()  # type: ignore[attr-defined]
            small = Matrix(matrix.vectors[:users], matrix.users[:users])
            allowed = rules.allowed(RULE)[:users]
            result["engine_same_users_ms"] = _ms(
                lambda: small.scan(query, size, allowed=allowed), given.repeat
            )
    print(json.dumps(result, indent=2))


def _ms(work: Callable[[], Any], repeat: int) -> float:
    return round(1_000 * timed(work, repeat), 1)


if __name__ == "__main__":
    main()
