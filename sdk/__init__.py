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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Unpack

from sdk.access import AuditLine, AuditPage, KeyInfo, KeyList, NewKey
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
from sdk.explaining import Explanations, Portrait
from sdk.jobs import JobInfo, RayJobs
from sdk.planning import Plan
from sdk.reaching import Reach
from sdk.rules import Rule
from sdk.saved import (
    AudienceChange,
    AudiencePage,
    Deleted,
    Delivery,
    ExportFormat,
    Overlap,
    Part,
    SavedAudience,
)
from sdk.selection import Choosing, FilterChoosing
from sdk.settings import Settings
from sdk.types import (
    DEFAULT_KIND,
    Activation,
    Health,
    Prompt,
    SnapshotInfo,
    SnapshotsResponse,
    TuneMethod,
)

__all__ = [
    "Activation",
    "ApiError",
    "AsyncClient",
    "Audience",
    "AudienceChange",
    "AudiencePage",
    "AuditLine",
    "AuditPage",
    "AuthenticationError",
    "Client",
    "ConnectionFailed",
    "Deleted",
    "Delivery",
    "Embeddings",
    "Explanations",
    "Health",
    "InvalidRequest",
    "JobFailed",
    "JobInfo",
    "KeyInfo",
    "KeyList",
    "Member",
    "NewKey",
    "NotFound",
    "OpenFoundError",
    "Overlap",
    "PermissionDenied",
    "Portrait",
    "Prompt",
    "RateLimited",
    "RayJobs",
    "Reach",
    "SavedAudience",
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
    "audiences",
    "delete_audience",
    "embeddings",
    "explain",
    "export",
    "get_audience",
    "health",
    "lookalike",
    "members",
    "overlap",
    "plan",
    "portrait",
    "reach",
    "rerun",
    "rollback",
    "save",
    "send",
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
    split: bool = True,
    **choosing: Unpack[Choosing],
) -> Audience:
    """The users whom a sentence, or a tuned ``prompt``, describes best; 100 unless told.

    ``exact`` scores every user; ``rewrite=False`` takes the words literally,
    ``split=False`` reads no hard rules out of them (:func:`plan` shows which). Exactly one of
    ``size``, ``min_score``, ``min_probability``, ``share`` and ``expected_buyers`` says how many;
    ``rules``, ``include``, ``exclude`` and ``exclude_audiences`` act before it.
    """
    return _client().target(
        text, prompt=prompt, exact=exact, kind=kind, rewrite=rewrite, split=split, **choosing
    )


def tune(
    text: str,
    positives: Iterable[str],
    negatives: Iterable[str],
    *,
    kind: str = DEFAULT_KIND,
    method: TuneMethod = "posterior",
) -> Prompt:
    """Sharpen a sentence with users who are meant and users who are not; five of each do.

    Method ``"tokens"`` is FOUND's own, prompt tokens before the sentence; it takes seconds.
    """
    return _client().tune(text, positives, negatives, kind=kind, method=method)


def lookalike(
    seeds: Iterable[str],
    *,
    text: str | None = None,
    with_seeds: bool = False,
    kind: str = DEFAULT_KIND,
    **choosing: Unpack[Choosing],
) -> Audience:
    """Users like the seeds; ``text`` stands in for fewer than ten, and a note says so."""
    return _client().lookalike(seeds, text=text, with_seeds=with_seeds, kind=kind, **choosing)


def plan(text: str, *, kind: str = DEFAULT_KIND) -> Plan:
    """How a sentence is understood: hard rules that filter, and the rest that ranks."""
    return _client().plan(text, kind=kind)


def reach(
    text: str | None = None,
    *,
    prompt: str | Prompt | None = None,
    kind: str = DEFAULT_KIND,
    rewrite: bool = True,
    bins: int = 40,
    **choosing: Unpack[FilterChoosing],
) -> Reach:
    """How many users a demand fits how well, and what each size of audience would bring."""
    return _client().reach(text, prompt=prompt, kind=kind, rewrite=rewrite, bins=bins, **choosing)


def explain(
    ids: Iterable[str],
    text: str | None = None,
    *,
    prompt: str | Prompt | None = None,
    audience: str | None = None,
    rules: Rule | Mapping[str, Any] | None = None,
    top: int = 5,
    **options: Any,
) -> Explanations:
    """What carried the scores of up to 20 users for a demand, or for a saved audience's."""
    return _client().explain(
        ids, text, prompt=prompt, audience=audience, rules=rules, top=top, **options
    )


def portrait(
    text: str | None = None,
    *,
    audience: str | None = None,
    days: int = 84,
    top: int = 10,
    **options: Any,
) -> Portrait:
    """What tells an audience from everybody: as :func:`target` picks it, or a saved one."""
    return _client().portrait(text, audience=audience, days=days, top=top, **options)


def save(
    name: str,
    text: str | None = None,
    *,
    seeds: Iterable[str] | None = None,
    holdout: float = 0.0,
    holdout_key: str | None = None,
    prompt: str | Prompt | None = None,
    exact: bool = False,
    kind: str = DEFAULT_KIND,
    rewrite: bool = True,
    **choosing: Unpack[Choosing],
) -> SavedAudience:
    """Keep what ``target``, or with ``seeds`` ``lookalike``, picks; ``holdout`` leaves some out."""
    return _client().save(
        name,
        text,
        seeds=seeds,
        holdout=holdout,
        holdout_key=holdout_key,
        prompt=prompt,
        exact=exact,
        kind=kind,
        rewrite=rewrite,
        **choosing,
    )


def audiences(
    limit: int = 50,
    after: str | None = None,
) -> AudiencePage:
    """A page of the saved audiences, newest first; ``after`` is ``next`` of the page before."""
    return _client().audiences(limit, after)


def get_audience(
    audience: str,
) -> SavedAudience:
    """One saved audience and its latest run."""
    return _client().get_audience(audience)


def members(
    audience: str,
    part: Part = "all",
) -> Audience:
    """Members at the latest run: all, those to target, or the hold-out."""
    return _client().members(audience, part)


def rerun(
    audience: str,
    snapshot: str | None = None,
) -> AudienceChange:
    """Run it again, on the live snapshot unless told, and say what changed."""
    return _client().rerun(audience, snapshot)


def overlap(
    audiences: Iterable[str],
) -> Overlap:
    """How many members saved audiences share, pair by pair."""
    return _client().overlap(audiences)


def export(
    audience: str,
    path: str | os.PathLike[str],
    *,
    format: ExportFormat = "parquet",
    part: Part = "target",
) -> Path:
    """Write the members to a file, all or nothing; the hold-out is left out unless told."""
    return _client().export(audience, path, format=format, part=part)


def send(
    audience: str,
    url: str,
    *,
    part: Part = "target",
) -> Delivery:
    """Send the members to a webhook; the service signs and retries."""
    return _client().send(audience, url, part=part)


def delete_audience(
    audience: str,
) -> Deleted:
    """Forget a saved audience and its members."""
    return _client().delete_audience(audience)


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
