"""Saved audiences: run again, compared, split for an experiment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from encoders.query import Query
from feature_repo.errors import InputError, ManifestError, UnknownAudience, UnknownSnapshot
from sdk.reaching import LookalikeRequest
from sdk.saved import SaveAudience
from sdk.types import TargetRequest
from serving.audience_store import AudienceStore
from serving.audiences import SavedAudiences
from serving.database import open_database
from serving.holdout import held_out, places
from serving.live import Opener
from serving.targeting import Targeting

TEXT = "households that will buy diapers"


@pytest.fixture
def store(world: Any, database: str) -> AudienceStore:
    return AudienceStore(world.workspace, open_database(world.workspace))


@pytest.fixture
def audiences(world: Any, store: AudienceStore) -> SavedAudiences:
    world.publish(1, live=True)
    return SavedAudiences(Targeting(world.live(), None, members=store.member_ids), store)


def plan(name: str = "Diapers", holdout: float = 0.0, **fields: Any) -> SaveAudience:
    target = TargetRequest(**{"text": TEXT, "size": 10, **fields})
    return SaveAudience(name=name, target=target, holdout=holdout, holdout_key="fixed")


def test_a_saved_audience_comes_back_with_its_members(
    audiences: SavedAudiences, store: AudienceStore
) -> None:
    rules = {"type": "not", "rule": {"type": "users", "ids": ["u3"]}}
    saved = audiences.save(plan(rules=rules), "me")
    again = audiences.get(saved.id)
    assert again == saved
    assert (saved.name, saved.owner, saved.num_runs) == ("Diapers", "me", 1)
    assert saved.words == "not (one of 1 named users)"
    assert TargetRequest.model_validate(saved.target) == plan(rules=rules).target
    direct = audiences._targeting.target(plan(rules=rules).target)
    members = audiences.members(saved.id)
    assert members.user_ids == direct.user_ids and members.meta == direct.meta
    np.testing.assert_array_equal(members.scores, direct.scores)
    assert saved.latest.size == 10
    assert [line.action for line in store.log.page().lines] == ["save"]


def test_pages_go_from_new_to_old(audiences: SavedAudiences) -> None:
    ids = [audiences.save(plan(f"a{n}", size=n + 1), "me").id for n in range(5)]
    first = audiences.page(2, None)
    second = audiences.page(2, first.next)
    third = audiences.page(2, second.next)
    listed = [one.id for page in (first, second, third) for one in page.audiences]
    assert listed == ids[::-1] and third.next is None
    audiences.delete(ids[0], "me")
    with pytest.raises(UnknownAudience, match="no audience is saved as"):
        audiences.get(ids[0])
    assert len(audiences.page(50, None).audiences) == 4


def test_a_rerun_says_who_came_and_who_left(world: Any, audiences: SavedAudiences) -> None:
    old = world.store.live_id()
    saved = audiences.save(plan(), "me")
    before = audiences.members(saved.id).user_ids
    world.publish(2, live=True)
    audiences._targeting.live.refresh()
    change = audiences.rerun(saved.id, None, "me")
    after = audiences.members(saved.id).user_ids
    assert set(change.entered_ids) == set(after) - set(before)
    assert set(change.left_ids) == set(before) - set(after)
    assert (change.stayed + change.entered, change.stayed + change.left) == (10, 10)
    assert change.jaccard == pytest.approx(change.stayed / (20 - change.stayed))
    assert change.audience.num_runs == 2 and change.before.snapshot == old
    assert any("in both" in warning for warning in change.warnings)


def test_an_old_plan_on_an_old_snapshot_gives_the_same_users(
    world: Any, store: AudienceStore
) -> None:
    """Even if the sentence would be read differently by now."""
    given, asked = world.live()._opener, []

    class Moody(given.encoder):  # type: ignore[misc,name-defined]
        def understand(self, text: str, *, rewrite: bool) -> Query:
            asked.append(text)
            return Query(self.encode([f"{text} {len(asked)}"])[0])

    old = world.publish(1, live=True)
    live = world.live(Opener(world.workspace, Moody, given.features))
    audiences = SavedAudiences(Targeting(live, None, members=store.member_ids), store)
    saved = audiences.save(plan(), "me")
    before = audiences.members(saved.id).user_ids
    world.publish(2, live=True)
    live.refresh()
    audiences.rerun(saved.id, None, "me")
    assert audiences.members(saved.id).user_ids != before
    audiences.rerun(saved.id, old.id, "me")
    assert audiences.members(saved.id).user_ids == before
    assert asked == [TEXT], "the query of the first run is used again"
    world.publish(3, live=True, space="ffff000011")
    live.refresh()
    change = audiences.rerun(saved.id, None, "me")
    assert len(asked) == 2 and any("weights changed" in one for one in change.warnings)
    with pytest.raises(UnknownSnapshot):
        audiences.rerun(saved.id, "nowhere", "me")


def test_duplicates_are_noted(audiences: SavedAudiences) -> None:
    first = audiences.save(plan("First"), "me")
    assert first.notes == []
    assert "'First'" in audiences.save(plan("Second"), "me").notes[0]
    alike = audiences.save(plan("Third", exact=True), "me").notes
    assert any("has nearly the same members: 100%" in note for note in alike)
    assert audiences.save(plan("Other", text="quite another demand"), "me").notes == []


def test_overlap_is_symmetric_and_counts(audiences: SavedAudiences) -> None:
    one = audiences.save(plan("One"), "me")
    two = audiences.save(plan("Two", size=20), "me")
    three = audiences.save(plan("Three", exclude_audiences=[one.id], size=30), "me")
    found = audiences.overlap([one.id, two.id, three.id])
    assert found.shared == [[10, 10, 0], [10, 20, 10], [0, 10, 30]]
    assert found.jaccard[0][1] == 0.5 and found.names == ["One", "Two", "Three"]
    assert found.jaccard == np.array(found.jaccard).T.tolist()


def test_the_hold_out_is_a_fixed_share_that_only_grows(audiences: SavedAudiences) -> None:
    users = [f"u{n}" for n in range(20_000)]
    where = places("key", users)
    assert abs((where < 0.1).mean() - 0.1) < 0.01 and 0 <= where.min() and where.max() < 1
    assert (places("key", users[::-1])[::-1] == where).all()
    assert held_out("key", 0.2, users)[held_out("key", 0.1, users)].all()
    both = held_out("key", 0.1, users) & held_out("other", 0.1, users)
    assert abs(both.mean() - 0.01) < 0.005, "keys are independent"
    saved = audiences.save(plan(holdout=0.3, size=40), "me")
    parts = {
        part: audiences.members(saved.id, part).user_ids for part in ("all", "target", "holdout")
    }
    assert sorted(parts["target"] + parts["holdout"]) == sorted(parts["all"])
    assert 0 < len(parts["holdout"]) < 30
    again = audiences.rerun(saved.id, None, "me")
    assert again.jaccard == 1 and again.warnings == []
    assert audiences.members(saved.id, "holdout").user_ids == parts["holdout"]


def test_lost_members_are_told(world: Any, audiences: SavedAudiences) -> None:
    saved = audiences.save(plan(), "me")
    for path in (world.workspace.audiences / saved.id).iterdir():
        path.unlink()
    with pytest.raises(ManifestError, match="run the audience again"):
        audiences.members(saved.id)


def test_a_lookalike_is_saved_and_run_again_like_any_other(
    audiences: SavedAudiences, world: Any
) -> None:
    seeds = [f"u{n}" for n in range(12)]
    asked = LookalikeRequest(seeds=seeds, text=TEXT, size=8)
    saved = audiences.save(SaveAudience(name="Alike", lookalike=asked, holdout=0.2), "me")
    direct = audiences._targeting.lookalike(asked)
    assert audiences.members(saved.id).user_ids == direct.user_ids
    assert LookalikeRequest.model_validate(saved.target) == asked
    assert any("12 seed users" in note for note in saved.latest.notes)
    change = audiences.rerun(saved.id, None, "me")
    assert change.jaccard == 1 and change.entered == 0
    later = world.publish(2)
    moved = audiences.rerun(saved.id, later.id, "me")
    assert moved.audience.latest.snapshot == later.id and moved.entered > 0
    assert not set(audiences.members(saved.id).user_ids) & set(seeds)
    twice = audiences.save(SaveAudience(name="Again", lookalike=asked), "me")
    assert any("the same plan" in note for note in twice.notes)


def test_too_few_seeds_fall_back_and_the_run_says_so(audiences: SavedAudiences) -> None:
    asked = LookalikeRequest(seeds=["u1", "u2"], text=TEXT, size=8)
    saved = audiences.save(SaveAudience(name="Few", lookalike=asked), "me")
    assert any("too few to go by" in note for note in saved.latest.notes)
    alone = asked.model_copy(update={"text": None})
    with pytest.raises(InputError, match="expected at least 10 users"):
        audiences.save(SaveAudience(name="None", lookalike=alone), "me")


@pytest.mark.parametrize("both", [True, False])
def test_one_plan_is_saved(both: bool) -> None:
    target = TargetRequest(text=TEXT) if both else None
    asked = LookalikeRequest(seeds=["u1"]) if both else None
    with pytest.raises(ValidationError, match="exactly one of target and lookalike"):
        SaveAudience(name="Both", target=target, lookalike=asked)
