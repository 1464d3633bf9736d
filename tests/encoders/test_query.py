"""The query encoder that serving asks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders import checkpoint
from encoders.alignment import FoundModel
from encoders.checkpoint import CheckpointError
from encoders.query import QueryEncoder
from encoders.rewriting import Reading

SENTENCES = ["people who buy tea", "cheese", "will buy dog food in the next four weeks"]


@pytest.fixture
def saved(
    tmp_path: Path, tiny_config: Callable, info_of: Callable, jolt: Callable
) -> tuple[FoundModel, Path]:
    config = tiny_config(search=None)
    model = FoundModel(config).eval()
    jolt(model)
    checkpoint.save(tmp_path / "c", model, info_of("alignment", config))
    return model, tmp_path / "c"


def test_a_query_is_the_models_sentence_vector(saved: tuple[FoundModel, Path]) -> None:
    model, directory = saved
    encoder = QueryEncoder.open(directory)
    vectors = encoder.encode(SENTENCES)
    assert vectors.dtype == np.float32
    assert encoder.dim == 6
    assert encoder.info.trained_as_of == "2017-06-05"
    expected = model.sentences(model.text.tokenize(SENTENCES)).detach().numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_what_else_was_asked_does_not_change_a_vector_by_a_bit(
    saved: tuple[FoundModel, Path],
) -> None:
    encoder = QueryEncoder.open(saved[1])
    whole = encoder.encode(SENTENCES)
    for order in ([2, 0, 1], [1, 1], [0]):
        fresh = QueryEncoder.open(saved[1])
        asked = [SENTENCES[i] for i in order]
        np.testing.assert_array_equal(fresh.encode(asked), whole[order])
        np.testing.assert_array_equal(encoder.encode(asked), whole[order])


def test_a_sentence_is_encoded_once_and_callers_cannot_spoil_it(
    saved: tuple[FoundModel, Path], info_of: Callable
) -> None:
    model, _ = saved
    asked: list[str] = []
    original = model.encode_text

    def count(texts: list[str]) -> torch.Tensor:
        asked.extend(texts)
        return original(texts)

    model.encode_text = count  # type: ignore[method-assign]
    encoder = QueryEncoder(model, info_of("alignment", model.config))
    first = encoder.encode([SENTENCES[0], SENTENCES[0]])
    kept = first.copy()
    first *= 0
    np.testing.assert_array_equal(encoder.encode([SENTENCES[0]]), kept[:1])
    assert asked == [SENTENCES[0]]


class _Cheese:
    """Reads every demand as cheese."""

    def read(self, demand: str) -> Reading:
        return Reading((("cheese", 1.0),))

    def vocabulary(self) -> list[str]:
        return ["cheese"]


def test_seeds_sharpen_the_demand_as_it_is_read(saved: tuple[FoundModel, Path]) -> None:
    users_UD = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    seeds = users_UD[:3], users_UD[3:6], users_UD
    read = QueryEncoder.open(saved[1], lambda directory: _Cheese())
    literal = QueryEncoder.open(saved[1])
    tuned = read.tune("something with holes", *seeds)
    assert tuned.text == "something with holes"
    np.testing.assert_array_equal(tuned.query_D, literal.tune("cheese", *seeds).query_D)
    other = literal.tune("something with holes", *seeds).query_D
    assert np.abs(tuned.query_D - other).max() > 1e-3


class _Doubtful:
    """Reads every demand as one of two."""

    def read(self, demand: str) -> Reading:
        return Reading((("people who buy tea", 0.5), ("cheese", 0.5)), note="Read as: tea, cheese.")

    def vocabulary(self) -> list[str]:
        return []


def test_seeds_settle_what_a_doubtful_demand_means(saved: tuple[FoundModel, Path]) -> None:
    encoder = QueryEncoder.open(saved[1], lambda directory: _Doubtful())
    tea, cheese = encoder.encode(["people who buy tea", "cheese"])
    users_UD = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)
    order = np.argsort(users_UD @ (cheese - tea))
    positives, negatives = users_UD[order[-20:]], users_UD[order[:20]]
    settled = dict(encoder.settled(encoder.read("something"), positives, negatives).sentences)
    assert settled["cheese"] > 0.6 and sum(settled.values()) == pytest.approx(1.0)
    tuned = encoder.tune("something", positives, negatives, users_UD).query_D
    other = encoder.tune("something", negatives, positives, users_UD).query_D
    assert tuned @ (cheese - tea) > other @ (cheese - tea)


def test_only_an_alignment_checkpoint_answers(
    tmp_path: Path, tiny_config: Callable, info_of: Callable
) -> None:
    config: Any = tiny_config().behaviour
    model = checkpoint.MODELS["behaviour"](config)
    checkpoint.save(tmp_path / "b", model, info_of("behaviour", config))
    with pytest.raises(CheckpointError, match=r"/b holds a 'behaviour' .*expected 'alignment'"):
        QueryEncoder.open(tmp_path / "b")
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        QueryEncoder.open(tmp_path / "nowhere")


def test_no_sentence_has_no_vector(saved: tuple[FoundModel, Path]) -> None:
    assert QueryEncoder.open(saved[1]).encode([]).shape == (0, 6)
