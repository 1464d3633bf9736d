"""Two questions about people who were picked: why this user, and what do these have in common.

why = Why(targeting, audiences)
why.explain(ExplainRequest(user_ids=["12"], text="households that will buy diapers"))
why.portrait(PortraitRequest(audience="1a2b3c4d5e6f7081"))
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from encoders.query import Query
from feature_repo.distinguishing import distinguishing
from feature_repo.errors import InputError, NotCarried, UnknownAudience
from feature_repo.manifest import Manifest
from feature_repo.profile_shares import profile_shares
from feature_repo.rules import parse
from sdk.explaining import (
    Distinction,
    ExplainRequest,
    Explanations,
    Portrait,
    PortraitRequest,
    ProfileShare,
)
from sdk.reaching import LookalikeRequest
from sdk.selection import TargetRequest
from serving.audiences import SavedAudiences, plan_of
from serving.live import Opened, check_aligned
from serving.lookalike import lookalike_query_of
from serving.picked import Audience
from serving.targeting import Targeting

Rows = npt.NDArray[np.int64]


class Why:
    """Answers from the live snapshot; safe to share between threads.

    Args:
        audiences: saved ones; without them none can be named.
    """

    def __init__(self, targeting: Targeting, audiences: SavedAudiences | None = None) -> None:
        self._targeting, self._audiences = targeting, audiences

    def explain(self, request: ExplainRequest) -> Explanations:
        """What carried the scores of named users for a demand.

        Raises what targeting raises; UnknownAudience; InputError if the demand prefers nobody;
        NotCarried if the pasts of the snapshot's users cannot be read.
        """
        opened = self._targeting.live.get()
        plan, query, notes = self._demand(opened, request)
        explainer = opened.explainer
        if explainer is None:
            raise NotCarried(f"snapshot {opened.manifest.id} holds nothing that explains scores")
        rows = opened.rows[plan.kind].of(request.user_ids)
        known = [(u, int(r)) for u, r in zip(request.user_ids, rows, strict=True) if r >= 0]
        tables = explainer.rows([user for user, _ in known])
        allowed = self._allowed(opened, plan)
        told = [
            explainer(tables, user, row, query.vector, top=request.top).model_copy(
                update={"eligible": None if allowed is None else bool(allowed[row])}
            )
            for user, row in known
        ]
        manifest = opened.manifest
        return Explanations(
            snapshot=manifest.id,
            space=manifest.space,
            as_of=manifest.as_of,
            horizon_days=manifest.horizon_days,
            weeks=explainer.weeks,
            tolerance=explainer.tolerance,
            users=told,
            missing=[u for u, r in zip(request.user_ids, rows, strict=True) if r < 0],
            notes=[*_origin(manifest), *notes, *query.notes],
        )

    def portrait(self, request: PortraitRequest) -> Portrait:
        """What tells an audience from everybody, on the snapshot that it was picked from.

        Raises what targeting raises; UnknownAudience; UnknownSnapshot if the run's snapshot is no
        longer kept; NotCarried if it carries no facts.
        """
        if request.audience is None:
            assert request.target is not None  # PortraitRequest sees to it
            found = self._targeting.target(request.target)
            notes = [*found.meta.notes]
        else:
            found, notes = self._saved().members(request.audience), []
        store = self._targeting.live.store
        manifest = store.load(found.meta.snapshot)
        rows = self._rows(manifest, found)
        told = distinguishing(store.workspace, manifest, rows, days=request.days, num=request.top)
        shares = profile_shares(store.workspace, manifest, rows)
        return Portrait(
            snapshot=manifest.id,
            as_of=manifest.as_of,
            size=len(rows),
            population=manifest.num_users,
            days=request.days,
            behaviour=[Distinction(**asdict(one)) for one in told],
            profile=[ProfileShare(**asdict(one)) for one in shares],
            notes=notes or _origin(manifest),
        )

    # --- inside

    def _demand(
        self, opened: Opened, request: ExplainRequest
    ) -> tuple[TargetRequest | LookalikeRequest, Query, list[str]]:
        """What is asked, in two halves; its query; and notes."""
        given: TargetRequest | LookalikeRequest
        vector = None
        if request.audience is not None:
            store = self._saved().store
            given = plan_of(store.get(request.audience))
            vector = store.query_in(request.audience, opened.manifest.space)
        else:
            given = TargetRequest(
                text=request.text, prompt=request.prompt, rules=request.rules, kind=request.kind,
                rewrite=request.rewrite, split=request.split,
            )  # fmt: skip
        check_aligned(opened.manifest, given.kind)
        if vector is not None:
            return given, Query(vector), []
        if isinstance(given, LookalikeRequest):
            return given, lookalike_query_of(opened, given), []
        plan, notes = self._targeting.halved(given, opened)
        query = self._targeting.query_of(opened, plan)
        if query is None:
            raise InputError(
                "text: expected a demand that ranks users, got hard rules alone: they let users in "
                "or not, so there is no score to explain"
            )
        return plan, query, notes

    def _allowed(
        self, opened: Opened, plan: TargetRequest | LookalikeRequest
    ) -> npt.NDArray[np.bool_] | None:
        if plan.rules is None:
            return None
        rule = parse(plan.rules.model_dump(exclude_none=True))
        return opened.rules.allowed(rule, self._targeting.members)

    def _saved(self) -> SavedAudiences:
        if self._audiences is None:
            raise UnknownAudience("audience: no audience is saved here")
        return self._audiences

    def _rows(self, manifest: Manifest, found: Audience) -> Rows:
        """The members' rows in the snapshot's matrices."""
        users = pq.read_table(self._targeting.live.store.workspace.root / manifest.users)
        rows = pc.index_in(found.ids, value_set=users["user_id"].combine_chunks())
        known: Rows = np.sort(rows.drop_null().to_numpy().astype(np.int64))
        return known


def _origin(manifest: Manifest) -> list[str]:
    return ["This snapshot was built from synthetic data."] if manifest.synthetic else []
