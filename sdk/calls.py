"""What each call sends and how its answer is read: pure functions, shared by both clients.

A ``Call`` is one HTTP request with the function that reads its answer. Nothing here does I/O, so
``Client`` and ``AsyncClient`` differ only in how they wait.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Generic, TypeVar, Unpack

import httpx
from pydantic import BaseModel, ValidationError

from sdk import arrow
from sdk.audience import Audience, Embeddings
from sdk.errors import (
    ApiError,
    ConnectionFailed,
    NotFound,
    OpenFoundError,
    Timeout,
    UnexpectedAnswer,
    UsageError,
    from_problem,
    invalid,
)
from sdk.selection import Choosing, FilterChoosing
from sdk.types import (
    DEFAULT_KIND,
    Activation,
    EmbeddingsRequest,
    EmbeddingsResponse,
    Health,
    Problem,
    Prompt,
    PromptRequest,
    SnapshotsResponse,
    TargetRequest,
    TargetResponse,
    TuneMethod,
    field_errors,
)

Answer = TypeVar("Answer")
Model = TypeVar("Model", bound=BaseModel)

_JSON: Final = "application/json"
ARROW: Final = f"{arrow.ARROW_STREAM}, {_JSON};q=0.5"
_SNAPSHOT_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")
_SHOWN: Final = 200


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request and the reader of its answer.

    ``repeatable`` says that asking twice does no more than asking once, so that a retry is safe.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], Answer]
    body: BaseModel | None = None
    accept: str = _JSON
    repeatable: bool = False

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``httpx.Client.request``."""
        headers = {"Accept": self.accept}
        if self.body is None:
            return {"method": self.method, "url": self.path, "headers": headers}
        headers["Content-Type"] = _JSON
        content = self.body.model_dump_json(exclude_none=True).encode()
        return {"method": self.method, "url": self.path, "headers": headers, "content": content}

    def answer(self, response: httpx.Response) -> Answer:
        """The answer, or the ApiError that came instead."""
        if response.is_success:
            return self.read(response)
        raise api_error(response)


def target_request(
    text: str | None,
    *,
    prompt: str | Prompt | None = None,
    exact: bool = False,
    kind: str = DEFAULT_KIND,
    rewrite: bool = True,
    split: bool = True,
    **choosing: Unpack[Choosing],
) -> TargetRequest:
    """What ``target`` asks; raises InvalidRequest where a field is wrong."""
    prompt_id = prompt.prompt if isinstance(prompt, Prompt) else prompt
    return valid(
        TargetRequest, text=text, prompt=prompt_id, exact=exact, kind=kind, rewrite=rewrite,
        split=split, **chosen(choosing),
    )  # fmt: skip


def target(
    text: str | None,
    *,
    prompt: str | Prompt | None = None,
    exact: bool = False,
    kind: str = DEFAULT_KIND,
    rewrite: bool = True,
    split: bool = True,
    **choosing: Unpack[Choosing],
) -> Call[Audience]:
    """Pick an audience by one sentence, or by a tuned prompt."""
    request = target_request(
        text, prompt=prompt, exact=exact, kind=kind, rewrite=rewrite, split=split, **choosing
    )
    named = prompt.text if isinstance(prompt, Prompt) else f"prompt {request.prompt}"
    wording = request.text or (named if request.prompt else "everybody whom the rules leave")

    return Call(
        "POST", "/v1/target", audience_reader(wording), body=request, accept=ARROW, repeatable=True
    )


def embeddings(ids: Iterable[str], *, kind: str) -> Call[Embeddings]:
    """Fetch stored embeddings of named users."""
    request = valid(EmbeddingsRequest, user_ids=listed("ids", ids), kind=kind)

    def read(response: httpx.Response) -> Embeddings:
        if _is_arrow(response):
            meta, table = arrow.decode_embeddings(response.content)
        else:
            meta, table = arrow.embeddings_from_json(_model(response, EmbeddingsResponse))
        return Embeddings(meta=meta, table=table)

    return Call("POST", "/v1/embeddings", read, body=request, accept=ARROW, repeatable=True)


def tune(
    text: str,
    positives: Iterable[str],
    negatives: Iterable[str],
    *,
    kind: str,
    method: TuneMethod = "posterior",
) -> Call[Prompt]:
    """Sharpen a sentence with seed users."""
    request = valid(
        PromptRequest,
        text=text,
        positives=listed("positives", positives),
        negatives=listed("negatives", negatives),
        kind=kind,
        method=method,
    )
    # Not repeatable: each time makes another prompt.
    return Call("POST", "/v1/prompts", reader(Prompt), body=request)


def snapshots() -> Call[SnapshotsResponse]:
    """List snapshots and name the live one."""
    return Call("GET", "/v1/snapshots", reader(SnapshotsResponse), repeatable=True)


def activate(snapshot: str) -> Call[Activation]:
    """Make a snapshot live."""
    if not isinstance(snapshot, str) or not _SNAPSHOT_ID.fullmatch(snapshot):
        raise UsageError(
            f"snapshot: expected an id of letters, digits, '_' and '-', got {snapshot!r}.",
            remedy="`openfound snapshots` lists the ids.",
        )
    return Call("POST", f"/v1/snapshots/{snapshot}/activate", reader(Activation))


def rollback() -> Call[Activation]:
    """Make the snapshot live that was live before."""
    # Not repeatable: a second roll-back goes one further.
    return Call("POST", "/v1/rollback", reader(Activation))


def health() -> Call[Health]:
    """Ask whether the service is ready."""
    # Not repeated either: the caller wants to know how it is now.
    return Call("GET", "/healthz", reader(Health))


def api_error(response: httpx.Response) -> ApiError | UnexpectedAnswer:
    """The error that an unsuccessful response stands for."""
    if response.is_redirect:
        to = response.headers.get("location", "elsewhere")
        return UnexpectedAnswer(
            f"{response.url} redirects to {to}.", remedy="Set OPENFOUND_URL to where it leads."
        )
    problem = _problem(response)
    if problem is None:
        return _foreign_error(response)
    return from_problem(problem, retry_after=retry_after(response.headers.get("retry-after")))


def retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds to wait by a ``Retry-After`` header: a number, or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def transport_error(error: httpx.HTTPError, *, url: str, timeout: float) -> OpenFoundError:
    """The error for a request that brought no response."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return ConnectionFailed(f"Nobody answers at {url}.")
    if isinstance(error, httpx.TimeoutException):
        return Timeout(f"No answer from {url} within {timeout:g} s.")
    if isinstance(error, httpx.DecodingError | httpx.TooManyRedirects):
        return UnexpectedAnswer(f"The answer of {url} cannot be read ({type(error).__name__}).")
    return ConnectionFailed(f"The connection to {url} broke ({type(error).__name__}).")


def valid(model: type[Model], **fields: Any) -> Model:
    """A request, or InvalidRequest where a field is wrong, as the service would say it."""
    try:
        return model(**fields)
    except ValidationError as error:
        # Without the cause: pydantic's message would repeat the whole input.
        raise invalid(field_errors(error.errors())) from None


def chosen(choosing: Choosing | FilterChoosing) -> dict[str, Any]:
    """Keyword arguments as fields: any iterable of ids will do."""
    lists = ("include", "exclude", "exclude_audiences")
    given = {name: value for name, value in choosing.items() if value is not None}
    return {
        name: listed(name, value) if name in lists else value  # type: ignore[arg-type]
        for name, value in given.items()
    }


def listed(name: str, ids: Iterable[str]) -> list[str]:
    """Ids as a list; a single string is refused."""
    if isinstance(ids, str | bytes):
        # A string is iterable too; its characters are hardly the users meant.
        raise UsageError(f"{name}: expected a list of user ids, got {ids!r}.", remedy="Write [id].")
    return list(ids)


def _media_type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).split(";")[0].strip().lower()


def _is_arrow(response: httpx.Response) -> bool:
    return _media_type(response) == arrow.ARROW_STREAM


def _model(response: httpx.Response, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        wrong = field_errors(error.errors())[0]
        raise UnexpectedAnswer(
            f"{response.url} did not answer with a {model.__name__}: "
            f"{wrong.field}: {wrong.message[:_SHOWN]}."
        ) from None


def audience_reader(wording: str) -> Callable[[httpx.Response], Audience]:
    """Reads an audience, from Arrow or JSON; ``wording`` says what was asked."""

    def read(response: httpx.Response) -> Audience:
        if _is_arrow(response):
            meta, table = arrow.decode_audience(response.content)
        else:
            meta, table = arrow.audience_from_json(_model(response, TargetResponse))
        return Audience(text=wording, meta=meta, table=table)

    return read


def reader(model: type[Model]) -> Callable[[httpx.Response], Model]:
    """Reads a JSON answer."""
    return lambda response: _model(response, model)


def _problem(response: httpx.Response) -> Problem | None:
    if not _media_type(response).endswith("json"):
        return None
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        return None
    # The status that counts is the one of HTTP; the member is advisory (RFC 9457, 3.1.2).
    return problem.model_copy(update={"status": response.status_code})


def _foreign_error(response: httpx.Response) -> ApiError:
    """An error without a problem document: from a proxy, or from something else altogether."""
    status = response.status_code
    detail = f"{response.url} answered {status} {response.reason_phrase}".rstrip()
    wait = retry_after(response.headers.get("retry-after"))
    error = from_problem(Problem(status=status, detail=detail), retry_after=wait)
    if isinstance(error, NotFound):
        error.remedy = "Check that OPENFOUND_URL names an OpenFound service."
    return error
