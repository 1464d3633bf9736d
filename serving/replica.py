"""One replica of the service: builds :class:`Targeting` from a workspace, inside Ray Serve.

A module of its own, because what ``python -m serving.app`` defines would belong to ``__main__``,
which no other process can import.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ray import serve
from ray.serve.config import BackpressureConfig

from encoders.rewriting import DEFAULT, Choice
from feature_repo.errors import NoLiveSnapshot, OpenFoundError, VectorsUnavailable
from feature_repo.settings import Workspace, milvus_uri, redis_url
from sdk.access import Scope
from serving.auth import ApiKeys
from serving.rates import DEFAULT_RATE, Rates

# Imported where they are used: torch and Feast take ten seconds, which the process that only
# deploys need not spend.
if TYPE_CHECKING:
    from encoders.endpoint import EndpointSettings
    from encoders.query import MakeRewriter
    from feature_repo.vectors import Vectors
    from serving.selecting import Members
    from serving.targeting import Targeting

MAX_ONGOING: Final = 100
"""Requests that one replica works on at a time."""
MAX_QUEUED: Final = 256
"""Requests that wait for a replica; further ones get 503 with ``Retry-After``."""
RETRY_AFTER_SECONDS: Final = 1
GRACE_SECONDS: Final = 5.0
"""How long a replica that is told to end may finish its requests."""

log = logging.getLogger(__name__)


class Replica:
    """What Ray Serve runs: an ASGI application, built where it runs.

    Args:
        workspace: its directory, which every node must see under this path.
        digests: digest → scopes of the environment's keys, or None: anybody may do anything.
        vectors_uri: a Milvus to use, or None: the environment's there, or the workspace's own.
        rewriter, endpoint: who reads demands, and where the endpoint is if that is who.
        rate: how often a key may ask.
        console_secret: what the console's sessions are signed with, the same for every replica.
    """

    def __init__(
        self,
        workspace: str,
        digests: dict[str, frozenset[Scope]] | None,
        vectors_uri: str | None,
        rewriter: Choice = DEFAULT,
        endpoint: EndpointSettings | None = None,
        rate: str = DEFAULT_RATE,
        console_secret: str | None = None,
    ) -> None:
        import torch

        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
        # Sentences are encoded in parallel, one thread each (16 ms). Two threads each, and other
        # work on the machine, made them wait for one another: 900 ms.
        torch.set_num_threads(1)
        place = Workspace(Path(workspace))
        _heal(place, vectors_uri)
        from serving.audience_store import AudienceStore
        from serving.audiences import SavedAudiences
        from serving.database import open_database
        from serving.keys import KeyStore

        engine = open_database(place)
        store = AudienceStore(place, engine)
        self._targeting = build_targeting(
            place, vectors_uri, _make_rewriter(rewriter, place, endpoint), store.member_ids
        )
        self._keys = None if digests is None else ApiKeys(digests)
        self._kept_keys, self._rates = KeyStore(engine), Rates(rate, redis_url())
        self._audiences = SavedAudiences(self._targeting, store)
        self._secret = console_secret
        _warm_up(self._targeting)

    def __serve_build_asgi_app__(self) -> Any:
        from serving.api import create_app

        return create_app(
            self._targeting, self._keys, self._audiences,
            kept_keys=self._kept_keys, rates=self._rates, console_secret=self._secret,
        )  # fmt: skip


def build_targeting(
    workspace: Workspace,
    vectors_uri: str | None = None,
    make_rewriter: MakeRewriter | None = None,
    members: Members | None = None,
) -> Targeting:
    """Targeting over everything that a workspace holds; ``members`` looks saved audiences up."""
    from encoders.query import QueryEncoder
    from feature_repo import publishing
    from feature_repo.snapshots import SnapshotStore
    from feature_repo.vectors import Vectors
    from serving.calibrations import calibrators
    from serving.live import LiveSnapshot, Opener
    from serving.nearest import Nearest
    from serving.targeting import Targeting

    def connect() -> Vectors:
        uri = vectors_uri or _milvus(workspace)
        if uri is None:
            raise VectorsUnavailable(f"no Milvus runs for {workspace.root}")
        return Vectors(uri)

    def activate(snapshot_id: str) -> None:
        publishing.activate(workspace, snapshot_id, vectors_uri or _milvus(workspace))

    def rollback() -> None:
        publishing.rollback(workspace, vectors_uri or _milvus(workspace))

    def encoder(directory: Path) -> QueryEncoder:
        return QueryEncoder.open(directory, make_rewriter)

    live = LiveSnapshot(
        SnapshotStore(workspace), Opener(workspace, encoder, calibrators=calibrators)
    )
    known = {} if members is None else {"members": members}
    return Targeting(live, Nearest(connect), activate=activate, rollback=rollback, **known)


def _make_rewriter(
    choice: Choice, workspace: Workspace, endpoint: EndpointSettings | None
) -> MakeRewriter | None:
    from encoders.rewriters import RewriterPlaces, maker

    return maker(choice, RewriterPlaces(workspace.cache, workspace.rewriter, endpoint))


def deployment(replicas: int) -> serve.Deployment:
    """The declared size and limits of the service."""
    return serve.deployment(
        serve.ingress()(Replica),
        name="targeting",
        num_replicas=replicas,
        # A fraction: the bookkeeping must not leave a small machine without CPUs for jobs.
        ray_actor_options={"num_cpus": 0.1},
        max_ongoing_requests=MAX_ONGOING,
        max_queued_requests=MAX_QUEUED,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_SECONDS),
        graceful_shutdown_timeout_s=GRACE_SECONDS,
        graceful_shutdown_wait_loop_s=0.2,
        max_constructor_retry_count=2,
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )


def _heal(workspace: Workspace, vectors_uri: str | None) -> None:
    """Bring what derives from LIVE in line with it; a kill may have come between."""
    from feature_repo import publishing

    try:
        publishing.derive(workspace, vectors_uri or _milvus(workspace))
    except NoLiveSnapshot:
        pass  # /healthz says what to run
    except OpenFoundError as error:
        log.warning("%s", error)


def _warm_up(targeting: Targeting) -> None:
    """The first question of each sort is slow: nobody should have to wait for it."""
    from sdk.types import EmbeddingsRequest, TargetRequest

    try:
        targeting.target(TargetRequest(text="anybody", size=1))
        targeting.embeddings(EmbeddingsRequest(user_ids=["anybody"]))
    except OpenFoundError as error:
        log.warning("not ready to answer: %s", error)
    except Exception:
        log.exception("the service starts, but could not answer its first question")


def _milvus(workspace: Workspace) -> str | None:
    """The environment's Milvus, or where the workspace's own was last seen.

    Looked up at each connection: the workspace's own has another port after each start.
    """
    if given := milvus_uri():
        return given
    try:
        return str(json.loads((workspace.milvus / "address").read_bytes())["uri"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
