"""Every error the SDK raises; each says what happened and what to do.

::

    OpenFoundError
    ├── UsageError            an argument or setting is wrong; nothing was sent (also a ValueError)
    ├── ConnectionFailed      nobody answers at the address
    ├── Timeout               somebody is there, but the answer did not come in time
    ├── UnexpectedAnswer      what came back is not OpenFound's
    ├── ApiError              the service answered with an error
    │   ├── AuthenticationError   401  no key, or a wrong one
    │   ├── PermissionDenied      403  the key may not do this
    │   ├── NotFound              404  unknown snapshot, kind or prompt
    │   ├── SpaceConflict         409  vectors of two spaces were about to meet
    │   ├── TooLarge              413  the request is too large
    │   ├── InvalidRequest        422  a field is wrong (also raised before sending)
    │   ├── RateLimited           429  too many requests
    │   ├── Unavailable           503  no live snapshot, or overloaded
    │   └── ServerError           5xx  a fault of the service
    └── JobFailed             a submitted job ended other than well

``str(error)`` is message and remedy together; ``.message`` and ``.remedy`` give them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sdk.types import FieldError, Problem


class OpenFoundError(Exception):
    """Root of all errors of the SDK."""

    remedy: str = ""

    # Keywords have defaults, so that copying an error between processes can rebuild it.
    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        if remedy is not None:
            self.remedy = remedy

    @property
    def message(self) -> str:
        """What happened, without the remedy."""
        return str(self.args[0])

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()


class UsageError(OpenFoundError, ValueError):
    """An argument or a setting is wrong; nothing was sent."""


class ConnectionFailed(OpenFoundError):
    """Nobody answers at the address."""

    remedy = "Check that the service runs there (`make serve`), or set OPENFOUND_URL."


class Timeout(OpenFoundError):
    """The answer did not come in time."""

    remedy = "Ask for a smaller audience, or give a longer timeout."


class UnexpectedAnswer(OpenFoundError):
    """What came back is not an answer of OpenFound."""

    remedy = "Check that OPENFOUND_URL names an OpenFound service of this version."


class ApiError(OpenFoundError):
    """The service answered with an error.

    ``status`` is the HTTP status; ``title``, ``detail`` and ``errors`` come from the problem
    document; ``retry_after`` is in seconds, if the service named a time.
    """

    remedy = "Check that client and service are of the same version."

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        title: str = "",
        detail: str = "",
        errors: Sequence[FieldError] = (),
        retry_after: float | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after = retry_after


class AuthenticationError(ApiError):
    """401: no key, or a wrong one."""

    remedy = "Set OPENFOUND_API_KEY to a key that the service knows."


class PermissionDenied(ApiError):
    """403: the key may not do this."""

    remedy = "Ask whoever runs the service for a key with the scope for it."


class NotFound(ApiError):
    """404: unknown snapshot, kind or prompt."""

    remedy = "`openfound snapshots` lists the snapshots; `openfound tune` makes prompts."


class SpaceConflict(ApiError):
    """409: vectors of two spaces were about to meet."""

    remedy = "Use vectors, prompts and audiences of the space that is live (`openfound snapshots`)."


class TooLarge(ApiError):
    """413: the request is too large."""

    remedy = "Ask in smaller parts."


class InvalidRequest(ApiError):
    """422: a field of the request is wrong."""

    remedy = "Correct the named field and ask again."


class RateLimited(ApiError):
    """429: too many requests."""

    remedy = "Wait and ask again, less often."


class Unavailable(ApiError):
    """503: no live snapshot, or overloaded."""

    remedy = "Wait and ask again; without a live snapshot, run the pipeline or activate one."


class ServerError(ApiError):
    """5xx: a fault of the service."""

    remedy = "Ask again; if it stays, the log of the service says why."


class JobFailed(OpenFoundError):
    """A submitted job ended other than well: ``status`` is FAILED or STOPPED."""

    remedy = "Its log, above, says why."

    def __init__(
        self,
        message: str,
        *,
        submission_id: str = "",
        status: str = "FAILED",
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.submission_id = submission_id
        self.status = status


_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    401: AuthenticationError,
    403: PermissionDenied,
    404: NotFound,
    409: SpaceConflict,
    413: TooLarge,
    422: InvalidRequest,
    429: RateLimited,
    503: Unavailable,
}


def from_problem(
    problem: Problem, *, retry_after: float | None = None, remedy: str | None = None
) -> ApiError:
    """The error that a problem document stands for."""
    kind = _BY_STATUS.get(problem.status, ServerError if problem.status >= 500 else ApiError)
    return kind(
        _message(problem),
        status=problem.status,
        title=problem.title,
        detail=problem.detail,
        errors=problem.errors,
        retry_after=retry_after,
        remedy=remedy,
    )


def invalid(errors: Sequence[FieldError]) -> InvalidRequest:
    """The error of a request that was found wrong before it was sent, same as from the server."""
    error = from_problem(Problem.of(422, "The request is invalid.", errors))
    assert isinstance(error, InvalidRequest)
    return error


def _message(problem: Problem) -> str:
    what = problem.detail or problem.title or f"HTTP status {problem.status}"
    fields = "; ".join(f"{error.field}: {error.message}" for error in problem.errors)
    # A detail that already names the fields is not repeated.
    if fields and fields not in what:
        what = f"{what.rstrip('. ')}: {fields}"
    return what if what.endswith((".", "!", "?")) else f"{what}."
