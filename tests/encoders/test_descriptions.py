"""Descriptions: one text per user, true of that user, and each user's own positive."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from encoders import templates
from encoders.descriptions import Descriptions, DescriptionSampler, distinct_users
from encoders.pairs import FactTable

Facts = list[dict[str, Any]]
ORDER = ["purchased", "browsed", "searched for", "clicked", "paid"]


@pytest.fixture(scope="module")
def facts(world: Any, make_facts: Callable) -> Facts:
    return make_facts(world.users, world.end, seed=3)


@pytest.fixture
def describe(
    world: Any, facts: Facts, facts_table: Callable, micros_of: Callable
) -> Callable[..., Descriptions]:
    def build(rows: Facts = facts, max_items: int = 2) -> Descriptions:
        times = np.full(len(world.users), micros_of(world.end))
        table = facts_table(rows)
        return Descriptions(FactTable(table, world.users, times), table, max_items=max_items)

    return build


def named_number(text: str) -> float:
    found = re.search(r"more than ([\d,]+)", text)
    assert found
    return float(found[1].replace(",", ""))


def test_the_five_kinds_are_strung_together_and_true(
    describe: Callable, world: Any, facts: Facts
) -> None:
    texts = describe()(np.arange(len(world.users)), np.random.default_rng(0))
    assert len(texts) == len(world.users)
    kinds_seen = set()
    for user, text in zip(world.users, texts, strict=True):
        own = [fact for fact in facts if fact["user_id"] == user]
        sentences = [f"The user {s}".rstrip() for s in text.split("The user ")[1:]]
        verbs = [next(v for v in ORDER if s.startswith(f"The user {v}")) for s in sentences]
        assert verbs == sorted(verbs, key=ORDER.index)
        for sentence, verb in zip(sentences, verbs, strict=True):
            kind = dict(zip(ORDER, templates._TEMPLATES, strict=True))[verb]
            mine = [fact for fact in own if fact["kind"] == kind]
            if not mine:
                assert sentence == "The user purchased nothing."
                continue
            kinds_seen.add(kind)
            named = [f["subject"] for f in mine if f["subject"].lower() in sentence]
            assert len(named) == min(2, len(mine))
            assert ("etc." in sentence) == (len(mine) > 2)
            size = "count" if templates.is_counted(kind) else "amount"
            total = sum(fact[size] for fact in mine)  # every fact of this world is on level 1
            assert named_number(sentence) == templates.round_down(total * (1 - 1e-9))
        told = {fact["kind"] for fact in own} | {"purchase"}
        assert len(sentences) == len(told)
    assert kinds_seen == {*templates._TEMPLATES}


def test_the_papers_example_comes_out(describe: Callable, world: Any) -> None:
    row = {"cutoff": world.end, "kind": "purchase", "count": 1.0}
    gold = [
        {**row, "user_id": "u0", "subject": "JEWELLERY", "level": 1, "amount": 12_000.0},
        {**row, "user_id": "u0", "subject": "GOLD BARS", "level": 2, "amount": 11_000.0},
    ]
    (text,) = describe(gold)(np.array([0]), np.random.default_rng(0))
    assert text in {
        f"The user purchased {items} amounting more than 10,000 dollars with successful payment."
        for items in ("jewellery, gold bars", "gold bars, jewellery")
    }  # the department holds the bars: amounts are not counted twice


def test_who_bought_only_what_may_not_be_named_bought_something_else(
    facts_table: Callable, world: Any, micros_of: Callable
) -> None:
    row = {"cutoff": world.end, "kind": "purchase", "level": 1, "count": 1.0, "amount": 3.0}
    kept, left_out = ({**row, "user_id": f"u{n}", "subject": s} for n, s in enumerate("AB"))
    times = np.full(3, micros_of(world.end))
    table = FactTable(
        facts_table([kept]), ["u0", "u1", "u2"], times, everything=facts_table([kept, left_out])
    )
    describe = Descriptions(table, facts_table([kept]), max_items=2)
    assert describe(np.arange(3), np.random.default_rng(0))[1:] == [
        templates.SOMETHING_ELSE, "The user purchased nothing."
    ]  # fmt: skip


def test_what_is_named_changes_and_every_subject_gets_its_turn(
    describe: Callable, world: Any, facts: Facts
) -> None:
    descriptions = describe(max_items=1)
    bought: dict[str, set[str]] = {user: set() for user in world.users}
    for seed in range(40):
        texts = descriptions(np.arange(len(world.users)), np.random.default_rng(seed))
        for user, text in zip(world.users, texts, strict=True):
            bought[user] |= {s for s in ("APPLES", "BREAD", "CHEESE") if s.lower() in text}
    for user in world.users:
        mine = {f["subject"] for f in facts if (f["user_id"], f["kind"]) == (user, "purchase")}
        assert bought[user] == mine
    again = [descriptions(np.arange(3), np.random.default_rng(5)) for _ in range(2)]
    assert again[0] == again[1]


def test_a_user_and_their_own_description_are_the_pair(
    describe: Callable, world: Any, micros_of: Callable
) -> None:
    said: list[str] = []

    def tokenize(texts: list[str]) -> dict[str, torch.Tensor]:
        said[:] = texts
        return {"pooled": torch.arange(len(texts))}

    collate = world.collate()
    rows = collate.history.rows(world.users, [micros_of(world.end)] * len(world.users))
    sampler = DescriptionSampler(collate, describe(), rows, tokenize)
    samples = np.array([3, 1, 6, 0])
    batch = sampler(samples, np.random.default_rng(0))
    assert said == describe()(samples, np.random.default_rng(0))
    assert torch.equal(batch.label_BS, torch.eye(4, dtype=torch.int8))
    assert torch.equal(batch.users.codes_BC, collate(rows[samples]).codes_BC)


def test_equal_descriptions_are_each_others_positives(
    describe: Callable, world: Any, micros_of: Callable
) -> None:
    collate = world.collate()
    rows = collate.history.rows(world.users, [micros_of(world.end)] * len(world.users))
    idle = describe(rows=[])  # nobody does anything: all are told alike
    batch = DescriptionSampler(collate, idle, rows, lambda texts: {})(
        np.array([0, 2, 4]), np.random.default_rng(0)
    )
    assert batch.label_BS.all()


def test_no_user_is_twice_in_a_batch_while_there_are_enough() -> None:
    users = np.repeat(np.arange(10), 5)
    drawn = set()
    for seed in range(30):
        chosen = distinct_users(users, 10, np.random.default_rng(seed))
        assert sorted(users[chosen]) == list(range(10))
        drawn |= {*chosen.tolist()}
    assert drawn == set(range(50))  # and every sample has its turn
    many = distinct_users(users, 14, np.random.default_rng(0))
    assert len(many) == 14
    assert len({*users[many[:10]].tolist()}) == 10


def test_a_long_description_is_cut_at_its_end(describe: Callable, minilm: Any) -> None:
    """The text tower cuts; with all five kinds told, what is lost comes last."""
    tokenizer, _ = minilm
    texts = describe(max_items=8)(np.arange(7), np.random.default_rng(0))
    longest = max(texts, key=len)
    pieces = tokenizer(longest)["input_ids"]
    cut = tokenizer(longest, truncation=True, max_length=24)["input_ids"]
    assert len(cut) == 24 < len(pieces)
    assert cut[:-1] == pieces[:23]
    assert tokenizer.decode(cut, skip_special_tokens=True) in longest.lower()
