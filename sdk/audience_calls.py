"""The calls about audiences: lookalikes, reach, saved ones. No I/O, as in ``sdk.calls``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Unpack

import httpx

from sdk.audience import Audience
from sdk.calls import ARROW, Call, audience_reader, chosen, listed, reader, target_request, valid
from sdk.errors import UsageError
from sdk.explaining import ExplainRequest, Explanations, Portrait, PortraitRequest
from sdk.planning import Plan, PlanRequest
from sdk.reaching import LookalikeRequest, Reach, ReachRequest
from sdk.rules import Rule
from sdk.saved import (
    AudienceChange,
    AudiencePage,
    Deleted,
    Delivery,
    ExportFormat,
    Overlap,
    OverlapRequest,
    Part,
    RerunAudience,
    SaveAudience,
    SavedAudience,
    SendAudience,
)
from sdk.selection import Choosing, FilterChoosing
from sdk.types import DEFAULT_KIND, Prompt

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


def lookalike_request(
    seeds: Iterable[str],
    *,
    text: str | None = None,
    with_seeds: bool = False,
    kind: str = DEFAULT_KIND,
    **choosing: Unpack[Choosing],
) -> LookalikeRequest:
    """What ``lookalike`` asks; raises InvalidRequest where a field is wrong."""
    return valid(
        LookalikeRequest, seeds=listed("seeds", seeds), text=text, with_seeds=with_seeds,
        kind=kind, **chosen(choosing),
    )  # fmt: skip


def lookalike(
    seeds: Iterable[str],
    *,
    text: str | None = None,
    with_seeds: bool = False,
    kind: str = DEFAULT_KIND,
    **choosing: Unpack[Choosing],
) -> Call[Audience]:
    """Pick users like the seeds."""
    request = lookalike_request(seeds, text=text, with_seeds=with_seeds, kind=kind, **choosing)
    read = audience_reader(f"users like {len(request.seeds):,} seeds")
    return Call("POST", "/v1/lookalike", read, body=request, accept=ARROW, repeatable=True)


def plan(text: str, *, kind: str) -> Call[Plan]:
    """POST /v1/plan."""
    request = valid(PlanRequest, text=text, kind=kind)
    return Call("POST", "/v1/plan", reader(Plan), body=request, repeatable=True)


def reach(
    text: str | None,
    *,
    prompt: str | Prompt | None = None,
    kind: str = DEFAULT_KIND,
    rewrite: bool = True,
    bins: int = 40,
    **choosing: Unpack[FilterChoosing],
) -> Call[Reach]:
    """Ask how many users a demand fits how well."""
    prompt_id = prompt.prompt if isinstance(prompt, Prompt) else prompt
    request = valid(
        ReachRequest, text=text, prompt=prompt_id, kind=kind, rewrite=rewrite, bins=bins,
        **chosen(choosing),
    )  # fmt: skip
    return Call("POST", "/v1/reach", reader(Reach), body=request, repeatable=True)


def explain(
    ids: Iterable[str],
    text: str | None = None,
    *,
    prompt: str | Prompt | None = None,
    audience: str | None = None,
    rules: Rule | Mapping[str, Any] | None = None,
    top: int = 5,
    kind: str = DEFAULT_KIND,
    rewrite: bool = True,
    split: bool = True,
) -> Call[Explanations]:
    """Ask what carried users' scores."""
    prompt_id = prompt.prompt if isinstance(prompt, Prompt) else prompt
    request = valid(
        ExplainRequest, user_ids=listed("ids", ids), text=text, prompt=prompt_id,
        audience=audience, rules=rules, top=top, kind=kind, rewrite=rewrite, split=split,
    )  # fmt: skip
    return Call("POST", "/v1/explain", reader(Explanations), body=request, repeatable=True)


def portrait(
    text: str | None = None,
    *,
    audience: str | None = None,
    days: int = 84,
    top: int = 10,
    prompt: str | Prompt | None = None,
    kind: str = DEFAULT_KIND,
    rewrite: bool = True,
    split: bool = True,
    **choosing: Unpack[Choosing],
) -> Call[Portrait]:
    """Ask what tells an audience from everybody."""
    picked = text is not None or prompt is not None or bool(chosen(choosing))
    target = (
        target_request(text, prompt=prompt, kind=kind, rewrite=rewrite, split=split, **choosing)
        if picked or audience is None else None
    )  # fmt: skip
    request = valid(PortraitRequest, target=target, audience=audience, days=days, top=top)
    return Call("POST", "/v1/portrait", reader(Portrait), body=request, repeatable=True)


def save(
    name: str,
    text: str | None,
    *,
    seeds: Iterable[str] | None = None,
    holdout: float = 0.0,
    holdout_key: str | None = None,
    prompt: str | Prompt | None = None,
    exact: bool = False,
    kind: str = DEFAULT_KIND,
    rewrite: bool = True,
    **choosing: Unpack[Choosing],
) -> Call[SavedAudience]:
    """Run a plan and keep it."""
    if seeds is None:
        plan = target_request(
            text, prompt=prompt, exact=exact, kind=kind, rewrite=rewrite, **choosing
        )
        asked: dict[str, Any] = {"target": plan}
    elif prompt is not None:
        raise UsageError("seeds: a prompt was given too.", remedy="Give one of the two.")
    else:
        asked = {"lookalike": lookalike_request(seeds, text=text, kind=kind, **choosing)}
    request = valid(SaveAudience, name=name, holdout=holdout, holdout_key=holdout_key, **asked)
    # Not repeatable: each time makes another audience.
    return Call("POST", "/v1/audiences", reader(SavedAudience), body=request)


def audiences(limit: int = 50, after: str | None = None) -> Call[AudiencePage]:
    """List saved audiences."""
    if not isinstance(limit, int) or not 1 <= limit <= 200:
        raise UsageError(f"limit: expected 1 to 200, got {limit!r}.", remedy="Ask page by page.")
    following = "" if after is None else f"&after={_checked(after)}"
    path = f"/v1/audiences?limit={limit}{following}"
    return Call("GET", path, reader(AudiencePage), repeatable=True)


def get_audience(audience: str) -> Call[SavedAudience]:
    """One saved audience."""
    return Call("GET", _place(audience), reader(SavedAudience), repeatable=True)


def members(audience: str, part: Part = "all") -> Call[Audience]:
    """The members of a saved audience."""
    path = f"{_place(audience)}/members?part={_part(part)}"
    read = audience_reader(f"saved audience {audience}")
    return Call("GET", path, read, accept=ARROW, repeatable=True)


def rerun(audience: str, snapshot: str | None = None) -> Call[AudienceChange]:
    """Run a saved audience again."""
    request = valid(RerunAudience, snapshot=snapshot)
    return Call("POST", f"{_place(audience)}/run", reader(AudienceChange), body=request)


def overlap(audiences: Iterable[str]) -> Call[Overlap]:
    """Compare saved audiences."""
    request = valid(OverlapRequest, ids=listed("audiences", audiences))
    return Call("POST", "/v1/audiences/overlap", reader(Overlap), body=request, repeatable=True)


def export(audience: str, format: ExportFormat, part: Part = "target") -> Call[bytes]:
    """The members as a file's content."""
    if format not in ("parquet", "csv", "iab"):
        raise UsageError(
            f"format: expected parquet, csv or iab, got {format!r}.", remedy="Name one of them."
        )
    path = f"{_place(audience)}/export?format={format}&part={_part(part)}"
    return Call("GET", path, _content, accept="*/*", repeatable=True)


def send(audience: str, url: str, part: Part = "target") -> Call[Delivery]:
    """Send the members to a webhook."""
    request = valid(SendAudience, url=url, part=_part(part))
    return Call("POST", f"{_place(audience)}/send", reader(Delivery), body=request)


def delete_audience(audience: str) -> Call[Deleted]:
    """Forget a saved audience."""
    return Call("DELETE", _place(audience), reader(Deleted))


def _place(audience: str) -> str:
    return f"/v1/audiences/{_checked(audience)}"


def _checked(audience: str) -> str:
    if not isinstance(audience, str) or not _ID.fullmatch(audience):
        raise UsageError(
            f"audience: expected an id of letters, digits, '_' and '-', got {audience!r}.",
            remedy="`openfound audience list` lists the ids.",
        )
    return audience


def _part(part: Part) -> Part:
    if part not in ("all", "target", "holdout"):
        raise UsageError(
            f"part: expected all, target or holdout, got {part!r}.", remedy="Name one of them."
        )
    return part


def _content(response: httpx.Response) -> bytes:
    return response.content
