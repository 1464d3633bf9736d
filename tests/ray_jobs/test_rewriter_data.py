"""What the rewriter is tuned on, and what it must never see."""

from __future__ import annotations

import numpy as np
import pytest

from encoders.catalogue import Catalogue, Subject, plain
from encoders.grounding import without_generic
from ray_jobs.protocol import CATEGORIES
from ray_jobs.rewriter_data import NOTHING_NAMED, Synthesis
from ray_jobs.rewriting_study import read_demands


def catalogue() -> Catalogue:
    """The protocol's categories with three things under each."""
    headings = [*CATEGORIES, *read_demands("complete-journey")["others"]]
    subjects = [Subject("purchase", "GROCERY", 1, "", 900)]
    subjects += [Subject("purchase", name, 2, "GROCERY", 100) for name in headings]
    subjects += [
        Subject("purchase", f"{kind} {name}", 3, name, 10)
        for name in headings
        for kind in ("PREMIUM", "ECONOMY", "ALL OTHER")
    ]
    return Catalogue.of(subjects)


@pytest.fixture(scope="module")
def synthesis() -> Synthesis:
    return Synthesis(catalogue(), horizon_days=28)


def test_the_same_generator_draws_the_same_dialogues(synthesis: Synthesis) -> None:
    for draw in (synthesis.conversation, synthesis.demand):
        one, two = ([draw(np.random.default_rng([3, i])) for i in range(20)] for _ in range(2))
        assert one == two
        assert len({str(turns) for turns in one}) > 15


def test_conversations_have_several_true_rounds(synthesis: Synthesis) -> None:
    parents = {plain(s.name): plain(s.parent) for s in catalogue().subjects}
    found = 0
    for seed in range(50):
        turns = synthesis.conversation(np.random.default_rng(seed))
        assert len(turns) >= 3
        for question, answer in turns:
            for name, parent in parents.items():
                if question in (f"Where do I find {name}?", f"Which heading has {name}?"):
                    assert answer == parent
                    found += 1
    assert found > 20


def test_demands_are_answered_by_template_sentences(synthesis: Synthesis) -> None:
    pairs = [synthesis.demand(np.random.default_rng(i))[0] for i in range(400)]
    answers = {answer for _, answer in pairs}
    sentences = answers - {NOTHING_NAMED}
    assert NOTHING_NAMED in answers
    assert all(
        s.startswith("will buy ") and s.endswith(" in the next four weeks") for s in sentences
    )
    assert any(", " in sentence for sentence in sentences)  # several at once
    assert len({demand for demand, _ in pairs}) > 350


def test_no_written_demand_and_no_phrase_of_one_is_trained_on(synthesis: Synthesis) -> None:
    written = [
        demand
        for group in read_demands("complete-journey").values()
        for demands in group.values()
        for demand in demands
    ]
    drawn = [synthesis.demand(np.random.default_rng(i))[0][0].lower() for i in range(5_000)]
    for demand in written:
        about = without_generic(demand)
        assert all(demand.lower() not in text and about not in text for text in drawn), demand
