"""Relevance feedback: what the past adds to a sentence about a known subject."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders import checkpoint
from encoders.alignment import AlignmentConfig, FoundModel
from encoders.feedback import Feedback, FeedbackConfig, borne_out, past
from encoders.lists import Lists

USERS, SUBJECTS, WIDTH = 300, 4, 12


Population = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture
def population() -> Population:
    """Users whose vectors show their habits through a random map, and a little else."""
    rng = torch.Generator().manual_seed(0)
    habits_US = torch.rand(USERS, SUBJECTS, generator=rng).log().neg()
    map_SJ = torch.randn(SUBJECTS, WIDTH, generator=rng)
    users_UJ = habits_US @ map_SJ + 0.1 * torch.randn(USERS, WIDTH, generator=rng)
    words_SJ = torch.nn.functional.normalize(torch.randn(SUBJECTS, WIDTH, generator=rng), dim=1)
    return users_UJ, habits_US, words_SJ


NOBODY = torch.zeros(USERS, SUBJECTS, dtype=torch.bool)


def fitted(
    population: Population, trained: list[bool], weight: float = 1.5, shown: torch.Tensor = NOBODY
) -> torch.Tensor:
    users_UJ, habits_US, words_SJ = population
    config = FeedbackConfig(ridge=0.01, weight=weight, sentences=tuple("abcd"))
    feedback = Feedback(config, WIDTH)
    feedback.fit(users_UJ, habits_US, words_SJ, torch.tensor(trained), shown)
    return words_SJ + feedback(tuple("abcd"))


def correlation(population: Population, queries_SJ: torch.Tensor) -> list[float]:
    scores_US = (population[0] @ queries_SJ.T).numpy()
    return [np.corrcoef(scores_US[:, s], population[1][:, s])[0, 1] for s in range(SUBJECTS)]


def spread(population: Population, queries_SJ: torch.Tensor) -> torch.Tensor:
    return (population[0] @ queries_SJ.T).std(0)


def test_past_is_found_where_words_say_nothing(population: Population) -> None:
    assert max(np.abs(correlation(population, population[2]))) < 0.9
    assert min(correlation(population, fitted(population, [False] * 4))) > 0.98


def test_trained_sentences_keep_their_own_words_beside_it(population: Population) -> None:
    users_UJ, _, words_SJ = population
    both = fitted(population, [True] * 4, weight=1.0)
    alone = fitted(population, [False] * 4)
    own = words_SJ / spread(population, words_SJ).unsqueeze(1)
    learnt = alone / spread(population, alone).unsqueeze(1)
    expected = own + learnt
    expected *= (spread(population, words_SJ) / spread(population, expected)).unsqueeze(1)
    torch.testing.assert_close(both, expected, rtol=1e-4, atol=1e-5)


def test_scores_keep_their_spread(population: Population) -> None:
    _, _, words_SJ = population
    own = spread(population, words_SJ)
    torch.testing.assert_close(
        spread(population, fitted(population, [True] * 4)), own, rtol=1e-4, atol=0
    )
    mixed = spread(population, fitted(population, [True, True, True, False]))
    assert mixed[3].item() == pytest.approx(own[:3].median().item(), rel=1e-3)


def test_the_level_that_scores_lose_is_known(population: Population) -> None:
    users_UJ, habits_US, words_SJ = population
    feedback = Feedback(FeedbackConfig(sentences=tuple("abcd")), WIDTH)
    feedback.fit(users_UJ, habits_US, words_SJ, torch.tensor([True, True, True, False]), NOBODY)
    scores_US = users_UJ @ (words_SJ + feedback("abcd")).T + feedback.level("abcd")
    torch.testing.assert_close(scores_US.mean(0), (users_UJ @ words_SJ.T).mean(0))
    assert feedback.level(["e"]).tolist() == [0.0]


def test_a_past_that_was_never_borne_out_is_not_followed(population: Population) -> None:
    users_UJ, _, words_SJ = population
    scores_US = users_UJ @ words_SJ.T
    chance_US = torch.rand(USERS, SUBJECTS, generator=torch.Generator().manual_seed(1))
    by_words = torch.sigmoid(scores_US - scores_US.mean(0)) > chance_US
    followed = spread(population, fitted(population, [True] * 4) - words_SJ)
    left = spread(population, fitted(population, [True] * 4, shown=by_words) - words_SJ)
    assert bool((left < 0.3 * followed).all())
    habits = population[1] > population[1].quantile(0.8, 0)
    torch.testing.assert_close(
        fitted(population, [True] * 4, shown=habits), fitted(population, [True] * 4)
    )
    unseen = fitted(population, [True, True, True, False], shown=by_words)
    alone = fitted(population, [False] * 4)
    torch.testing.assert_close(torch.cosine_similarity(unseen[3], alone[3], 0), torch.tensor(1.0))


def test_both_scores_count_as_they_foretell() -> None:
    rng = torch.Generator().manual_seed(0)
    users_UJ = torch.randn(4_000, 6, generator=rng, dtype=torch.double)
    words_SJ, past_SJ = torch.eye(6, dtype=torch.double).split(3)
    words_US, past_US = users_UJ.split(3, 1)
    noise = torch.randn(4_000, 3, generator=rng, dtype=torch.double)
    truth = torch.tensor([0.5, 1.0, 3.0])
    users_UJ -= users_UJ.mean(0)
    shown_US = words_US + truth * past_US + noise > 1
    weights = borne_out(users_UJ, words_SJ, past_SJ, shown_US, FeedbackConfig(doubt=0))
    torch.testing.assert_close(weights.float(), torch.tensor([0.5, 1.0, 1.5]), rtol=0.1, atol=0)
    shown_US[:, 1] = False  # nobody: judged by all
    shared = borne_out(users_UJ, words_SJ, past_SJ, shown_US, FeedbackConfig())
    assert float(weights[0]) < float(shared[1]) <= 1.5
    nothing = borne_out(users_UJ, words_SJ, past_SJ, torch.zeros_like(shown_US), FeedbackConfig())
    assert nothing.tolist() == [1.5] * 3
    everybody = borne_out(users_UJ, words_SJ, past_SJ, torch.ones_like(shown_US), FeedbackConfig())
    assert everybody.isfinite().all()


def test_other_sentences_are_left_alone(population: Population) -> None:
    feedback = Feedback(FeedbackConfig(sentences=("a",)), WIDTH)
    feedback.shift_SJ.fill_(1.0)
    assert feedback(["A", "a", "will buy a"]).sum(1).tolist() == [0.0, WIDTH, 0.0]


def test_the_past_is_counted_by_user_and_what_few_did_is_left_out() -> None:
    texts = ["apples", "bread", "cheese", "dates"]
    lists = Lists(
        start=np.array([0, 2, 3, 5]), length=np.array([2, 1, 2, 0]), ids=np.array([0, 1, 0, 2, 0]),
        weights=np.array([1, 2, 3, 1, 4], np.float32),
    )  # fmt: skip
    rows_BW = np.array([[0, 1], [-1, 2], [-1, 3]])  # two weeks of one user, one each of two more
    kept, counts_US = past(lists, texts, rows_BW, FeedbackConfig(least=1))
    assert kept == ("apples", "bread", "cheese")
    np.testing.assert_allclose(
        np.expm1(counts_US.numpy()), [[4, 2, 0], [4, 0, 1], [0, 0, 0]], rtol=1e-5
    )
    kept, counts_US = past(lists, texts, rows_BW, FeedbackConfig(least=2))
    assert kept == ("apples",) and counts_US.shape == (3, 1)
    kept, _ = past(lists, texts, rows_BW, FeedbackConfig(least=1, most=1))
    assert kept == ("apples",)


def test_a_model_answers_known_sentences_by_their_past_and_its_checkpoint_keeps_that(
    tiny_config: Callable[..., AlignmentConfig], tmp_path: Path
) -> None:
    model = FoundModel(tiny_config()).eval()
    width = model.config.text.dim
    sentence, other = "will buy cheese in the next four weeks", "will buy bread"
    before = model.encode_text([sentence, other])
    users_UJ = torch.randn(50, width, generator=torch.Generator().manual_seed(1))
    config = FeedbackConfig(sentences=(sentence,))
    for _ in range(2):  # learning once more starts from the words again
        model.learn_from_past(
            config, users_UJ, users_UJ[:, :1].exp(), torch.tensor([True]),
            torch.zeros(50, 1, dtype=torch.bool),
        )  # fmt: skip
    after = model.encode_text([sentence, other])
    torch.testing.assert_close(after[1], before[1])
    moved = after[0, :width] - before[0, :width]
    assert model.feedback is not None
    torch.testing.assert_close(moved, model.feedback.shift_SJ[0])
    assert not after[0, width:].any() and float(moved.norm()) > 0.1
    info = checkpoint.CheckpointInfo(
        "alignment", asdict(model.config), "2017-09-11T00:00:00+00:00", 28, "f", 0, "1", {}
    )
    checkpoint.save(tmp_path / "kept", model, info)
    again, _ = checkpoint.load(tmp_path / "kept")
    assert isinstance(again, FoundModel)
    torch.testing.assert_close(again.encode_text([sentence]), after[:1])


def test_a_cosine_model_takes_none() -> None:
    with pytest.raises(ValueError, match="feedback: needs similarity='dot'"):
        AlignmentConfig(similarity="cosine", feedback=FeedbackConfig())
