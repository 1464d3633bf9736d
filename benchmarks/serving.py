"""The service over HTTP beside a route of Ray Serve that does nothing, and under load.

    python -m benchmarks.serving --workspace WORKSPACE [--rounds 7] [--load 60] [--users 1000000]

Needs wrk (`apt-get install wrk`) and a workspace of its own: `--users` adds a synthetic snapshot
and makes it live for a while.

Beside the time of an answer stands the processor time that proxy and replica spent on it (of Milvus
too, where it is asked): on a machine that others use, waiting says more about them than about us.

One Ray Serve runs the service (one replica, keys, rate limit, audit log, as in production) and,
each in a replica of its own behind the same proxy, two that do nothing: a bare deployment, which
answers `{}` before it has the body, and a FastAPI route, which reads its JSON body first. In Ray
Serve a body costs a call from the replica back to the proxy, whoever asks for it. One connection
asks one question after the other, a few seconds of each in turn:

- *embeddings* of one user, another one each time;
- *target*: 100 users by a sentence that was encoded before, 20 sentences in turn, by Milvus as
  the contract has it; *exact*: the same by the scan; *milvus*: what of it is Milvus, asked for 100
  users by its client from this process, without HTTP and without us;
- *route* and *noop*: the same POST to the route and to the bare deployment.

Then 64 connections ask embeddings and audiences in turn; memory is the replica's anonymous memory
after a warm-up, halfway and at the end. Last, with `--users`, `target` over a synthetic matrix,
beside the scan of the same matrix alone, by the same two threads.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus import MilvusClient
from threadpoolctl import threadpool_limits

import sdk
from feature_repo import durable
from feature_repo.matrix import Matrix
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from serving import cluster
from serving.app import _milvus, build
from serving.auth import KEYS_VARIABLE
from serving.rates import RATE_VARIABLE

SENTENCES = [
    f"households that will buy {what} next month"
    for what in (
        "diapers", "cat food", "beer", "yogurt", "coffee", "frozen pizza", "ice cream", "apples",
        "pasta", "cheese", "bread", "soup", "cereal", "eggs", "chicken", "soap", "candy", "juice",
        "salad", "dog food",
    )
]  # fmt: skip
WARM_SECONDS, CONNECTIONS = 30, 64
SCRIPT = Path(__file__).with_name("serving.lua")
ROUTES = {
    "noop": "/noop", "route": "/route/ask", "embeddings": "/v1/embeddings", "target": "/v1/target",
    "exact": "/v1/target",
}  # fmt: skip
NOTHING = ("noop", "route")
_BLOCK = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each question in a round")
    parser.add_argument("--users", type=int, default=0, help="of the synthetic snapshot; 0: none")
    parser.add_argument("--load", type=int, default=60, help="seconds under load; 0: none")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is missing; install it, e.g. with `apt-get install wrk`")
    workspace = Workspace(given.workspace)
    report: dict[str, Any] = {"load_average": os.getloadavg(), "cpus": os.cpu_count()}
    with served(workspace) as (address, key):
        ask = Wrk(address, key, questions(workspace))
        report |= one_by_one(ask, given.rounds, given.seconds, milvus_alone(workspace))
        if given.load:
            report["load"] = under_load(ask, given.load)
        if given.users:
            with large_snapshot(workspace, given.users) as matrix:
                report["large"] = beside_the_scan(ask, matrix, given.rounds, given.seconds)
    report["load_average_after"] = os.getloadavg()
    print(json.dumps(report, indent=1))


@contextmanager
def served(workspace: Workspace) -> Iterator[tuple[str, str]]:
    """The service and the deployment that does nothing, in one Ray Serve; address and key."""
    key, port = secrets.token_hex(32), _free_port()
    os.environ[KEYS_VARIABLE] = f"{key}:read"
    os.environ[RATE_VARIABLE] = "1000000/second"  # counted as always, and never reached
    cluster.set_environment()
    application = build({"workspace": str(workspace.root)})
    with ExitStack() as stack:
        stack.enter_context(_milvus(workspace))
        address = stack.enter_context(
            cluster.served(
                application, host="127.0.0.1", port=port, replicas=3, listen=lambda: None
            )
        )
        _serve_nothing()
        yield address, key


def _serve_nothing() -> None:
    from fastapi import FastAPI
    from ray import serve
    from starlette.responses import Response

    from serving.replica import MAX_ONGOING, MAX_QUEUED

    async def bare(self: Any, request: Any) -> Response:
        return Response(b"{}", media_type="application/json")

    routes = FastAPI()

    @routes.post("/ask")
    async def nothing(body: dict[str, Any]) -> dict[str, Any]:
        return {}

    made = {"noop": type("Bare", (), {"__call__": bare}),
            "route": serve.ingress(routes)(type("Route", (), {}))}  # fmt: skip
    for name in NOTHING:
        deployment = serve.deployment(
            made[name], name=name, ray_actor_options={"num_cpus": 0.1},
            max_ongoing_requests=MAX_ONGOING, max_queued_requests=MAX_QUEUED,
            logging_config={"enable_access_log": False, "log_level": "WARNING"},
        )  # fmt: skip
        serve.run(deployment.bind(), name=name, route_prefix=f"/{name}")


def questions(workspace: Workspace) -> dict[str, list[str]]:
    """Bodies by question."""
    manifest = SnapshotStore(workspace).live()
    users = pq.read_table(workspace.root / manifest.users)["user_id"].to_pylist()
    picked = np.random.default_rng(0).choice(users, min(500, len(users)), replace=False)
    embeddings = [json.dumps({"user_ids": [user]}) for user in picked.tolist()]
    target = [json.dumps({"text": text, "size": 100}) for text in SENTENCES]
    exact = [json.dumps({"text": text, "size": 100, "exact": True}) for text in SENTENCES]
    return {
        "noop": target,
        "route": target,
        "embeddings": embeddings,
        "target": target,
        "exact": exact,
    }


class Wrk:
    """Runs wrk with questions by name."""

    def __init__(self, address: str, key: str, bodies: dict[str, list[str]]) -> None:
        self.address, self.key, self.bodies = address, key, bodies

    def __call__(self, names: list[str], seconds: float, connections: int = 1) -> dict[str, Any]:
        """Ask these questions in turn; latencies in microseconds."""
        longest = max(len(self.bodies[name]) for name in names)
        asked = [
            (ROUTES[name], self.bodies[name][n % len(self.bodies[name])])
            for n in range(longest)
            for name in names
        ]
        rows = "\n".join(f"{path} {body}" for path, body in asked)
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(f"{self.key}\n{rows}\n")
            file.flush()
            command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s"]
            done = subprocess.run(
                [*command, "-s", str(SCRIPT), self.address, "--", file.name],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
        line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
        result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
        return result


def milvus_alone(workspace: Workspace) -> Callable[[], float]:
    """Milliseconds of one search for 100 users of the live snapshot, the median of twenty."""
    manifest = SnapshotStore(workspace).live()
    collection, matrix = (
        manifest.entry("fused").collection,
        Matrix.open(manifest, "fused", workspace),
    )
    client = MilvusClient(json.loads((workspace.milvus / "address").read_bytes())["uri"])
    client.load_collection(collection)
    queries = np.random.default_rng(0).standard_normal((20, matrix.vectors.shape[1]))

    def milliseconds() -> float:
        taken = []
        for query in queries.astype(np.float32):
            started = time.perf_counter()
            client.search(collection, [query], "", limit=100, anns_field="embedding")
            taken.append((time.perf_counter() - started) * 1e3)
        return statistics.median(taken)

    return milliseconds


def one_by_one(
    ask: Wrk, rounds: int, seconds: float, milvus: Callable[[], float]
) -> dict[str, Any]:
    """Medians of each question over the rounds, in ms, and as multiples of the no-op."""
    for name in ROUTES:
        ask([name], 2 * seconds)  # warm, and every sentence encoded
    found: dict[str, list[float]] = {name: [] for name in ROUTES}
    spent: dict[str, list[float]] = {name: [] for name in ROUTES}
    alone: list[float] = []
    for _ in range(rounds):
        alone.append(milvus())
        for name, medians in found.items():
            before = _processor_seconds(name)
            result = ask([name], seconds)
            spent[name].append(
                (_processor_seconds(name) - before) / max(result["requests"], 1) * 1e3
            )
            if set(result["statuses"]) != {"200"}:
                raise SystemExit(f"{name} answered {result['statuses']}")
            medians.append(result["p50"] / 1e3)
    return {
        "ms": {name: statistics.median(each) for name, each in found.items()},
        "milvus_ms": statistics.median(alone),
        **{f"over_{nothing}": _over(found, nothing) for nothing in NOTHING},
        "processor_ms": {name: statistics.median(each) for name, each in spent.items()},
        **{f"processor_over_{nothing}": _over(spent, nothing) for nothing in NOTHING},
        "rounds_ms": found,
    }


def _over(found: dict[str, list[float]], nothing: str) -> dict[str, float]:
    """Each question as a multiple of one that does nothing: the median over the rounds."""
    return {
        name: statistics.median(a / b for a, b in zip(each, found[nothing], strict=True))
        for name, each in found.items()
    }


def _processor_seconds(name: str) -> float:
    """What the processes that answer a question have spent so far."""
    replica = f"ServeReplica:{name if name in NOTHING else 'openfound'}"
    names = ["ray::ProxyActor", replica, *(["milvus_server"] if name == "target" else [])]
    times = [process.cpu_times() for process in map(_process, names)]
    return sum(each.user + each.system for each in times)


def under_load(ask: Wrk, seconds: int) -> dict[str, Any]:
    """64 connections, embeddings and audiences in turn."""
    ask(["embeddings", "target"], WARM_SECONDS, CONNECTIONS)
    replica = _process("ServeReplica:openfound")
    memory: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1):
            memory.append(_anonymous_mb(replica))

    before = _anonymous_mb(replica)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = ask(["embeddings", "target"], seconds, CONNECTIONS)
    finally:
        done.set()
        watcher.join()
    half = memory[len(memory) // 2 :]
    return {
        **result,
        "per_second": result["requests"] / result["seconds"],
        "memory_mb": {"before": before, "halfway": half[0], "after": _anonymous_mb(replica),
                      "slope_mb_per_minute": float(np.polyfit(range(len(half)), half, 1)[0] * 60)},
    }  # fmt: skip


@contextmanager
def large_snapshot(workspace: Workspace, users: int) -> Iterator[Matrix]:
    """A synthetic snapshot of the live one's space, live meanwhile; removed afterwards."""
    store = SnapshotStore(workspace)
    before = store.live()
    name = store.new_id(before.space, before.as_of)
    staged, home = store.stage(name), f"snapshots/{name}"
    entry = before.entry("fused")
    generator = np.random.default_rng(0)
    path = staged / "fused.npy"
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (users, entry.dim))
    for start in range(0, users, _BLOCK):
        shape = (min(_BLOCK, users - start), entry.dim)
        vectors[start : start + _BLOCK] = generator.standard_normal(shape, dtype=np.float32)
    vectors.flush()
    pq.write_table(pa.table({"user_id": [f"u{n:08}" for n in range(users)]}), staged / "u.parquet")
    kind = entry.model_copy(
        update={"count": users, "cold": 0, "parts": [], "matrix": f"{home}/fused.npy",
                "matrix_sha256": durable.sha256(path)}
    )  # fmt: skip
    manifest = before.model_copy(
        update={"id": name, "num_users": users, "users": f"{home}/u.parquet", "synthetic": True,
                "kinds": {"fused": kind}, "facts": None, "calibration": None, "reports": []}
    )  # fmt: skip
    store.commit(manifest)
    try:
        store.activate(name)
        yield Matrix.open(manifest, "fused", workspace)
    finally:
        store.activate(before.id)
        shutil.rmtree(workspace.snapshots / name)


def beside_the_scan(ask: Wrk, matrix: Matrix, rounds: int, seconds: float) -> dict[str, Any]:
    """Exact audiences of 100 over HTTP, the no-op, and the scan alone on one thread, in turn."""
    _wait_for_answers_from(ask.address, ask.key, len(matrix.users))
    query = np.random.default_rng(1).standard_normal(matrix.vectors.shape[1]).astype(np.float32)
    ask(["exact"], 2 * seconds)
    found: dict[str, list[float]] = {"exact": [], "noop": [], "scan": []}
    for _ in range(rounds):
        for name in ("exact", "noop"):
            found[name].append(ask([name], 3 * seconds)["p50"] / 1e3)
        with threadpool_limits(1):  # as Ray has it in replicas
            started = time.perf_counter()
            matrix.scan(query, 100)
            found["scan"].append((time.perf_counter() - started) * 1e3)
    medians = {name: statistics.median(each) for name, each in found.items()}
    return {"users": len(matrix.users), "ms": medians, "rounds_ms": found,
            "over_noop_ms": medians["exact"] - medians["noop"]}  # fmt: skip


def _wait_for_answers_from(address: str, key: str, population: int) -> None:
    asked = {"text": SENTENCES[0], "size": 1, "exact": True}
    for _ in range(600):
        with sdk.Client(address, api_key=key) as client:
            if client.target(**asked).meta.population == population:
                return
        time.sleep(0.2)
    raise SystemExit("the synthetic snapshot does not answer")


@cache
def _process(name: str) -> psutil.Process:
    for process in psutil.Process().children(recursive=True):
        if name in f"{process.name()} {' '.join(process.cmdline())}":
            return process
    raise SystemExit(f"there is no process {name}")


def _anonymous_mb(process: psutil.Process) -> float:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    main()
