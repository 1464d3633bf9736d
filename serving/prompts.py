"""Sentences that seed users sharpen: tuned, kept under an id, and found again by it.

Tokens before a sentence (method ``tokens``) are learnt as in the paper (``encoders.prompt.PAPER``):
eq. 16 over all pairs of seeds and nothing else. They take gradients through the language model: two
to five seconds of a core with MiniLM, more with a larger one. So one prompt at a time is tuned in
this way, in the thread of its request; another one meanwhile is refused at once, since waiting
would hold the threads that everybody else is answered in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

from encoders.prompt import Prompt as Tuned
from encoders.query import Query
from feature_repo.errors import InputError, OpenFoundError
from feature_repo.prompts import PromptStore
from feature_repo.settings import Workspace
from sdk.reaching import ReachRequest
from sdk.types import Prompt, PromptRequest, TargetRequest
from serving.live import Opened
from serving.lookalike import rows_of

TUNE_SECONDS: Final = 45.0
"""How long tokens may be learnt; clients wait 60 seconds unless told otherwise."""


class TuningBusy(OpenFoundError):
    """Tokens of another prompt are being learnt."""


class TuningTooLong(OpenFoundError):
    """Tokens were not learnt in time."""


class Prompts:
    """The tuned prompts of a workspace; safe to share between threads."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        seconds: float = TUNE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = PromptStore(workspace)
        self._seconds, self._clock = seconds, clock
        self._one_at_a_time = threading.Lock()

    def tune(self, opened: Opened, request: PromptRequest) -> Prompt:
        """Sharpen a sentence with seed users of a snapshot, and keep it under an id.

        Raises:
            InputError: a seed user is not in the snapshot.
            TuningBusy, TuningTooLong: of method ``tokens``.
        """
        manifest = opened.manifest
        tuned = self._tuned(opened, request)
        record = self._store.save(
            space=manifest.space,
            kind=request.kind,
            text=request.text,
            seeds=(len(request.positives), len(request.negatives)),
            settings=asdict(tuned.config),
            tokens=tuned.tokens_TE,
            query=tuned.query_D,
            created_at=datetime.now(UTC),
        )
        return Prompt(
            prompt=record.id,
            text=record.text,
            space=record.space,
            snapshot=manifest.id,
            kind=request.kind,
            positives=record.positives,
            negatives=record.negatives,
            created_at=record.created_at,
            method=request.method,
        )

    def query(self, opened: Opened, request: TargetRequest | ReachRequest) -> Query:
        """The query of the prompt that a request names, and a note that says so.

        Raises:
            UnknownPrompt: there is no such prompt. SpaceMismatch: it is of another space.
            InputError: the request's text is not the prompt's own.
        """
        assert request.prompt is not None
        space = opened.manifest.space
        stored = self._store.load(request.prompt, space=space, kind=request.kind)
        record = stored.record
        if request.text not in (None, record.text):
            raise InputError(
                f"text: prompt {record.id} sharpens {record.text!r}, got {request.text!r}; "
                f"leave the text out, or tune a prompt for it"
            )
        how = " by learnt tokens" if len(stored.tokens) else ""
        note = (
            f"Ranked by a prompt for {record.text!r} that {record.positives} + "
            f"{record.negatives} seed users sharpened{how}."
        )
        return Query(stored.query, (note,))

    def _tuned(self, opened: Opened, request: PromptRequest) -> Tuned:
        kind = request.kind
        vectors = opened.matrices[kind].vectors
        given = (
            request.text,
            vectors[rows_of(opened, kind, "positives", request.positives)],
            vectors[rows_of(opened, kind, "negatives", request.negatives)],
            vectors,
        )
        if request.method == "posterior":
            return opened.encoders[kind].tune(*given)
        if not self._one_at_a_time.acquire(blocking=False):
            raise TuningBusy(
                "tokens of another prompt are being learnt, one at a time; ask again in a few "
                "seconds, or with the method 'posterior'"
            )
        try:
            return opened.encoders[kind].tune(*given, method="tokens", each_step=self._bound())
        finally:
            self._one_at_a_time.release()

    def _bound(self) -> Callable[[], None]:
        """Raises TuningTooLong once the time is over."""
        end = self._clock() + self._seconds

        def check() -> None:
            if self._clock() > end:
                raise TuningTooLong(
                    f"tokens were not learnt within {self._seconds:g} s; ask when the service is "
                    f"less busy, or with the method 'posterior'"
                )

        return check
