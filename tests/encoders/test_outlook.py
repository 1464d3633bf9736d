"""The outlook: axes that trees fill, and how sentences about outcomes read them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from encoders.alignment import AlignmentConfig
from encoders.outlook import Outlook, OutlookConfig

USERS, FEATURES, WIDTH = 400, 3, 6


def split(feature: int, below: float, above: float) -> dict[str, object]:
    """A tree with one decision at 0."""
    return {"decision_type": "<=", "split_feature": feature, "threshold": 0.0,
            "left_child": {"leaf_value": below}, "right_child": {"leaf_value": above}}  # fmt: skip


@pytest.fixture
def users() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Totals, vectors of the joint space that show little of them, and two sentences' queries."""
    rng = torch.Generator().manual_seed(0)
    totals_UF = torch.randn(USERS, FEATURES, generator=rng)
    joint_UJ = 3 * torch.randn(USERS, WIDTH, generator=rng) + 1.5
    joint_UJ[:, 0] += totals_UF[:, 0]
    return totals_UF, joint_UJ, torch.nn.functional.normalize(torch.eye(WIDTH)[:2] + 0.1, dim=1)


def fitted(users: tuple[torch.Tensor, torch.Tensor, torch.Tensor], weight: float = 1.0) -> Outlook:
    config = OutlookConfig(trees=2, leaves=2, depth=1, weight=weight, sentences=("leaves", "more"))
    outlook = Outlook(config)
    outlook.forest.set(0, [split(0, -1.0, 2.0)])
    outlook.forest.set(1, [split(1, 0.5, 1.0), split(2, -3.0, 0.0)])
    outlook.fit(*users)
    return outlook


def scores(outlook: Outlook, users: tuple[torch.Tensor, ...], texts: list[str]) -> torch.Tensor:
    totals_UF, joint_UJ, own_KJ = users
    read = outlook.read(texts, own_KJ[: len(texts)])
    return torch.cat([joint_UJ, outlook(totals_UF)], 1) @ read.T


def test_axes_are_centred_and_together_as_large_as_asked_for(users: tuple) -> None:
    axes_UK = fitted(users)(users[0])
    torch.testing.assert_close(axes_UK.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    assert axes_UK.var(0)[0].item() == pytest.approx(axes_UK.var(0)[1].item(), rel=1e-4)
    ratio = axes_UK.var(0).sum() / users[1].var(0).sum()
    assert ratio.item() == pytest.approx(OutlookConfig().ratio, rel=1e-4)


def test_a_sentence_reads_axis_and_words_alike_and_scores_keep_their_spread(users: tuple) -> None:
    outlook, texts = fitted(users), ["leaves", "more"]
    own_UK, axes_UK = users[1] @ users[2].T, outlook(users[0])
    mixed_UK = scores(outlook, users, texts)
    torch.testing.assert_close(mixed_UK.std(0), own_UK.std(0), rtol=1e-2, atol=0)
    for k in range(2):
        both = own_UK[:, k] / own_UK[:, k].std() + axes_UK[:, k] / axes_UK[:, k].std()
        assert np.corrcoef(both, mixed_UK[:, k])[0, 1] == pytest.approx(1.0, abs=1e-4)
    lost_K = own_UK.mean(0) - mixed_UK.mean(0)
    torch.testing.assert_close(outlook.level(texts), lost_K, rtol=1e-3, atol=1e-3)


def test_a_weight_of_nothing_leaves_the_words_alone(users: tuple) -> None:
    own_UK = users[1] @ users[2].T
    found_UK = scores(fitted(users, weight=0.0), users, ["leaves", "more"])
    torch.testing.assert_close(found_UK, own_UK, rtol=1e-4, atol=1e-4)


def test_other_texts_read_no_axis(users: tuple) -> None:
    outlook = fitted(users)
    read = outlook.read(["Leaves"], users[2][:1])
    torch.testing.assert_close(read[:, :WIDTH], users[2][:1])
    assert not read[:, WIDTH:].any() and outlook.level(["Leaves"]).tolist() == [0.0]


def test_an_outlook_needs_totals_and_inner_products(
    tiny_config: Callable[..., AlignmentConfig],
) -> None:
    with pytest.raises(ValueError, match="outlook: needs habits"):
        AlignmentConfig(outlook=OutlookConfig())
    with pytest.raises(ValueError, match="outlook: needs similarity='dot'"):
        tiny_config(similarity="cosine", outlook=OutlookConfig())
