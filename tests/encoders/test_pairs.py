"""Pairs: whom a sentence fits, read from its words by brute force."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from encoders import templates
from encoders.pairs import FactTable, OutcomeTable, PairSampler
from feature_repo import schema

Facts = list[dict[str, Any]]


@pytest.fixture(scope="module")
def cutoffs(world: Any) -> list[Any]:
    return [world.end - timedelta(weeks=1), world.end]


@pytest.fixture(scope="module")
def samples(world: Any, cutoffs: list[Any]) -> list[tuple[str, Any]]:
    return [(user, cutoff) for cutoff in cutoffs for user in world.users[:5]]


@pytest.fixture(scope="module")
def facts(world: Any, cutoffs: list[Any], make_facts: Callable) -> Facts:
    """Facts of the samples, and of users and times that are no samples."""
    rows = [r for n, c in enumerate(cutoffs) for r in make_facts(world.users[:5], c, seed=n)]
    strangers = make_facts(["x1", "x2", "x3"], cutoffs[0], seed=7)
    return [*strangers, *rows, *make_facts(world.users[:5], world.end + timedelta(weeks=9))]


@pytest.fixture(scope="module")
def table(
    samples: list, facts: Facts, facts_table: Callable, micros_of: Callable
) -> FactTable:  # fmt: skip
    times = np.array([micros_of(cutoff) for _, cutoff in samples])
    return FactTable(facts_table(facts), [user for user, _ in samples], times)


def of_sample(facts: Facts, sample: tuple[str, Any]) -> Facts:
    return [fact for fact in facts if (fact["user_id"], fact["cutoff"]) == sample]


@pytest.fixture
def make_sampler(world: Any, samples: list, micros_of: Callable) -> Callable[..., Any]:
    """A sampler and the list of sentences it has asked tokens of."""

    def build(
        table: FactTable, num_sentences: int = 6, **more: Any
    ) -> tuple[PairSampler, list[str]]:
        said: list[str] = []

        def tokenize(texts: list[str]) -> dict[str, torch.Tensor]:
            said[:] = texts
            return {"pooled": torch.arange(len(texts))}

        collate = world.collate()
        rows = collate.history.rows([s[0] for s in samples], [micros_of(s[1]) for s in samples])
        assert (rows >= 0).all()
        sampler = PairSampler(
            collate, table, rows, tokenize, num_sentences=num_sentences, horizon_days=28, **more
        )
        return sampler, said

    return build


def test_facts_of_a_sample_are_its_own(table: FactTable, samples: list, facts: Facts) -> None:
    asked = np.array([4, 0, 7, 1, 4])
    position, key, size = table.of(asked)
    for b, sample in enumerate(asked):
        got = [
            (*table.names[k], s)
            for k, s in zip(key[position == b], size[position == b], strict=True)
        ]
        expected = [
            (f["kind"], f["subject"],
             f["count"] if templates.is_counted(f["kind"]) else f["amount"])
            for f in of_sample(facts, samples[sample])
        ]  # fmt: skip
        if not any(kind == "purchase" for kind, _, _ in expected):
            expected.append(("purchase", templates.NOTHING, 1.0))
        assert sorted(got) == sorted(expected)
    assert table.names == sorted(set(table.names))


def test_who_bought_nothing_has_the_fact_of_nothing(
    table: FactTable, samples: list, facts: Facts
) -> None:
    nothing = table.names.index(("purchase", templates.NOTHING))
    idle = []
    for sample in range(len(samples)):
        _, key, _ = table.of(np.array([sample]))
        bought = any(fact["kind"] == "purchase" for fact in of_sample(facts, samples[sample]))
        assert (nothing in key) == (not bought)
        idle.append(not bought)
    assert 0 < sum(idle) < len(idle)


def test_who_only_clicked_bought_nothing(facts_table: Callable, cutoffs: list[Any]) -> None:
    click = {"user_id": "a", "cutoff": cutoffs[0], "kind": "click", "subject": "banner",
             "level": 0, "count": 3.0, "amount": None}  # fmt: skip
    table = FactTable(facts_table([click]), ["a"], np.array([cutoffs[0].timestamp() * 1e6], int))
    _, key, size = table.of(np.array([0]))
    got = {table.names[k]: s for k, s in zip(key, size, strict=True)}
    assert got == {("click", "banner"): 3.0, ("purchase", templates.NOTHING): 1.0}


def test_who_bought_what_no_sentence_is_about_did_not_buy_nothing(
    facts_table: Callable, world: Any, samples: list, make_sampler: Callable, micros_of: Callable
) -> None:
    """Buyers of bread, of saffron (left out of the sentences), and of nothing."""
    users, cutoff = world.users[:3], samples[0][1]
    bought = {"cutoff": cutoff, "kind": "purchase", "level": 1, "count": 1.0, "amount": 2.0}
    rows = [
        {**bought, "user_id": user, "subject": subject}
        for user, subject in zip(users, ("BREAD", "SAFFRON"), strict=False)
    ]
    times = np.full(3, micros_of(cutoff))
    table = FactTable(facts_table(rows[:1]), users, times, everything=facts_table(rows))
    position, key, _ = table.of(np.arange(3))
    assert [(p, table.names[k][1]) for p, k in zip(position, key, strict=True)] == [
        (0, "BREAD"), (2, templates.NOTHING)
    ]  # fmt: skip
    sampler, said = make_sampler(table)
    for drawn in ([0, 1, 2], [1, 1]):  # even a batch in which nobody has a fact
        batch = sampler(np.array(drawn), np.random.default_rng(0))
        assert len(said) == batch.label_BS.shape[1] == 6
        fitting = [[said[s] for s in row.nonzero()] for row in batch.label_BS]
        assert all(not fitting[b] for b, sample in enumerate(drawn) if sample == 1)
        assert all(fitting[b] for b, sample in enumerate(drawn) if sample != 1)


def test_the_order_of_facts_does_not_matter(
    table: FactTable, samples: list, facts: Facts, facts_table: Callable, micros_of: Callable
) -> None:
    order = np.random.default_rng(0).permutation(len(facts))
    times = np.array([micros_of(cutoff) for _, cutoff in samples])
    shuffled = FactTable(
        facts_table([facts[i] for i in order]), [user for user, _ in samples], times
    )
    assert shuffled.names == table.names
    for part in ("keys", "sizes", "offsets"):
        np.testing.assert_array_equal(getattr(shuffled, part), getattr(table, part))


def test_without_any_fact_everybody_bought_nothing(facts_table: Callable) -> None:
    table = FactTable(facts_table([]), ["a", "b"], np.array([1, 1]))
    position, key, size = table.of(np.array([1, 0]))
    assert table.names == [("purchase", templates.NOTHING)]
    assert (position.tolist(), key.tolist(), size.tolist()) == ([0, 1], [0, 0], [1.0, 1.0])


def test_labels_are_what_the_words_say(
    make_sampler: Callable, table: FactTable, samples: list, facts: Facts, fits: Callable
) -> None:
    sampler, said = make_sampler(table)
    drawn = np.random.default_rng(5)
    seen: dict[str, int] = {"named": 0, "above": 0, "below": 0, "nothing": 0}
    for seed in range(60):
        chosen = drawn.choice(len(samples), 6, replace=False)
        batch = sampler(chosen, np.random.default_rng(seed))
        assert batch.label_BS.dtype == torch.int8
        expected = [[fits(text, of_sample(facts, samples[i])) for text in said] for i in chosen]
        assert batch.label_BS.tolist() == expected, said  # 1 == True
        for s, text in enumerate(said):
            fit = batch.label_BS[:, s] > 0
            seen["nothing"] += bool(fit.any()) and ("nothing" in text or "away" in text)
            if "more than" in text and "more than 0 " not in text:
                plain = fits_without_number(fits, text, facts, samples, chosen)
                seen["named"] += 1
                seen["above"] += int((fit & plain).sum())
                seen["below"] += int((~fit & plain).sum())
    assert min(seen.values()) > 20, seen  # each case occurred, thresholds cut both ways


def fits_without_number(
    fits: Callable, text: str, facts: Facts, samples: list, chosen: np.ndarray
) -> torch.Tensor:
    words = text.replace("more than", "some")
    return torch.tensor([fits(words, of_sample(facts, samples[i])) for i in chosen])


def test_users_of_a_batch_are_the_samples_in_order(
    make_sampler: Callable, table: FactTable, world: Any
) -> None:
    sampler, said = make_sampler(table)
    chosen = np.array([3, 0, 9])
    batch = sampler(chosen, np.random.default_rng(0))
    expected = sampler.collate(sampler.rows[chosen])
    assert torch.equal(batch.users.tokens_BL, expected.tokens_BL)
    assert torch.equal(batch.users.values_BF, expected.values_BF)
    assert torch.equal(batch.users.filled_BW, expected.filled_BW)
    assert batch.tokens["pooled"].tolist() == list(range(6))


def test_the_same_generator_draws_the_same(make_sampler: Callable, table: FactTable) -> None:
    sampler, said = make_sampler(table)
    drawn = []
    for seed in (1, 1, 2):
        label_BS = sampler(np.arange(6), np.random.default_rng(seed)).label_BS
        drawn.append((list(said), label_BS.tolist()))
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_sentences_are_about_different_facts_and_favour_those_of_the_batch(
    make_sampler: Callable, table: FactTable
) -> None:
    sampler, said = make_sampler(table, num_sentences=3)
    for seed in range(20):
        batch = sampler(np.arange(5), np.random.default_rng(seed))
        assert len(said) == 3
        # Fewer sentences than facts in the batch: each comes from someone here, so fits someone.
        assert batch.label_BS.any(0).all()


def test_frequent_facts_are_drawn_by_their_root(make_sampler: Callable, table: FactTable) -> None:
    sampler, _ = make_sampler(table, num_sentences=1)
    rng = np.random.default_rng(0)
    key = np.repeat([0, 1, 2], [100, 9, 1])
    drawn = [sampler._choose(key, rng)[0] for _ in range(4_000)]
    share = np.bincount(drawn, minlength=3)[:3] / 4_000
    np.testing.assert_allclose(share, np.array([10, 3, 1]) / 14, atol=0.03)


def test_every_wording_and_only_rounded_numbers_are_said(
    make_sampler: Callable, table: FactTable
) -> None:
    sampler, said = make_sampler(table)
    heard = set()
    for seed in range(300):
        sampler(np.arange(10), np.random.default_rng(seed))
        heard.update(said)
    wordings = templates.num_wordings("purchase")
    plain = {
        templates.sentence("purchase", ["BREAD"], horizon_days=28, wording=w)
        for w in range(1, wordings)
    }
    assert plain <= heard
    numbers = {
        float(text.split("more than ")[1].split()[0].replace(",", ""))
        for text in heard
        if "more than" in text
    }
    assert len(numbers) > 4
    assert all(templates.round_down(n) == n for n in numbers)


def test_more_sentences_than_the_batch_has_facts_are_filled_with_others(
    make_sampler: Callable, table: FactTable, samples: list, facts: Facts, fits: Callable
) -> None:
    sampler, said = make_sampler(table, num_sentences=len(table.names) - 1)
    batch = sampler(np.array([1]), np.random.default_rng(0))  # the user who does nothing
    assert len(said) == len(table.names) - 1
    assert batch.label_BS[0].tolist() == [fits(text, of_sample(facts, samples[1])) for text in said]
    assert batch.label_BS.sum() == 1


def test_a_world_with_fewer_facts_than_sentences_can_be_sampled(
    make_sampler: Callable, table: FactTable
) -> None:
    sampler, said = make_sampler(table, num_sentences=len(table.names) + 3)
    batch = sampler(np.arange(10), np.random.default_rng(0))
    assert batch.label_BS.shape[1] == len(said) == len(table.names) + 3


def test_to_moves_users_tokens_and_labels(make_sampler: Callable, table: FactTable) -> None:
    sampler, _ = make_sampler(table)
    batch = sampler(np.arange(3), np.random.default_rng(0)).to("meta")
    tensors = [batch.label_BS, batch.weight_S, batch.users.lines_VE, *batch.tokens.values()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_cutoffs_may_come_in_any_unit(
    table: FactTable, samples: list, facts: Facts, facts_table: Callable, micros_of: Callable
) -> None:
    coarse = facts_table(facts)
    index = coarse.column_names.index("cutoff")
    coarse = coarse.set_column(index, "cutoff", coarse["cutoff"].cast(pa.timestamp("s", tz="UTC")))
    times = np.array([micros_of(cutoff) for _, cutoff in samples])
    again = FactTable(coarse, [user for user, _ in samples], times)
    np.testing.assert_array_equal(again.keys, table.keys)


# --- outcomes


@pytest.fixture(scope="module")
def answers(samples: list, cutoffs: list[Any]) -> Facts:
    """Of most samples, and of a user and a time that are no samples."""
    rng = np.random.default_rng(2)
    asked = [*samples, ("stranger", cutoffs[0]), (samples[0][0], cutoffs[0] - timedelta(weeks=9))]
    return [
        {"user_id": user, "cutoff": cutoff, "outcome": outcome, "horizon_days": days,
         "happened": bool(rng.random() < 0.5)}
        for user, cutoff in asked
        for outcome, days in [("nothing", 56), ("coupon", 14), ("nothing", 14)]
        if rng.random() < 0.7
    ]  # fmt: skip


def outcome_table(answers: Facts, samples: list, micros_of: Callable) -> OutcomeTable:
    times = np.array([micros_of(cutoff) for _, cutoff in samples])
    rows = pa.Table.from_pylist(answers, schema=schema.OUTCOMES)
    return OutcomeTable(rows, [user for user, _ in samples], times)


def slow_labels(answers: Facts, samples: list, names: list[tuple[str, int]]) -> list[list[int]]:
    held = {
        (row["user_id"], row["cutoff"], row["outcome"], row["horizon_days"]): row["happened"]
        for row in answers
    }
    return [[int(held.get((*sample, *name), -1)) for name in names] for sample in samples]


def test_an_outcome_is_yes_no_or_unknown(
    answers: Facts, samples: list, micros_of: Callable
) -> None:
    table = outcome_table(answers, samples, micros_of)
    assert table.names == [("coupon", 14), ("nothing", 14), ("nothing", 56)]
    assert table.label_NO.tolist() == slow_labels(answers, samples, table.names)
    assert set(table.label_NO.flatten().tolist()) == {-1, 0, 1}
    backwards = outcome_table(answers[::-1], samples, micros_of)
    np.testing.assert_array_equal(backwards.label_NO, table.label_NO)


def test_without_outcomes_there_is_nothing_to_ask(
    make_sampler: Callable, table: FactTable, samples: list, micros_of: Callable
) -> None:
    empty = outcome_table([], samples, micros_of)
    assert empty.names == [] and empty.label_NO.shape == (len(samples), 0)
    drawn = []
    for more in ({}, {"outcomes": empty, "outcome_weight": 9.0}):
        sampler, said = make_sampler(table, **more)
        batch = sampler(np.arange(6), np.random.default_rng(1))
        drawn.append((list(said), batch.label_BS.tolist(), batch.weight_S.tolist()))
    assert drawn[0] == drawn[1] and set(drawn[0][2]) == {1.0}


def test_every_step_asks_for_every_outcome_after_its_facts(
    make_sampler: Callable, table: FactTable, samples: list, facts: Facts, fits: Callable,
    answers: Facts, micros_of: Callable,
) -> None:  # fmt: skip
    outcomes = outcome_table(answers, samples, micros_of)
    sampler, said = make_sampler(table, outcomes=outcomes, outcome_weight=2.5)
    heard: dict[tuple[str, int], set[str]] = {name: set() for name in outcomes.names}
    chosen = np.array([7, 0, 3, 4])
    asked = [samples[i] for i in chosen]
    for seed in range(60):
        batch = sampler(chosen, np.random.default_rng(seed))
        assert batch.weight_S.tolist() == [1.0] * 6 + [2.5] * 3
        expected = [[fits(text, of_sample(facts, sample)) for text in said[:6]] for sample in asked]
        assert batch.label_BS[:, :6].tolist() == expected
        assert batch.label_BS[:, 6:].tolist() == slow_labels(answers, asked, outcomes.names)
        for name, text in zip(outcomes.names, said[6:], strict=True):
            heard[name].add(text)
    for (outcome, days), texts in heard.items():
        assert texts == {
            templates.outcome_sentence(outcome, horizon_days=days, wording=n)
            for n in range(templates.num_outcome_wordings(outcome))
        }
