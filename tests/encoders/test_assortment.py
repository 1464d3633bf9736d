"""The block beside the joint space: against a slow reference, and blind to every sentence."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from encoders.alignment import FoundModel
from encoders.assortment import Assortment, AssortmentConfig, AssortmentCounts
from encoders.lists import Lists

NUM_TOPICS = 6  # users buy within one each, so the first axes stand clear of the rest
TEXTS = ["apples", "bread", "cheese", "dates"]


def lists() -> Lists:
    """Weekly rows: two of user 0, one of user 1, one of user 2, who has nothing."""
    length = np.array([2, 1, 2, 0])
    return Lists(
        start=np.array([0, 2, 3, 5]), length=length, ids=np.array([0, 1, 0, 2, 3]),
        weights=np.array([1, 2, 3, 1, 4], np.float32),
    )  # fmt: skip


ROWS_BW = np.array([[0, 1], [-1, 2], [-1, 3]])


def test_counts_are_summed_over_the_weeks_of_each_user() -> None:
    counts = AssortmentCounts({"bill": (lists(), TEXTS)})
    batch = counts(ROWS_BW)
    found = {
        (int(user), counts.terms[term]): float(count)
        for user, term, count in zip(batch.owner, batch.terms, batch.counts, strict=True)
    }
    assert found == {
        (0, "bill: apples"): 4, (0, "bill: bread"): 2,
        (1, "bill: cheese"): 1, (1, "bill: dates"): 4,
    }  # fmt: skip
    assert batch.offsets.tolist() == [0, 2, 4]


def test_a_subject_called_like_a_line_is_another_term() -> None:
    both = AssortmentCounts({"bill": (lists(), TEXTS), "habit": (lists(), TEXTS)})
    assert len(both.terms) == 8
    assert (
        both(ROWS_BW).counts.sum()
        == 2 * AssortmentCounts({"bill": (lists(), TEXTS)})(ROWS_BW).counts.sum()
    )


def test_terms_the_config_does_not_name_are_not_counted() -> None:
    only = AssortmentCounts({"bill": (lists(), TEXTS)}, ["bill: bread", "bill: unheard"])
    assert only(ROWS_BW).terms.tolist() == [0]


def random_lists(rng: np.random.Generator, users: int, texts: int) -> Lists:
    length = rng.integers(1, 6, users)
    length[0] = 0
    start = np.concatenate([[0], np.cumsum(length)[:-1]])
    topics = rng.choice(NUM_TOPICS, users, p=np.arange(1, NUM_TOPICS + 1) / 21)
    per_topic = texts // NUM_TOPICS
    ids = np.concatenate(
        [
            t * per_topic + rng.choice(per_topic, n, replace=False)
            for t, n in zip(topics, length, strict=True)
        ]
    )
    return Lists(start, length, ids, rng.integers(1, 9, length.sum()).astype(np.float32))


@pytest.fixture
def shoppers() -> tuple[AssortmentConfig, AssortmentCounts, np.ndarray]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    texts = [f"line {i:02d}" for i in range(36)]
    sources = {"bill": (random_lists(rng, 300, 36), texts)}
    rows_BW = np.arange(300)[:, None]
    config = AssortmentConfig(dim=NUM_TOPICS, windows=1).fitted(sources, rows_BW)
    assert config is not None
    return config, AssortmentCounts(sources, config.terms), rows_BW


def test_coordinates_are_those_of_tf_idf_and_truncated_svd(
    shoppers: tuple[AssortmentConfig, AssortmentCounts, np.ndarray],
) -> None:
    config, counts, rows_BW = shoppers
    batch = counts(rows_BW)
    dense = np.zeros((300, len(config.terms)))
    dense[batch.owner, batch.terms] = torch.log1p(batch.counts)
    dense *= np.log(300 / (dense > 0).sum(0))
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-9)
    U, size, _ = np.linalg.svd(dense, full_matrices=False)
    expected = (U * size)[:, :NUM_TOPICS]
    expected -= expected.mean(0)
    expected[0] = 0.0  # nothing was bought: as if average

    assortment = Assortment(config)
    assortment.fit(batch)
    found = assortment(batch).numpy()
    # Axes may be turned among themselves where singular values are close: distances may not.
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=0.02)
    assert np.abs(found).max() > 0.1


def test_a_user_depends_on_nobody_else_in_the_batch(
    shoppers: tuple[AssortmentConfig, AssortmentCounts, np.ndarray],
) -> None:
    config, counts, rows_BW = shoppers
    assortment = Assortment(config)
    assortment.fit(counts(rows_BW))
    together = assortment(counts(rows_BW))
    torch.testing.assert_close(assortment(counts(rows_BW[7:8])), together[7:8])
    assert not together[0].any()


def test_the_block_is_brought_to_the_size_of_the_joint_space(
    shoppers: tuple[AssortmentConfig, AssortmentCounts, np.ndarray],
) -> None:
    config, counts, rows_BW = shoppers
    assortment = Assortment(config)
    batch = counts(rows_BW)
    assortment.fit(batch)
    joint_BJ = torch.randn(300, 20) * 3
    assortment.match(joint_BJ, batch)
    assert assortment(batch).var(0).sum().item() == pytest.approx(joint_BJ.var(0).sum().item())


def test_rare_terms_are_left_out_and_without_any_there_is_no_block() -> None:
    sources = {"bill": (lists(), TEXTS)}
    assert AssortmentConfig().fitted(sources, ROWS_BW) is None


def test_no_sentence_reads_the_block_and_no_score_changes_by_it(
    world: Any, tiny_config: Callable
) -> None:
    collate = world.collate()
    counts = collate.assortment(np.arange(6))
    block = AssortmentConfig(dim=3, windows=4, terms=tuple(f"t{n}" for n in range(40)))
    model = FoundModel(tiny_config(assortment=block)).eval()
    assert model.assortment is not None
    torch.nn.init.normal_(model.assortment.axes_VK)
    torch.nn.init.ones_(model.assortment.rarity_V)
    batch = collate(np.arange(6))
    assert counts is not None and int(counts.terms.max()) < 40
    with torch.no_grad():
        joint_BJ = model.joint(model.modalities(batch), batch)
        fused_BD = model(batch)
        query_SD = model.encode_text(["bread", "will buy cheese"])
    J = joint_BJ.shape[1]
    assert fused_BD.shape[1] == query_SD.shape[1] == model.dim == J + 3
    assert fused_BD[:, J:].abs().max() > 0 and not query_SD[:, J:].any()
    torch.testing.assert_close(fused_BD @ query_SD.T, joint_BJ @ query_SD[:, :J].T)


def test_a_cosine_would_read_the_block(tiny_config: Callable) -> None:
    with pytest.raises(ValueError, match="assortment"):
        tiny_config(similarity="cosine", assortment=AssortmentConfig())
