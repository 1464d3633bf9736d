"""Grows the trees of an outlook (``encoders.outlook``) once the joint space is trained.

The same samples as alignment: users at past cut-offs, and what became of them by a later date that
was known at training. LightGBM grows one sum of trees per outcome and horizon.
"""

from __future__ import annotations

from dataclasses import replace

import lightgbm
import numpy as np
import torch
from torch import Tensor

from encoders import templates
from encoders.alignment import FoundModel
from encoders.batch import Collate
from encoders.outlook import OutlookConfig
from encoders.pairs import OutcomeTable
from ray_jobs import feedback
from ray_jobs.presets import Preset

_MOST = 100_000  # samples that trees are grown on
_TOGETHER = 1_024  # users in one pass


def fit(
    model: FoundModel, collate: Collate, preset: Preset, outcomes: OutcomeTable,
    rows: np.ndarray, latest: np.ndarray, seed: int,
) -> None:  # fmt: skip
    """Give the model its outlook on every outcome that enough samples show.

    Args:
        rows: history row of each sample, in the order of ``outcomes``.
        latest: the users' latest rows, one each.
    """
    config = preset.outlook
    if config is None or model.habits is None:
        return
    some = np.random.default_rng(seed).permutation(len(rows))[:_MOST]
    label_NO = outcomes.label_NO[some]
    fewest_O = np.minimum((label_NO == 1).sum(0), (label_NO == 0).sum(0))
    learnt = np.flatnonzero(fewest_O >= config.least).tolist()
    fitted = replace(config, sentences=tuple(
        templates.outcome_sentence(name, horizon_days=days)
        for name, days in (outcomes.names[o] for o in learnt)
    ))  # fmt: skip
    if not learnt:
        return
    features_NF = totals(model, collate, rows[some]).numpy()
    roots = [grow(features_NF, label_NO[:, o], config, seed) for o in learnt]
    model.learn_outlook(
        fitted, roots, totals(model, collate, latest), feedback.joint(model, collate, latest)
    )


def grow(
    features_NF: np.ndarray, label_N: np.ndarray, config: OutlookConfig, seed: int
) -> list[dict[str, object]]:
    """The roots of trees whose sum is the log-odds of a label; unknown ones (-1) are left out."""
    known = label_N >= 0
    booster = lightgbm.train(
        {
            "objective": "binary", "learning_rate": config.learning_rate,
            "num_leaves": config.leaves, "max_depth": config.depth, "min_data_in_leaf": 100,
            "bagging_fraction": 0.5, "bagging_freq": 1, "feature_fraction": 0.4, "lambda_l2": 5.0,
            "num_threads": torch.get_num_threads(), "seed": seed, "deterministic": True,
            "force_row_wise": True, "verbosity": -1,
        },
        lightgbm.Dataset(features_NF[known], label_N[known], params={"verbosity": -1}),
        num_boost_round=config.trees,
    )  # fmt: skip
    return [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]


@torch.inference_mode()
def totals(model: FoundModel, collate: Collate, rows: np.ndarray) -> Tensor:
    """What the trees read of the users at some rows, float32 [n, F], on the CPU."""
    parts = [model.totals(collate(rows[start : start + _TOGETHER]))
             for start in range(0, len(rows), _TOGETHER)]  # fmt: skip
    return torch.cat(parts)
