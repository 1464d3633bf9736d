"""How the console feels with many users: first paint, sentence → audience, slider, page weight.

    python -m benchmarks.console --workspace WORKSPACE --users 200000 --scratch DIR

The users are synthetic: the live snapshot's, repeated with noise, under the real text tower and the
real rules. Measured in headless Chromium (Debian's `chromium`) against a service in its own
process; the interface's own time is measured beside it, over HTTP and without a browser.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import durable
from feature_repo.embedding_map import draw_map
from feature_repo.facts import entry_of
from feature_repo.manifest import Manifest
from feature_repo.matrix import Matrix
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore

KEY = "benchmark-key"
KIND = "fused"
SENTENCE = "will buy cat food, not bought in the last 7 days"
DAYS = 14  # of behaviour that are repeated
REPEATS = 7
NOISE = 0.05

_SERVE = """
import sys
from pathlib import Path
import torch, uvicorn
from feature_repo.settings import Workspace
from serving.api import create_app
from serving.audience_store import AudienceStore
from serving.audiences import SavedAudiences
from serving.auth import ApiKeys
from serving.database import open_database
from serving.replica import build_targeting
torch.set_num_threads(1)
place = Workspace(Path(sys.argv[1]))
store = AudienceStore(place, open_database(place))
targeting = build_targeting(place, members=store.member_ids)
app = create_app(targeting, ApiKeys.parse(sys.argv[3]), SavedAudiences(targeting, store))
uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""
_SLIDER = """
async () => {
  const slider = document.querySelector("#size"), times = [];
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  for (let step = 0; step < 40; step += 1) {
    await painted();
    const began = performance.now();
    slider.value = 100 + step * 20;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await painted();
    times.push(performance.now() - began);
  }
  return times;
}
"""
_WEIGHT = """
() => performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
  .map((one) => [new URL(one.name).pathname, one.encodedBodySize])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--scratch", type=Path, required=True, help="a directory to build in")
    given = parser.parse_args()
    scratch = enlarge(Workspace(given.workspace), Workspace(given.scratch), given.users)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", _SERVE, str(scratch.root), str(port), KEY]
    service = subprocess.Popen(command)
    try:
        measure(f"http://127.0.0.1:{port}", given.users)
    finally:
        service.terminate()
        service.wait()


def enlarge(source: Workspace, target: Workspace, users: int) -> Workspace:
    """A workspace whose one snapshot holds ``users`` synthetic users; kept if it is there."""
    store = SnapshotStore(target)
    try:
        if store.live().num_users == users:
            return target
    except Exception:  # whatever is there is replaced
        shutil.rmtree(target.root, ignore_errors=True)
    target.root.mkdir(parents=True, exist_ok=True)
    for name in ("checkpoints", "cache"):
        (target.root / name).symlink_to((source.root / name).resolve())
    manifest = SnapshotStore(source).live()
    staged = store.stage(store.new_id(manifest.space, manifest.as_of))
    (staged / "facts").mkdir(parents=True)
    ids = [f"synthetic-{n:07d}" for n in range(users)]
    pq.write_table(pa.table({"user_id": ids}), staged / "users.parquet")
    old = Matrix.open(manifest, KIND, source)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(old.vectors), users)
    spread = NOISE * old.vectors.std(axis=0)
    vectors = old.vectors[rows]
    for start in range(0, users, 50_000):
        block = vectors[start : start + 50_000]
        block += spread * rng.standard_normal(block.shape, dtype=np.float32)
    Matrix.write(staged / f"matrix/{KIND}.npy", vectors)
    _repeat_facts(source, manifest, rows, staged / "facts")
    home = f"snapshots/{staged.name}"
    entry = manifest.entry(KIND).model_copy(
        update={
            "count": users, "cold": 0, "parts": [], "matrix": f"{home}/matrix/{KIND}.npy",
            "matrix_sha256": durable.sha256(staged / f"matrix/{KIND}.npy"),
        }
    )  # fmt: skip
    store.commit(
        manifest.model_copy(
            update={
                "id": staged.name, "kinds": {KIND: entry}, "num_users": users, "synthetic": True,
                "users": f"{home}/users.parquet", "created_at": datetime.now(UTC), "reports": [],
                "facts": entry_of(staged / "facts", f"{home}/facts"), "calibration": None,
            }
        )
    )  # fmt: skip
    store.activate(staged.name)
    print("drawing the map …")
    draw_map(target, store.live(), KIND)
    return target


def _repeat_facts(source: Workspace, manifest: Manifest, rows: np.ndarray, place: Path) -> None:
    """The facts of the drawn users, of the last days only."""
    facts = manifest.facts
    assert facts is not None
    profiles = pq.read_table(source.root / facts.profiles.path)
    pq.write_table(profiles.take(pa.array(rows)), place / "profiles.parquet")
    shutil.copy(source.root / facts.subjects.path, place / "subjects.parquet")
    drawn = pa.table({"old": rows.astype(np.int32), "row": np.arange(len(rows), dtype=np.int32)})
    with duckdb.connect(config={"threads": 2}) as con:
        con.register("drawn", drawn)
        con.execute(
            f"COPY (SELECT b.subject, b.day, d.row, b.count, b.amount "
            f"FROM read_parquet('{source.root / facts.behaviour.path}') b "
            f"JOIN drawn d ON d.old = b.row WHERE b.day < {DAYS} "
            f"ORDER BY b.subject, b.day, d.row) TO '{place / 'behaviour.parquet'}' "
            f"(FORMAT parquet, ROW_GROUP_SIZE 65536)"
        )


def measure(address: str, users: int) -> None:
    """Print what the interface takes, and what the page takes."""
    from playwright.sync_api import sync_playwright

    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=address, headers=headers, timeout=600, trust_env=False) as client:
        _wait(client)
        own = _api(client)
        print(f"users: {users:,} (synthetic)")
        print(f"interface: plan, then reach and target beside it: {_ms(own)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(reduced_motion="reduce")
        page.set_default_timeout(600_000)
        page.goto(f"{address}/sign-in")
        page.fill("#key", KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector("#find:enabled")
        paint = []
        for _ in range(REPEATS):
            page.goto(address)
            page.wait_for_selector("#find:enabled")
            entries = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            paint.append(page.evaluate(entries))
        print(f"first contentful paint: {_ms(paint)}")
        page.wait_for_selector("#map circle, #map:empty", state="attached")
        taken = [_ask(page) for _ in range(REPEATS)]
        print(f"sentence → audience on the page: {_ms(taken)}; "
              f"beyond the interface: {median(taken) - median(own):.0f} ms")  # fmt: skip
        page.wait_for_selector("#map circle.lit", state="attached")
        slid = page.evaluate(_SLIDER)
        print(f"slider → updated curve, painted: {_ms(slid)}, worst {max(slid):.0f} ms")
        sizes = page.evaluate(_WEIGHT)
        script = sum(size for name, size in sizes if name.startswith("/console/d3/"))
        rest = sum(size for name, size in sizes) - script
        print(f"weight: {rest / 1e3:,.0f} kB over the wire, and {script / 1e3:,.0f} kB of D3")
        browser.close()


def _wait(client: httpx.Client) -> None:
    while True:
        try:
            client.get("/healthz").raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(1)


def _api(client: httpx.Client) -> list[float]:
    """The interface's own time for what the page asks to show an audience, in ms."""

    def once() -> None:
        plan = client.post("/v1/plan", json={"text": SENTENCE}).raise_for_status().json()
        asked = {"text": plan["text"], "rules": plan["rules"]}
        reach = client.post("/v1/reach", json=asked).raise_for_status().json()
        size = max(1, reach["eligible"] // 20)
        client.post(
            "/v1/target", json=asked | {"size": size, "split": False}
        ).raise_for_status().read()

    once()
    return [_took(once) for _ in range(REPEATS)]


def _ask(page: Any) -> float:
    page.goto(page.url)
    page.wait_for_selector("#find:enabled")
    page.fill("#sentence", SENTENCE)

    def asked() -> None:
        page.click("#find")
        page.wait_for_selector("#members .member")

    return _took(asked)


def _took(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def _ms(times: list[float]) -> str:
    return f"{median(times):.0f} ms (median of {len(times)})"


if __name__ == "__main__":
    main()
