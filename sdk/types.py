"""Wire models: what travels between client and server, and what OpenAPI shows.

The server builds its routes from these very classes, so the two sides cannot drift apart. Requests
refuse unknown fields (a misspelt option must not be dropped in silence); answers ignore them, so
that an older client can talk to a newer server. A large answer is split into its *meta* and its
rows: JSON carries both in one object, Arrow carries the rows as record batches and the meta in the
schema (see ``sdk.arrow``).

Times are UTC; one without a zone is read as UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sdk.fields import (
    DEFAULT_KIND,
    DEFAULT_SIZE,
    MAX_SEEDS,
    MAX_TEXT,
    MAX_USER_ID,
    MAX_USER_IDS,
    MIN_SEEDS,
    Kind,
    Seeds,
    Text,
    TuneMethod,
    UserId,
    UtcTime,
    WireAnswer,
    WireRequest,
    once_each,
)
from sdk.selection import ScoredUser, TargetMeta, TargetRequest, TargetResponse

__all__ = [
    "Activation",
    "DEFAULT_KIND",
    "DEFAULT_SIZE",
    "EmbeddingsMeta",
    "EmbeddingsRequest",
    "EmbeddingsResponse",
    "FieldError",
    "Health",
    "MAX_SEEDS",
    "MAX_TEXT",
    "MAX_USER_ID",
    "MAX_USER_IDS",
    "MIN_SEEDS",
    "PROBLEM_JSON",
    "Problem",
    "Prompt",
    "PromptRequest",
    "ScoredUser",
    "SnapshotInfo",
    "SnapshotsResponse",
    "TargetMeta",
    "TargetRequest",
    "TargetResponse",
    "TuneMethod",
    "UserEmbedding",
    "field_errors",
]

PROBLEM_JSON: Final = "application/problem+json"

_MAX_FIELD_ERRORS = 20
_MAX_SHOWN = 40


class EmbeddingsRequest(WireRequest):
    """Ask for the stored embeddings of named users."""

    # In the shared model, so that client and server agree on what a repeated id means.
    user_ids: Annotated[list[UserId], AfterValidator(once_each)] = Field(
        min_length=1,
        max_length=MAX_USER_IDS,
        description="The users wanted; an id named twice is answered once, at its first place.",
        examples=[["12", "99"]],
    )
    kind: Kind = Field(
        default=DEFAULT_KIND,
        description="Which embedding: behaviour, tabular, search, fused, ...",
    )


class UserEmbedding(WireAnswer):
    """The embedding of one user."""

    user_id: UserId = Field(description="The user.")
    embedding: list[float] = Field(description="The vector: `dim` numbers of 32-bit precision.")


class EmbeddingsMeta(WireAnswer):
    """Everything an answer with embeddings says about itself, without the vectors."""

    snapshot: str = Field(description="Id of the snapshot that answered.")
    space: str = Field(description="Embedding space; vectors of two spaces cannot be compared.")
    as_of: UtcTime = Field(description="Only what was known strictly before this time was used.")
    kind: str = Field(description="Which embedding this is.")
    dim: int = Field(ge=1, description="Numbers per vector.")
    missing: list[str] = Field(
        default_factory=list, description="Asked users that this snapshot does not know."
    )


class EmbeddingsResponse(EmbeddingsMeta):
    """Embeddings of the users that were found, in the order asked."""

    embeddings: list[UserEmbedding] = Field(description="One entry per user found.")

    @model_validator(mode="after")
    def _same_dim(self) -> Self:
        for row in self.embeddings:
            if len(row.embedding) != self.dim:
                raise ValueError(
                    f"embedding of user {row.user_id!r} has {len(row.embedding)} numbers, "
                    f"expected dim={self.dim}"
                )
        return self


class PromptRequest(WireRequest):
    """Sharpen a sentence with seed users: some whom it means, some whom it does not."""

    text: Text = Field(
        description="One sentence about the users wanted, in plain words.",
        examples=["households that will buy diapers next month"],
    )
    positives: Seeds = Field(
        description="Users who are meant; five are enough.", examples=[["12", "99", "7"]]
    )
    negatives: Seeds = Field(
        description="Users who are not, best those easily mistaken.", examples=[["4", "31", "56"]]
    )
    kind: Kind = Field(
        default=DEFAULT_KIND,
        description="Which embedding the prompt will search.",
    )
    method: TuneMethod = Field(
        default="posterior",
        description="How: `posterior` settles what the sentence means, at once. `tokens` learns "
        "tokens before the sentence as it stands (FOUND, eq. 16): seconds, one at a time.",
    )

    @model_validator(mode="after")
    def _no_user_twice(self) -> Self:
        if both := sorted(set(self.positives) & set(self.negatives)):
            shown = ", ".join(both[:5])
            raise ValueError(f"users are both positive and negative: {shown}")
        return self


class Prompt(WireAnswer):
    """A tuned prompt: usable in place of a sentence, within its space."""

    prompt: str = Field(description="Its id.")
    text: str = Field(description="The sentence that was sharpened.")
    space: str = Field(description="Embedding space it belongs to; in others it is refused.")
    snapshot: str = Field(description="Id of the snapshot whose users were the seeds.")
    kind: str = Field(description="Which embedding it searches.")
    positives: int = Field(ge=0, description="How many positive seed users it was tuned with.")
    negatives: int = Field(ge=0, description="How many negative ones.")
    created_at: UtcTime = Field(description="When it was tuned.")
    method: str = Field(default="posterior", description="How it was tuned.")


class SnapshotInfo(WireAnswer):
    """One build that can be activated."""

    id: str = Field(description="Id of the snapshot.")
    space: str = Field(description="Embedding space it belongs to.")
    as_of: UtcTime = Field(description="Embeddings use only what was known before this time.")
    trained_as_of: UtcTime = Field(description="The weights saw only what was known before this.")
    created_at: UtcTime = Field(description="When it was built.")
    kinds: list[str] = Field(description="Embeddings it holds.")
    num_users: int = Field(ge=0, description="Users it holds.")
    report: str | None = Field(default=None, description="Its evaluation report, if there is one.")


class SnapshotsResponse(WireAnswer):
    """All snapshots, newest first, and which one is live."""

    live: str | None = Field(default=None, description="Id of the live snapshot, if there is one.")
    snapshots: list[SnapshotInfo] = Field(description="Newest first.")
    problems: list[str] = Field(
        default_factory=list, description="Snapshots that could not be read, and why."
    )


class Activation(WireAnswer):
    """Which snapshot serves after an activation or a roll-back."""

    live: str = Field(description="Id of the snapshot that is live now.")
    previous: str | None = Field(
        default=None, description="Id of the snapshot that was live before, if there was one."
    )


class Health(WireAnswer):
    """The service is up and has a live snapshot."""

    status: Literal["ok"] = Field(description="Always `ok`; a sick service answers 503.")
    snapshot: str = Field(description="Id of the live snapshot.")


class FieldError(WireAnswer):
    """What is wrong with one field of a request."""

    field: str = Field(description="The field, with dots for nesting: `user_ids.3`.")
    message: str = Field(description="What was expected and what came.")


class Problem(WireAnswer):
    """An error, as RFC 9457 (`application/problem+json`) has it."""

    type: str = Field(default="about:blank", description="URI that names the kind of problem.")
    title: str = Field(default="", description="Short name of the problem.")
    status: int = Field(ge=100, le=599, description="HTTP status.")
    detail: str = Field(default="", description="What happened here, and what to do about it.")
    errors: list[FieldError] = Field(
        default_factory=list, description="For an invalid request: field by field."
    )

    @classmethod
    def of(cls, status: int, detail: str, errors: Sequence[FieldError] = ()) -> Self:
        """The problem of an HTTP status, titled with its reason phrase."""
        title = HTTPStatus(status).phrase
        return cls(title=title, status=status, detail=detail, errors=list(errors))


def field_errors(errors: Iterable[Mapping[str, Any]]) -> list[FieldError]:
    """Turn pydantic's (or FastAPI's) ``.errors()`` into readable field errors.

    Scalars that came are shown shortened; at most 20 errors are listed, so that ten thousand bad
    ids do not make an answer of ten thousand lines.
    """
    listed = [_field_error(error) for error in errors]
    hidden = len(listed) - _MAX_FIELD_ERRORS
    if hidden > 0:
        more = FieldError(field="…", message=f"and {hidden} more like these")
        return [*listed[:_MAX_FIELD_ERRORS], more]
    return listed


def _field_error(error: Mapping[str, Any]) -> FieldError:
    path = [str(part) for part in error.get("loc", ()) if part != "body"]
    message = str(error.get("msg", "is invalid"))
    return FieldError(field=".".join(path) or "body", message=message + _came(error.get("input")))


def _came(value: object) -> str:
    if isinstance(value, str):
        if len(value) > _MAX_SHOWN:
            return f"; got {len(value)} characters"
        return f"; got {value!r}"
    if isinstance(value, bool | int | float):
        return f"; got {str(value)[:_MAX_SHOWN]}"
    return ""
