"""A made-up shop that the console runs over for real: uvicorn on a free port, headless Chromium.

Six hundred users in three groups, each of which buys one thing; a tower that knows those words; a
calibration that says how likely the liking is. Names hold what an attacker would write.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uvicorn

from encoders.catalogue import Subject
from encoders.checkpoint import fingerprint
from encoders.demand import DemandParser
from encoders.demand_subjects import Subjects
from encoders.query import Query
from feature_repo import durable, schema
from feature_repo.facts import write_facts
from feature_repo.manifest import CheckpointEntry, KindEntry, Manifest
from feature_repo.matrix import Matrix
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.transforms import open_tables
from sdk.explaining import Contribution, Explained, FutureSentence
from serving.api import create_app
from serving.audience_store import AudienceStore
from serving.audiences import SavedAudiences
from serving.auth import ApiKeys
from serving.database import open_database
from serving.explain import Explainer
from serving.keys import KeyStore
from serving.live import LiveSnapshot, Opener
from serving.targeting import Targeting

AS_OF = datetime(2017, 9, 11, tzinfo=UTC)
ATTACK = "<img src=x onerror=\"window.hacked='yes'\"><script>window.hacked='yes'</script>"
THINGS = ("CAT FOOD", "DIAPERS", f"TEA {ATTACK}")
KEY, READER = "the-key", "the-reader"
DIM = 8
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class WordEncoder:
    """Sentences that name a thing lie in its direction; others between all."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.full((len(texts), DIM), 0.1, np.float32)
        for row, text in enumerate(texts):
            for axis, thing in enumerate(THINGS):
                if thing.split()[0].lower() in text.lower():
                    vectors[row, axis] += 1
        return vectors

    def understand(self, text: str, *, rewrite: bool) -> Query:
        return Query(self.encode([text])[0])


@dataclass(frozen=True)
class Likely:
    """The higher the score, the likelier."""

    probabilities: np.ndarray

    def buyers(self, rows: np.ndarray) -> tuple[float, float, float]:
        expected = float(self.probabilities[rows].sum())
        return expected, 0.8 * expected, 1.2 * expected


def likely(text: str | None, query: np.ndarray, scores: np.ndarray) -> Likely:
    """A calibration that somebody made up."""
    return Likely(0.9 / (1 + np.exp(-4 * (scores.astype(np.float64) - 1))))


class Reasons(Explainer):
    """Explains every score by one purchase; the real one is tested on real weights."""

    def __init__(self, *collaborators: Any) -> None:
        self.weeks, self._matrix = 52, collaborators[3]["fused"]

    def rows(self, users: Sequence[str]) -> dict[str, pa.Table]:
        return {}

    def __call__(
        self, tables: object, user: str, row: int, query: np.ndarray, *, top: int
    ) -> Explained:
        score = float(self._matrix.vectors[row] @ query)
        thing = THINGS[row % len(THINGS)]
        part = Contribution(
            words=f"bought {thing} in the week before 2017-09-11", modality="behaviour",
            name=thing, verb="bought", week_end=AS_OF, weeks=1, contribution=score,
        )  # fmt: skip
        return Explained(
            user_id=user, score=score, base=0.0, modalities={"behaviour": score},
            contributions=[part], rest=0.0, unexplained=0.0, decisive=[part], score_without=0.0,
            latest=[], sentences=[FutureSentence(text=f"will buy {thing}", deviations=2.0)],
        )  # fmt: skip


class NoFeatures:
    """Nobody asks the online store here."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace


@dataclass
class Shop:
    """Publishes snapshots of the made-up shop, and serves them."""

    workspace: Workspace
    users: list[str] = field(
        default_factory=lambda: [f"u{n}" for n in range(599)] + [ATTACK + "599"]
    )

    def publish(self, *, synthetic: bool = False, week: int = 0) -> Manifest:
        """Commit a snapshot and make it live."""
        store, as_of = SnapshotStore(self.workspace), AS_OF + timedelta(weeks=week)
        snapshot_id = store.new_id("a1b2c3d4e5", as_of)
        staged = store.stage(snapshot_id)
        pq.write_table(pa.table({"user_id": self.users}), staged / "users.parquet")
        rng = np.random.default_rng(week)
        vectors = 0.3 * rng.standard_normal((len(self.users), DIM))
        groups = np.arange(len(self.users)) % len(THINGS)
        vectors[np.arange(len(self.users)), groups] += 1.5
        vectors[-1] *= 3  # the attacker is the best of the tea drinkers
        Matrix.write(staged / "matrix/fused.npy", vectors.astype(np.float32))
        place = self.workspace.checkpoints / "one"
        place.mkdir(parents=True, exist_ok=True)
        (place / "config.json").write_text("{}")
        (place / "model.safetensors").write_bytes(b"one")
        report = self.workspace.root / "reports/report.md"
        report.parent.mkdir(exist_ok=True)
        report.write_text(f"# How good it is\n\n{ATTACK}\n")
        path = str(place.relative_to(self.workspace.root))
        entry = KindEntry(
            kind="fused", dim=DIM, count=len(self.users), parts=[], view="fused_view",
            collection="fused", matrix=f"snapshots/{snapshot_id}/matrix/fused.npy",
            matrix_sha256=durable.sha256(staged / "matrix/fused.npy"),
        )  # fmt: skip
        manifest = Manifest(
            id=snapshot_id, space="a1b2c3d4e5", as_of=as_of, trained_as_of=as_of, horizon_days=28,
            created_at=as_of, feature_hash="0" * 64, kinds={"fused": entry},
            checkpoints={"alignment": CheckpointEntry(path=path, sha256=fingerprint(place))},
            num_users=len(self.users), users=f"snapshots/{snapshot_id}/users.parquet",
            reports=["reports/report.md"], built_by="test", version="0", source="test",
            synthetic=synthetic, facts=self._facts(staged, groups, as_of),
        )  # fmt: skip
        store.commit(manifest)
        store.activate(snapshot_id)
        return manifest

    def _facts(self, staged: Path, groups: np.ndarray, as_of: datetime) -> Any:
        events = [
            {"event_id": user, "user_id": user, "timestamp": when, "known_at": when,
             "source": "bill", "item_id": f"i{group}", "amount": 3.0}
            for n, (user, group) in enumerate(zip(self.users, groups, strict=True))
            for when in [as_of - timedelta(days=n % 50, hours=1)]
        ]  # fmt: skip
        items = [
            {"item_id": f"i{n}", "text": thing, "categories": ["SHOP", thing]}
            for n, thing in enumerate(THINGS)
        ]
        tables = {
            "events": pa.Table.from_pylist(events, schema=schema.EVENTS),
            "items": pa.Table.from_pylist(items, schema=schema.ITEMS),
        }
        ages = [float(18 + n % 60) for n in range(len(self.users))]
        homes = ["Owner" if n % 2 else "Renter" for n in range(len(self.users))]
        profiles = {"user_id": self.users, "profile_age": ages, "profile_home": homes}
        con = open_tables(tables)
        try:
            home = f"snapshots/{staged.name}"
            return write_facts(con, pa.table(profiles), self.users, as_of, staged, home)
        finally:
            con.close()

    def app(self, keys: str | None = f"{KEY},{READER}:read") -> Any:
        """The whole service over this workspace."""
        engine = open_database(self.workspace)
        store = AudienceStore(self.workspace, engine)
        opener = Opener(
            self.workspace, WordEncoder, NoFeatures, reader=_reader,
            explainer=Reasons, calibrators=lambda workspace, manifest: {"fused": likely},
        )  # fmt: skip
        live = LiveSnapshot(SnapshotStore(self.workspace), opener)
        targeting = Targeting(live, None, members=store.member_ids)
        saved = SavedAudiences(targeting, store)
        return create_app(targeting, ApiKeys.parse(keys), saved, kept_keys=KeyStore(engine))


def _reader(workspace: Workspace, manifest: Manifest, rules: Any, encoders: Any) -> DemandParser:
    subjects = [Subject("purchase", thing, 2, "SHOP", 9) for thing in THINGS]
    return DemandParser(rules.vocabulary, Subjects(subjects), as_of=manifest.as_of)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """uvicorn in a thread on a free port; yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """An empty shop."""
    return Shop(Workspace(tmp_path / "workspace"))


@pytest.fixture
def address(shop: Shop) -> Iterator[str]:
    """A shop with a live snapshot, served."""
    shop.publish()
    with served(shop.app()) as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Headless Chromium, which finds no host but this one."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: install Debian's `chromium` to run the browser tests")
    from playwright.sync_api import sync_playwright

    rules = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", rules])
        yield browser
        browser.close()


@dataclass
class Visit:
    """One page, and what must not have happened on it."""

    page: Any
    address: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str = "/", key: str = KEY) -> Any:
        """A page, signed in."""
        self.page.goto(f"{self.address}/sign-in")
        self.page.fill("#key", key)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(f"{self.address}/")
        if path != "/":
            self.page.goto(self.address + path)
        return self.page

    def ask(self, sentence: str) -> Any:
        """Type a sentence and wait for its audience."""
        self.page.fill("#sentence", sentence)
        self.page.click("#find:enabled")
        self.page.wait_for_selector("#members .member")
        return self.page

    def check(self) -> None:
        """No script error, no breach of the policy, no request that leaves, nothing injected."""
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith(self.address + "/")] == []
        assert self.page.evaluate("window.hacked") is None


_LISTEN = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


@pytest.fixture
def visit(chromium: Any, address: str) -> Iterator[Visit]:
    """A browser at the served shop; checked at the end."""
    with _visiting(chromium, address) as visit:
        yield visit


@pytest.fixture
def visiting() -> Any:
    """For visits of another sort: ``with visiting(chromium, address, **options)``."""
    return _visiting


@pytest.fixture
def serving() -> Any:
    """For shops of another sort: ``with serving(shop.app()) as address``."""
    return served


@contextmanager
def _visiting(chromium: Any, address: str, **options: Any) -> Iterator[Visit]:
    """A context of its own at an address."""
    context = chromium.new_context(accept_downloads=True, reduced_motion="reduce", **options)
    context.set_default_timeout(30_000)  # a machine that runs other tests may take ten seconds
    context.add_init_script(_LISTEN)
    visit = Visit(context.new_page(), address)
    context.on("request", lambda request: visit.requests.append(request.url))
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on(
        "console", lambda told: told.type == "error" and visit.complaints.append(told.text)
    )
    yield visit
    visit.check()
    context.close()
