"""The single collate against a slow reading of the rows, and what must not leak."""

import doctest
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from encoders import batch as module
from encoders.alignment import FoundModel
from encoders.batch import Collate, UserBatch, example_batch
from encoders.history import History

PARTS = ("window_text", "habits", "assortment")
PLAIN = [f.name for f in fields(UserBatch) if f.name not in ("bags", *PARTS)]
SOURCES = {"bill": "bills", "click": "clicks", "mini_program": "mini_programs"}


def equal(a: UserBatch, b: UserBatch) -> bool:
    same = all(torch.equal(getattr(a, name), getattr(b, name)) for name in PLAIN)
    for part in PARTS:
        one, other = getattr(a, part), getattr(b, part)
        same &= (one is None) == (other is None)
        if one is not None and other is not None:
            same &= all(torch.equal(each, getattr(other, n)) for n, each in vars(one).items())
    bags = a.bags.keys() == b.bags.keys() and all(
        torch.equal(getattr(a.bags[s], part), getattr(b.bags[s], part))
        for s in a.bags
        for part in ("ids", "offsets", "weights")
    )
    return same and bags


def window_sums(batch: UserBatch, source: str) -> torch.Tensor:
    bag = batch.bags[source]
    sums = torch.nn.functional.embedding_bag(
        bag.ids, batch.lines_VE, bag.offsets, mode="sum", per_sample_weights=bag.weights
    )
    return sums.view(*batch.known_BW.shape, -1)


@pytest.fixture(scope="module")
def samples(world: Any, micros_of: Callable) -> list[tuple[str, int, Any]]:
    """(user, row time in µs, row time) of every row, in no order."""
    order = np.random.default_rng(3).permutation(len(world.rows))
    times = [world.rows[i]["event_timestamp"] for i in order]
    return [
        (world.rows[i]["user_id"], micros_of(t), t) for i, t in zip(order, times, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize("windows", [1, 4, 9])
def test_collate_equals_a_slow_reading_of_each_users_rows(
    world: Any, samples: list, vector_of: Callable, tokens_of: Callable, windows: int
) -> None:
    collate = world.collate(windows=windows)
    rows = collate.history.rows([s[0] for s in samples], [s[1] for s in samples])
    batch = collate(rows)
    by_key = {(row["user_id"], row["event_timestamp"]): row for row in world.rows}
    sums = {source: window_sums(batch, source) for source in batch.bags}
    for b, (user, _, time) in enumerate(samples):
        past = [by_key.get((user, time - timedelta(weeks=k))) for k in reversed(range(windows))]
        searched = []
        for w, row in enumerate(past):
            assert batch.known_BW[b, w] == (row is not None)
            lines = 0
            for source, total in sums.items():
                texts = row[SOURCES[source]] if row else []
                counts = row[f"{SOURCES[source][:-1]}_counts"] if row else []
                weights = np.log1p(np.array(counts))[:, None]
                expected = (vector_of(texts) * weights).sum(0) if texts else np.zeros(8)
                np.testing.assert_allclose(total[b, w], expected, atol=1e-5)
                lines += len(texts)
            assert batch.filled_BW[b, w] == (lines > 0)
        for row in reversed(past):
            searched += [t for text in (row["searches"] if row else []) for t in tokens_of(text)]
        expected_tokens = searched[:12] + [0] * (12 - len(searched[:12]))
        assert batch.tokens_BL[b].tolist() == expected_tokens
        assert batch.present_BM[b].tolist() == [
            batch.filled_BW[b].any().item(), True, len(searched) > 0,
        ]  # fmt: skip
        codes, values, missing = world.columns().encode(world.table("profile", [past[-1]]))
        assert batch.codes_BC[b].tolist() == codes[0].tolist()
        assert torch.equal(batch.values_BF[b], torch.from_numpy(values[0]))
        assert batch.missing_BF[b].tolist() == missing[0].tolist()
    assert batch.present_BM.any(0).all()
    assert not batch.present_BM[:, 2].all()


def test_windows_before_a_users_first_are_unknown_not_the_neighbours(world: Any) -> None:
    history = world.history()
    for row, user in enumerate(history.user_ids):
        [before] = history.windows(np.array([row]), 9)
        kept = before[before >= 0]
        assert [history.user_ids[r] for r in kept] == [user] * len(kept)
        assert len(kept) == row - history.user_ids.index(user) + 1
        assert kept[-1] == row


def test_a_source_nobody_has_is_absent(world: Any) -> None:
    batch = world.collate()(np.arange(5))
    assert sorted(batch.bags) == ["bill", "click"]


def test_a_modality_without_tables_stays_absent(world: Any, vector_of: Callable) -> None:
    history = History(world.table("behaviour"), None, None, vector_of)
    batch = Collate(history, windows=4, table=world.columns(), search_tokens=lambda t: [5])(
        np.arange(len(history.user_ids))
    )
    assert not batch.present_BM[:, 1:].any()
    assert not batch.tokens_BL.any()
    assert batch.codes_BC.numel() == batch.values_BF.numel() == 0
    full = world.history()
    left_out = Collate(full, windows=4)(np.arange(5))
    assert not left_out.present_BM[:, 1:].any()
    assert torch.equal(left_out.filled_BW, batch.filled_BW[:5])


def test_the_order_of_rows_in_the_tables_does_not_matter(world: Any) -> None:
    order = np.random.default_rng(1).permutation(len(world.rows))
    shuffled = world.collate(rows=[world.rows[i] for i in order])
    rows = np.arange(len(world.rows))
    assert equal(world.collate()(rows), shuffled(rows))
    reordered = world.collate(rows=[dict(row) for row in world.rows[::-1]])
    assert equal(world.collate()(rows), reordered(rows))


def test_rows_after_the_cutoff_do_not_matter(world: Any, micros_of: Callable) -> None:
    cutoff = world.end - timedelta(weeks=2)
    users = sorted({r["user_id"] for r in world.rows if r["event_timestamp"] == cutoff})
    early = world.collate(rows=[r for r in world.rows if r["event_timestamp"] <= cutoff])
    whole = world.collate()
    cutoffs = [micros_of(cutoff)] * len(users)
    batches = [c(c.history.rows(users, cutoffs)) for c in (early, whole)]
    assert equal(*batches)
    assert batches[0].filled_BW.any()


def test_a_user_has_the_same_vector_alone_and_among_others(
    world: Any, tiny_config: Callable
) -> None:
    model = FoundModel(tiny_config()).eval()
    collate = world.collate()
    rows = np.arange(len(world.rows))
    with torch.no_grad():
        together = model(collate(rows))
        alone = torch.cat([model(collate(rows[i : i + 1])) for i in rows])
    torch.testing.assert_close(together, alone, atol=2e-6, rtol=1e-5)
    assert together.std(0).min() > 1e-2  # the users do differ


def test_another_users_rows_cannot_reach_a_user(world: Any, tiny_config: Callable) -> None:
    model = FoundModel(tiny_config()).eval()
    mine = "u3"
    changed = []
    for row in world.rows:
        other = {"bills": ["candles"], "bill_counts": [9.0], "searches": ["cheap flights"],
                 "search_counts": [1.0], "spend": 9_999.0, "tier": "low"}  # fmt: skip
        changed.append(row if row["user_id"] == mine else row | other)
    vectors = {}
    for name, rows in (("before", world.rows), ("after", changed)):
        collate = world.collate(rows=rows)
        own = [i for i, user in enumerate(collate.history.user_ids) if user == mine]
        with torch.no_grad():
            vectors[name] = model(collate(np.arange(len(rows))))
        vectors[name] = vectors[name][own], vectors[name][: own[0]]
    torch.testing.assert_close(vectors["before"][0], vectors["after"][0], atol=2e-6, rtol=1e-5)
    assert (vectors["before"][1] - vectors["after"][1]).abs().max() > 1e-2


def test_rows_finds_the_window_that_ends_at_the_cutoff(world: Any, micros_of: Callable) -> None:
    history = world.history()
    times = [micros_of(world.end), micros_of(world.end) + 1, micros_of(world.end)]
    found = history.rows(["u2", "u2", "nobody"], times)
    assert found[1:].tolist() == [-1, -1]
    assert history.user_ids[found[0]] == "u2"
    assert history.times_R[found[0]] == micros_of(world.end)


def test_an_unknown_user_has_no_windows_and_no_searches(world: Any) -> None:
    collate = world.collate()
    batch = collate(np.array([-1, 0]))
    assert not batch.known_BW[0].any()
    assert not batch.filled_BW[0].any()
    assert not batch.tokens_BL[0].any()
    assert batch.present_BM[0, [0, 2]].tolist() == [False, False]
    assert 0 not in batch.habits.owner


def test_an_unknown_user_has_no_profile(world: Any) -> None:
    collate = world.collate()
    batch = collate(np.array([-1, 0]))
    assert not batch.present_BM[0].any()
    assert not batch.codes_BC[0].any()
    assert batch.missing_BF[0].all()


def test_empty_windows_alone_make_a_batch_without_lines(world: Any, tiny_config: Callable) -> None:
    row = world.rows[0] | {"user_id": "quiet", "searches": [], "search_counts": []}
    for name in ("bills", "clicks"):
        row |= {name: [], f"{name[:-1]}_counts": []}
    collate = world.collate(rows=[*world.rows, row])
    batch = collate(np.array([collate.history.user_ids.index("quiet")]))
    assert batch.known_BW.sum() == 1
    assert not batch.filled_BW.any()
    assert batch.present_BM.tolist() == [[False, True, False]]
    assert torch.isfinite(FoundModel(tiny_config()).eval()(batch)).all()


@pytest.mark.parametrize("name", ["user_id", "event_timestamp"])
def test_views_that_disagree_are_refused_by_name(
    world: Any, vector_of: Callable, name: str
) -> None:
    other = {"user_id": "u999", "event_timestamp": world.end + timedelta(weeks=9)}[name]
    profile = world.table("profile", [*world.rows[:-1], world.rows[-1] | {name: other}])
    with pytest.raises(ValueError, match=rf"disagree on {name}.*build_features"):
        History(world.table("behaviour"), profile, None, vector_of)
    with pytest.raises(ValueError, match=f"{len(world.rows) - 1} rows against {len(world.rows)}"):
        History(
            world.table("behaviour"), None, world.table("search", world.rows[1:]), vector_of
        )  # fmt: skip
    habits = world.table("habits", [*world.rows[:-1], world.rows[-1] | {name: other}])
    with pytest.raises(ValueError, match=rf"disagree on {name}.*build_features"):
        History(world.table("behaviour"), None, None, vector_of, habits)


def test_null_lists_count_as_empty(world: Any, vector_of: Callable) -> None:
    rows = [
        row if row["clicks"] else row | {"clicks": None, "click_counts": None}
        for row in world.rows
    ]  # fmt: skip
    assert any(row["clicks"] is None for row in rows)
    assert equal(world.collate(rows=rows)(np.arange(9)), world.collate()(np.arange(9)))


def test_each_distinct_line_is_embedded_once(world: Any, vector_of: Callable) -> None:
    asked: list[str] = []

    def embed(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return vector_of(texts)

    History(world.table("behaviour"), None, None, embed)
    expected = {t for row in world.rows for name in SOURCES.values() for t in row[name]}
    assert sorted(asked) == sorted(expected)


def test_times_may_come_in_any_unit(world: Any, vector_of: Callable) -> None:
    table = world.table("behaviour")
    seconds = table["event_timestamp"].cast(pa.timestamp("s", tz="UTC"))
    index = table.column_names.index("event_timestamp")
    coarse = History(
        table.set_column(index, "event_timestamp", seconds), None, None, vector_of
    )  # fmt: skip
    assert coarse.times_R.tolist() == world.history().times_R.tolist()


def test_to_moves_every_tensor(world: Any) -> None:
    batch = world.collate()(np.arange(3)).to("meta")
    tensors = [getattr(batch, name) for name in PLAIN]
    for part in PARTS:
        tensors += vars(getattr(batch, part)).values()
    for bag in batch.bags.values():
        tensors += [bag.ids, bag.offsets, bag.weights]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert len(batch) == 3


def test_example_batch_is_as_documented() -> None:
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(module).attempted >= 2
    batch = example_batch(num_users=2, windows=3)
    assert len(batch) == 2
    assert equal(batch, example_batch(num_users=2, windows=3))
    assert not equal(batch, replace(batch, filled_BW=~batch.filled_BW))
