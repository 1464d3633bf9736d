"""``openfound submit`` against a real Ray cluster, from a process that has no Ray."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

SOURCE = "synthetic:users=60,seed=0,weeks=20"
START_SECONDS, STOP_SECONDS = 120, 30

# The command line as it is, in a process where Ray cannot be imported.
_CLIENT = """
import sys
sys.modules["ray"] = None
from sdk.cli import main
try:
    main()
finally:
    del sys.modules["ray"]
    heavy = {"ray", "torch", "feast", "duckdb", "pymilvus"} & {n.split(".")[0] for n in sys.modules}
    print("imported:", sorted(heavy), file=sys.stderr)
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Cluster:
    address: str
    environment: dict[str, str]

    def openfound(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", _CLIENT, *arguments], capture_output=True, text=True,
            timeout=400, env=self.environment,
        )  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    """Ours, without anything of the developer's own Ray; no token, the cluster is on loopback."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "OPENFOUND_"))}
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    own = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0",
           "RAY_memory_monitor_refresh_ms": "0"}  # fmt: skip
    return {**kept, "PATH": path, "PYTHONPATH": str(root), **own, **more}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """``ray start --head --block``; it and all that it started are ended by their ids."""
    # Short: the paths of Ray's sockets must stay below 107 characters.
    home = tmp_path_factory.mktemp("r")
    address = f"http://127.0.0.1:{(dashboard := free_port())}"
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2",
        "--node-ip-address=127.0.0.1", f"--port={free_port()}", "--include-dashboard=true",
        f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={free_port()}",
        f"--ray-client-server-port={free_port()}", "--object-store-memory=100000000",
        f"--temp-dir={home}", "--disable-usage-stats",
    ]  # fmt: skip
    log = home / "start.log"
    with log.open("wb") as file:
        head = subprocess.Popen(
            command, stdout=file, stderr=file, env=environment(), start_new_session=True
        )
    started: dict[int, psutil.Process] = {}
    try:
        wait_until_jobs_are_taken(address, head, log)
        yield Cluster(address, environment(RAY_API_SERVER_ADDRESS=address))
    finally:
        started |= {p.pid: p for p in psutil.Process(head.pid).children(recursive=True)}
        head.terminate()
        try:
            head.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            head.kill()
            head.wait()
        _, alive = psutil.wait_procs(list(started.values()), timeout=10)
        for process in alive:
            process.kill()


def wait_until_jobs_are_taken(address: str, head: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(f"{address}/api/jobs/", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert head.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.5)


def test_a_job_runs_on_the_cluster_and_its_log_is_followed(
    cluster: Cluster, tmp_path: Path
) -> None:
    workspace = tmp_path / "a workspace"
    done = cluster.openfound(
        "submit", "--submission-id", "build-1", "build_features", "--source", SOURCE,
        "--as-of", "2024-04-01", "--workspace", str(workspace),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "user-weeks in behaviour_weekly" in done.stdout  # the job's own words
    assert "SUCCEEDED" in done.stderr and "imported: []" in done.stderr
    parts = list((workspace / "features").rglob("*.parquet"))
    views = {
        "behaviour_weekly", "profile_weekly", "search_weekly", "habits_weekly", "purchases_weekly",
    }  # fmt: skip
    assert {path.parent.name for path in parts} == views

    status = cluster.openfound("job", "status", "build-1")
    assert "SUCCEEDED" in status.stdout and "ray_jobs.build_features" in status.stdout
    before = parts[0].stat().st_mtime_ns
    again = cluster.openfound(
        "submit", "--submission-id", "build-1", "build_features", "--source", SOURCE,
        "--as-of", "2024-04-01", "--workspace", str(workspace),
    )  # fmt: skip
    assert again.returncode == 0 and parts[0].stat().st_mtime_ns == before  # it ran once


def test_a_job_that_fails_gives_its_reason_and_a_code(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.openfound(
        "submit", "build_features", "--source", SOURCE, "--as-of", "1999-01-01", "--workspace",
        str(tmp_path / "workspace"),
    )  # fmt: skip
    assert done.returncode == 1
    assert "as_of=1999-01-01 is before the data" in done.stdout
    assert "FAILED" in done.stderr and "exit code 2" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr and "imported: []" in done.stderr


def test_a_job_nobody_knows_is_not_found(cluster: Cluster) -> None:
    done = cluster.openfound("job", "status", "never-submitted")
    assert done.returncode == 2 and "never-submitted" in done.stderr
