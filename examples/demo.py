"""From raw events to an audience, and then: what did those people do next?

    make demo                       real receipts (Complete Journey), as of 2017-09-11
    make demo SOURCE=synthetic      a made-up world with clicks, mini-programs and searches too
    make serve                      the same, and the service stays up

Builds the past, asks a few sentences through the SDK over HTTP, and checks each audience against
the four weeks that follow, which nothing in the build has seen.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pyarrow.parquet as pq
from rich.table import Table

import sdk
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.sources import default_as_of
from feature_repo.store import FeatureStore
from feature_repo.transforms import micros, open_tables
from ray_jobs import metrics, pipeline, visualise
from ray_jobs.build_features import read_dataset
from ray_jobs.command import console

SOURCES = {"complete-journey": "complete-journey", "synthetic": "synthetic:users=2000,seed=0"}
PRESET = "quick"  # as good as best on these receipts, ten minutes in all
HORIZON = timedelta(days=28)
PAST = timedelta(days=182)
SIZE = 100


@dataclass(frozen=True)
class Demand:
    """A sentence, and the category by which we see afterwards whether it was right."""

    text: str
    category: str


DEMANDS = {
    "complete-journey": [
        Demand("households that will buy diapers next month", "DIAPERS & DISPOSABLES"),
        Demand("people who will buy cat food in the next four weeks", "CAT FOOD"),
        Demand("beer drinkers who are likely to stock up soon", "BEERS/ALES"),
        Demand("will buy frozen pizza in the next four weeks", "FROZEN PIZZA"),
        Demand("households that need baby food", "BABY FOODS"),
    ],
    "synthetic": [],  # the world's own topics, see synthetic_demands
}


def main() -> None:
    """Build, serve, ask, check, stop."""
    arguments = _arguments()
    started = perf_counter()
    workspace = Workspace(Path(arguments.workspace or f"workspace/{arguments.source}"))
    spec = SOURCES[arguments.source]
    as_of = default_as_of(spec)
    if arguments.source == "synthetic":
        console.rule("[yellow]SYNTHETIC data: a made-up world, no real people")
    console.rule(f"1 · build as of {as_of:%Y-%m-%d} with Ray Train workers")
    pipeline.run(
        pipeline.Pipeline(
            workspace=str(workspace.root),
            source=spec,
            as_of=as_of,
            workers=arguments.workers,
            preset=PRESET,
        )
    )
    console.rule("2 · serve")
    with Service(workspace, arguments.port) as service:
        # The service loads for half a minute on one core; the map needs the other.
        figure = draw(workspace, as_of, synthetic=arguments.source == "synthetic")
        service.wait()
        console.rule("3 · ask, and look at what happened next")
        demands = DEMANDS[arguments.source] or synthetic_demands(spec)
        rows = [show(workspace, as_of, demand) for demand in demands]
        compare(rows, synthetic=arguments.source == "synthetic")
        _files(workspace, figure, started)
        if arguments.serve:
            service.stay()
    console.print("demo: ok")


class Service:
    """``python -m serving.app`` as a child process with a key made for it."""

    def __init__(self, workspace: Workspace, port: int):
        self.workspace, self.port = workspace, port or _free_port()
        self.key = os.environ.get("OPENFOUND_API_KEY") or secrets.token_urlsafe(24)
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Service:
        log = self.workspace.root / "service.log"
        self._log = log.open("wb")
        self._child = subprocess.Popen(
            [sys.executable, "-m", "serving.app", "--workspace", str(self.workspace.root),
             "--port", str(self.port)],
            env={**os.environ, "OPENFOUND_API_KEYS": self.key}, stdout=self._log, stderr=self._log,
            start_new_session=True,
        )  # fmt: skip
        os.environ.update(OPENFOUND_URL=self.url, OPENFOUND_API_KEY=self.key)
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            self._child.wait(timeout=30)
        self._log.close()
        console.print("  service stopped")

    def wait(self) -> None:
        """Until it answers."""
        log = self.workspace.root / "service.log"
        with console.status("starting the service"):
            self._until_ready(log)
        console.print(f"  {self.url}  (docs at {self.url}/docs, log in {log})")

    def stay(self) -> None:
        """Keep serving until Ctrl-C."""
        console.print(
            f"[bold green]serving[/] at {self.url}; in another shell:\n"
            f"  export OPENFOUND_URL={self.url} OPENFOUND_API_KEY={self.key}\n"
            '  .venv/bin/openfound target "people who will buy cat food" --size 20\n'
            "Ctrl-C stops it."
        )
        try:
            self._child.wait()
        except KeyboardInterrupt:
            console.print()

    def _until_ready(self, log: Path) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self._child.poll() is not None:
                sys.exit(f"the service ended at once; the end of {log}:\n{_tail(log)}")
            try:
                if sdk.health().status == "ok":
                    return
            except sdk.OpenFoundError:
                time.sleep(0.5)
        sys.exit(f"the service did not become ready; the end of {log}:\n{_tail(log)}")


def show(workspace: Workspace, as_of: datetime, demand: Demand) -> dict[str, Any]:
    """Ask one sentence, print the audience, and score it against what happened next."""
    audience = sdk.target(demand.text, size=SIZE)
    everyone = sdk.target(demand.text, size=10**6)
    dataset = read_dataset(workspace)
    con = open_tables(workspace.root / dataset.tables)
    after = _baskets(con, demand.category, as_of, as_of + HORIZON)
    before = _baskets(con, demand.category, as_of - PAST, as_of)
    hits = sum(user in after for user in audience.ids)
    labels = np.array([user in after for user in everyone.ids])
    base = labels.mean()
    console.print(f"\n[bold]“{demand.text}”[/]")
    console.print(
        f"  {len(audience)} of {everyone.population:,} by {audience.engine}, scores "
        f"{audience.scores[0]:.2f} … {audience.scores[-1]:.2f}; bought {demand.category} in the "
        f"next 28 days: [bold]{hits / len(audience):.0%}[/] (everybody: {base:.1%})"
    )
    table = Table(box=None, padding=(0, 2))
    for column in ("user", "score", "then", "bought before (last 26 weeks)"):
        table.add_column(column, no_wrap=True)
    for user, score in list(zip(audience.ids, audience.scores, strict=True))[:4]:
        table.add_row(user, f"{score:.2f}", "[green]yes[/]" if user in after else "no",
                      _favourites(con, user, as_of))  # fmt: skip
    console.print(table)
    con.close()
    count = np.array([before.get(user, 0) for user in everyone.ids], float)
    return {
        "category": demand.category, "base": base, "hit_rate": hits / len(audience),
        "sentence": metrics.auc(np.array(everyone.scores), labels),
        "count": metrics.auc(count, labels),
    }  # fmt: skip


def compare(rows: list[dict[str, Any]], *, synthetic: bool) -> None:
    """Zero-shot AUC of the sentences against the past count of the category."""
    label = " (synthetic)" if synthetic else ""
    table = Table(title=f"\nZero-shot AUC{label}: who buys in the 28 days after?",
                  title_justify="left")  # fmt: skip
    for column in ("behaviour", "base rate", f"hits in {SIZE}", "sentence", "past 26-week count"):
        table.add_column(column, justify="left" if column == "behaviour" else "right")
    for row in rows:
        table.add_row(row["category"], f"{row['base']:.1%}", f"{row['hit_rate']:.0%}",
                      f"{row['sentence']:.3f}", f"{row['count']:.3f}")  # fmt: skip
    table.add_section()
    table.add_row("mean", "", "", *(f"{metrics.mean(r[k] for r in rows):.3f}"
                                    for k in ("sentence", "count")))  # fmt: skip
    console.print(table)


def draw(workspace: Workspace, as_of: datetime, *, synthetic: bool) -> Path:
    """The embedding space as a map, coloured by each user's main department."""
    manifest = SnapshotStore(workspace).live()
    users = pq.read_table(workspace.root / manifest.users)["user_id"].to_pylist()
    store = FeatureStore(workspace)
    rows = store.online("profile_weekly", users, ["top_department"]).to_pylist()
    department = {row["user_id"]: row["top_department"] or "nothing lately" for row in rows}
    label = "synthetic users" if synthetic else "households"
    return visualise.embedding_map(
        np.load(workspace.root / manifest.entry("fused").matrix),
        [department.get(user, "nothing lately") for user in users],
        workspace.reports / "embedding_map.png",
        title=f"{len(users):,} {label}, fused embedding as of {as_of:%Y-%m-%d}\n"
        "coloured by the department bought from most (t-SNE)",
    )


def synthetic_demands(spec: str) -> list[Demand]:
    """One demand per modality that gives the interest away, in words no event uses."""
    from feature_repo.sources.synthetic_world import truth

    chosen: dict[tuple[str, ...], Demand] = {}
    for topic in truth(spec).topics:
        chosen.setdefault(topic.visible, Demand(topic.demands[0], topic.name))
    return list(chosen.values())


def _baskets(con: Any, category: str, start: datetime, end: datetime) -> dict[str, int]:
    rows = con.sql(
        """SELECT user_id, count(DISTINCT basket_id) FROM known_events JOIN items USING (item_id)
        WHERE source = 'bill' AND list_contains(categories, $category)
          AND epoch_us(timestamp) >= $start AND epoch_us(timestamp) < $end GROUP BY user_id""",
        params={"category": category, "start": micros(start), "end": micros(end)},
    ).fetchall()
    return dict(rows)


def _favourites(con: Any, user: str, as_of: datetime) -> str:
    rows = con.sql(
        """SELECT lower(line), count(DISTINCT basket_id) AS n
        FROM known_events JOIN item_lines USING (item_id)
        WHERE user_id = $user AND source = 'bill' AND seen < $end AND seen >= $start
        GROUP BY ALL ORDER BY n DESC, 1 LIMIT 3""",
        params={"user": user, "start": micros(as_of - PAST), "end": micros(as_of)},
    ).fetchall()
    return ", ".join(f"{_short(line)} ×{n}" for line, n in rows) or "nothing"


def _short(line: str, width: int = 20) -> str:
    """The finest part of a taxonomy line, cut to fit beside two others."""
    name = line.rsplit(": ", 1)[-1]
    return name if len(name) <= width else name[: width - 1] + "…"


def _files(workspace: Workspace, figure: Path, started: float) -> None:
    live = SnapshotStore(workspace).live_id()
    console.rule(f"4 · made in {perf_counter() - started:.0f} s")
    for path, what in (
        (workspace.root / "snapshots" / str(live), "the live snapshot: embeddings, matrices"),
        (workspace.features, "weekly feature views"),
        (workspace.checkpoints, "encoders"),
        (workspace.feast, "Feast registry and online store"),
        (figure, "map of the embedding space"),
    ):
        console.print(f"  {path}  [dim]{what}[/]")


def _arguments() -> argparse.Namespace:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--source", choices=sorted(SOURCES), default="complete-journey")
    parser.add_argument("--workspace", help="default workspace/SOURCE")
    parser.add_argument("--workers", type=int, default=2, help="Ray Train workers")
    parser.add_argument("--serve", action="store_true", help="leave the service running")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    return parser.parse_args()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


if __name__ == "__main__":
    main()
