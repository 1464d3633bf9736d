"""Trees as tensors: against the library that grew them, to the last split."""

import lightgbm
import numpy as np
import pytest
import torch

from encoders.forest import Forest


def grown(seed: int, trees: int = 12, leaves: int = 7, depth: int = 4) -> lightgbm.Booster:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(500, 5)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] + 0.3 * x[:, seed % 5] > 0).astype(float)
    params = {"objective": "binary", "num_leaves": leaves, "max_depth": depth, "verbosity": -1,
              "min_data_in_leaf": 5, "num_threads": 1}  # fmt: skip
    return lightgbm.train(params, lightgbm.Dataset(x, y), num_boost_round=trees)


def roots(booster: lightgbm.Booster) -> list[dict[str, object]]:
    return [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]


def thresholds(node: dict) -> list[float]:
    if "leaf_value" in node:
        return []
    return [node["threshold"], *thresholds(node["left_child"]), *thresholds(node["right_child"])]


def test_sums_are_those_of_the_library() -> None:
    forest = Forest(num=2, trees=12, leaves=7, depth=4)
    boosters = [grown(0), grown(3)]
    for k, booster in enumerate(boosters):
        forest.set(k, roots(booster))
    x = np.random.default_rng(9).normal(size=(300, 5)).astype(np.float32)
    expected = np.stack([booster.predict(x, raw_score=True) for booster in boosters], 1)
    assert expected.std(0).min() > 0.3
    np.testing.assert_allclose(forest(torch.from_numpy(x)).numpy(), expected, atol=1e-5)


def test_values_beside_a_split_fall_on_the_same_side_as_in_the_library() -> None:
    booster = grown(1)
    forest = Forest(num=1, trees=12, leaves=7, depth=4)
    forest.set(0, roots(booster))
    splits = np.array([each for root in roots(booster) for each in thresholds(root)])
    near = splits.astype(np.float32)
    beside = [near, np.nextafter(near, np.float32(9)), np.nextafter(near, np.float32(-9))]
    x = np.repeat(np.concatenate(beside)[:, None], 5, 1)
    np.testing.assert_allclose(
        forest(torch.from_numpy(x)).numpy()[:, 0], booster.predict(x, raw_score=True), atol=1e-5
    )


def test_fewer_trees_than_room_add_nothing_and_the_next_set_forgets_the_last() -> None:
    forest = Forest(num=1, trees=20, leaves=9, depth=6)
    few = grown(2, trees=3)
    forest.set(0, roots(grown(0)))
    forest.set(0, roots(few))
    x = np.random.default_rng(8).normal(size=(50, 5)).astype(np.float32)
    np.testing.assert_allclose(
        forest(torch.from_numpy(x)).numpy()[:, 0], few.predict(x, raw_score=True), atol=1e-5
    )
    assert Forest(num=0, trees=1, leaves=2, depth=1)(torch.zeros(4, 5)).shape == (4, 0)
    assert not Forest(num=1, trees=1, leaves=2, depth=1)(torch.zeros(4, 5)).any()


@pytest.mark.parametrize(
    ("room", "message"),
    [({"trees": 11}, "at most trees=11, got 12"), ({"leaves": 6}, "at most 11 nodes, got 13"),
     ({"depth": 2}, "deeper than")],
)  # fmt: skip
def test_what_does_not_fit_is_told(room: dict[str, int], message: str) -> None:
    forest = Forest(num=1, **{"trees": 12, "leaves": 7, "depth": 4, **room})
    with pytest.raises(ValueError, match=message):
        forest.set(0, roots(grown(0)))


def test_splits_by_category_are_refused() -> None:
    leaf = {"leaf_value": 0.0}
    root = {"decision_type": "==", "threshold": "1||2", "left_child": leaf, "right_child": leaf}
    with pytest.raises(ValueError, match="numeric splits"):
        Forest(num=1, trees=1, leaves=2, depth=1).set(0, [root])


def test_a_threshold_between_two_float32_sends_the_upper_one_right() -> None:
    assert float(np.float32(0.1)) > 0.1  # rounded, the threshold would take it in
    root = {"decision_type": "<=", "split_feature": 0, "threshold": 0.1,
            "left_child": {"leaf_value": -1.0}, "right_child": {"leaf_value": 1.0}}  # fmt: skip
    forest = Forest(num=1, trees=1, leaves=2, depth=1)
    forest.set(0, [root])
    assert forest(torch.tensor([[0.1]])).item() == 1.0
