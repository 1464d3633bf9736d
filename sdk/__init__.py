"""OpenFound's client: pick an audience with one sentence, fetch user embeddings.

>>> import sdk
>>> audience = sdk.target("households that will buy diapers next month", size=500)  # doctest: +SKIP
>>> audience.to_parquet("diapers.parquet")  # doctest: +SKIP

The functions here use a default client, built at the first call from ``OPENFOUND_URL`` and
``OPENFOUND_API_KEY``. For several services, other timeouts or asyncio, build ``Client`` or
``AsyncClient``. Needs no torch and no Ray.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Unpack

from sdk.audience import Audience, Embeddings, Member
from sdk.client import AsyncClient, Client
from sdk.errors import (
    ApiError,
    AuthenticationError,
    ConnectionFailed,
    InvalidRequest,
    JobFailed,
    NotFound,
    OpenFoundError,
    PermissionDenied,
    RateLimited,
    ServerError,
    SpaceConflict,
    Timeout,
    TooLarge,
    Unavailable,
    UnexpectedAnswer,
    UsageError,
)
from sdk.jobs import JobInfo, RayJobs
from sdk.selection import Choosing
from sdk.settings import Settings
from sdk.types import (
    DEFAULT_KIND,
    Activation,
    Health,
    Prompt,
    SnapshotInfo,
    SnapshotsResponse,
)

__all__ = [
    "Activation",
    "ApiError",
    "AsyncClient",
    "Audience",
    "AuthenticationError",
    "Client",
    "ConnectionFailed",
    "Embeddings",
    "Health",
    "InvalidRequest",
    "JobFailed",
    "JobInfo",
    "Member",
    "NotFound",
    "OpenFoundError",
    "PermissionDenied",
    "Prompt",
    "RateLimited",
    "RayJobs",
    "ServerError",
    "SnapshotInfo",
    "SnapshotsResponse",
    "SpaceConflict",
    "Timeout",
    "TooLarge",
    "Unavailable",
    "UnexpectedAnswer",
    "UsageError",
    "activate",
    "embeddings",
    "health",
    "rollback",
    "snapshots",
    "target",
    "tune",
]

_lock = threading.Lock()
_default: tuple[object, Client] | None = None


def target(
    text: str | None = None,
    *,
    prompt: str | Prompt | None = None,
    exact: bool = False,
    kind: str = DEFAULT_KIND,
    rewrite: bool = True,
    **choosing: Unpack[Choosing],
) -> Audience:
    """The users whom a sentence, or a tuned ``prompt``, describes best; 100 unless told.

    ``exact`` scores every user; ``rewrite=False`` takes the sentence literally. Exactly one of
    ``size``, ``min_score``, ``min_probability``, ``share`` and ``expected_buyers`` says how many;
    ``rules``, ``include``, ``exclude`` and ``exclude_audiences`` act before it.
    """
    return _client().target(
        text, prompt=prompt, exact=exact, kind=kind, rewrite=rewrite, **choosing
    )


def tune(
    text: str, positives: Iterable[str], negatives: Iterable[str], *, kind: str = DEFAULT_KIND
) -> Prompt:
    """Sharpen a sentence with users who are meant and users who are not; five of each do."""
    return _client().tune(text, positives, negatives, kind=kind)


def embeddings(ids: Iterable[str], *, kind: str = DEFAULT_KIND) -> Embeddings:
    """Stored embeddings of up to 10,000 users; unknown ones are listed as missing."""
    return _client().embeddings(ids, kind=kind)


def snapshots() -> SnapshotsResponse:
    """All snapshots, newest first, and which one is live."""
    return _client().snapshots()


def activate(snapshot: str) -> Activation:
    """Make a snapshot live."""
    return _client().activate(snapshot)


def rollback() -> Activation:
    """Make the snapshot live that was live before."""
    return _client().rollback()


def health() -> Health:
    """The live snapshot, if the service is ready; raises Unavailable if it is not."""
    return _client().health()


def _client() -> Client:
    """The default client; another one once the environment says something else.

    Whoever meets an error, sets the variable and asks again in the same notebook is heard. A forked
    child gets its own connections.
    """
    global _default
    wanted = (os.getpid(), Settings.resolve())
    with _lock:
        if _default is None or _default[0] != wanted:
            _default = (wanted, Client())
        return _default[1]
