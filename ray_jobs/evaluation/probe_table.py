"""Frozen vectors under the same probe (FOUND Table 4): ours, its parts, and others' methods.

One logistic regression, one global scale, for every row and group alike; a row with another model
or scale names it. Vectors of other systems join the table as Parquet files (``user_id``,
``embedding``) in the directory ``--peers``; see ``benchmarks/lifestream.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow.parquet as pq
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from encoders import checkpoint
from encoders.alignment import MODALITIES
from feature_repo import durable
from ray_jobs.evaluation import msdp, pretrained
from ray_jobs.evaluation.history import Receipts
from ray_jobs.evaluation.subject import Subject
from ray_jobs.evaluation.text_match import line_weights, search_weights
from ray_jobs.evaluation.u_mlp import UMlpProbe
from ray_jobs.probes import Model, probe
from ray_jobs.protocol import Task

_SHOPPER_BERT = "shopper_bert"
_SVD_DIMENSIONS = 256
_ALL_DAYS = 400


@dataclass(frozen=True)
class Row:
    """One line of the table: vectors in the order of the subject's users, and what is fitted."""

    vectors: Callable[[], np.ndarray]
    model: Callable[[], Model] | None = None
    depends: str = ""  # on a file outside the snapshot: its fingerprint


def rows(subject: Subject, peers: Path | None) -> dict[str, Row]:
    """All lines by name; nothing is computed yet."""
    found = {
        "fused": Row(lambda: subject.vectors("fused")),
        "fused, z-score per dimension": Row(lambda: z_scored(subject.vectors("fused"))),
    }
    for kind in modalities(subject):
        found[f"{kind}, after alignment"] = Row(partial(subject.vectors, kind))
    found["concatenation of modalities"] = Row(lambda: concatenation(subject))
    for name, directory in pretrained.checkpoints(subject).items():
        found[name] = Row(
            partial(pretrained.vectors, subject, directory),
            depends=checkpoint.fingerprint(directory),
        )
    if _SHOPPER_BERT in subject.manifest.kinds:
        theirs = partial(subject.vectors, _SHOPPER_BERT)
        found |= {"ShopperBERT, LR": Row(theirs), "ShopperBERT, U-MLP": Row(theirs, UMlpProbe)}
    found |= {
        "RFM, LR": Row(lambda: _even(Receipts(subject.con).rfm(*_when(subject)))),
        "RFM + category counts, LR": Row(lambda: _even(hand_made(subject))),
        "RFM + category counts, LightGBM": Row(lambda: hand_made(subject), boosted),
        "SVD-256 of tf-idf household × product type": Row(lambda: svd(subject)),
        "MSDP-style sequence model": Row(lambda: msdp.vectors(subject)),
        "language model on purchase text (our substitution for search text)": Row(
            lambda: purchase_text(subject)
        ),
    }
    for path in sorted(peers.glob("*.parquet")) if peers else []:
        found[path.stem.replace("_", " ")] = Row(
            partial(others, path, subject.users), depends=durable.sha256(path)
        )
    return found


def measure(row: Row, users: Sequence[str], tasks: Sequence[Task], splits: int) -> dict[str, Any]:
    """Group → AUC, KS, precision@k; and the width under ``"dim"``."""
    vectors = row.vectors()
    return {**probe(vectors, users, tasks, splits=splits, model=row.model),
            "dim": vectors.shape[1]}  # fmt: skip


def modalities(subject: Subject) -> list[str]:
    """Kinds of the snapshot that are one modality's own: no other model's, which may lie beside."""
    return [kind for kind in MODALITIES if kind in subject.manifest.kinds]


def concatenation(subject: Subject) -> np.ndarray:
    """The modalities' vectors side by side: [N, sum of widths]."""
    return blocks([subject.vectors(kind) for kind in modalities(subject)])


def blocks(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Vectors side by side, each block centred and scaled as a whole: [N, sum of widths]."""
    centred = [part - part.mean(0) for part in parts]
    return np.concatenate([part / (part.std() or 1.0) for part in centred], 1)


def boosted() -> Model:
    """Gradient-boosted trees, small enough for some five hundred rows."""
    model: Model = lightgbm.LGBMClassifier(
        n_estimators=80, learning_rate=0.05, num_leaves=7, min_child_samples=15, subsample=0.8,
        subsample_freq=1, colsample_bytree=0.3, n_jobs=1, random_state=0, verbose=-1,
        deterministic=True, force_row_wise=True,
    )  # fmt: skip
    return model


def z_scored(vectors: np.ndarray) -> np.ndarray:
    """Each dimension with mean 0 and deviation 1 over all users; one that is constant, 0. [N, D]"""
    deviation = vectors.std(0)
    scored: np.ndarray = (vectors - vectors.mean(0)) / np.where(deviation > 1e-9, deviation, 1.0)
    return scored


def hand_made(subject: Subject) -> np.ndarray:
    """RFM and the counts of all categories over 4, 12 and 44 weeks."""
    receipts = Receipts(subject.con)
    return np.concatenate(
        [receipts.rfm(*_when(subject)), receipts.category_counts(*_when(subject))], 1
    )


def svd(subject: Subject) -> np.ndarray:
    """The classic: which product types a household bought, tf-idf, reduced."""
    weights_NL, _ = line_weights(subject.con, *_when(subject), half_life=None, days=_ALL_DAYS)
    tfidf = TfidfTransformer(sublinear_tf=True).fit_transform(weights_NL)
    width = min(_SVD_DIMENSIONS, tfidf.shape[1])
    reduced: np.ndarray = TruncatedSVD(width, random_state=0).fit_transform(tfidf)
    return reduced


def purchase_text(subject: Subject) -> np.ndarray:
    """Mean of the untuned language model's vectors of what was bought, lately more."""
    return _mean_text(subject, *line_weights(subject.con, *_when(subject)))


def search_text(subject: Subject) -> np.ndarray | None:
    """The same of what was searched for; None where nobody searched before the snapshot's date."""
    weights_NL, texts = search_weights(subject.con, *_when(subject))
    return _mean_text(subject, weights_NL, texts) if texts else None


def _mean_text(subject: Subject, weights_NL: sparse.csr_matrix, texts: list[str]) -> np.ndarray:
    """[N, E]; 0 for a user without any."""
    total_N = np.asarray(weights_NL.sum(1)).ravel()
    mean: np.ndarray = (weights_NL @ subject.lines(texts)) / np.maximum(total_N, 1e-9)[:, None]
    return mean


def others(path: Path, users: Sequence[str]) -> np.ndarray:
    """Another system's vectors, in the order of ``users``; who has none gets the mean."""
    table = pq.read_table(path)
    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False)).astype(np.float32)
    known = dict(zip(table["user_id"].to_pylist(), vectors, strict=True))
    mean = vectors.mean(0)
    return np.stack([known.get(user, mean) for user in users])


def _even(features: np.ndarray) -> np.ndarray:
    """Counts and money on one footing: logarithm, then each column's z-score."""
    return z_scored(np.sign(features) * np.log1p(np.abs(features)))


def _when(subject: Subject) -> tuple[Any, list[str]]:
    return subject.manifest.as_of, subject.users
