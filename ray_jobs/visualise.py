"""Figures: the embedding space as a map, quality as bars and as lines over the history."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (the backend must be chosen first)

_MAX_POINTS = 3_000
_LEGEND = 8
_FEW = 4  # methods whose bars leave room for figures and legend between them
Plane = Literal["t-SNE", "UMAP"]
_COLOURS = pyplot.get_cmap("tab10").colors


def embedding_map(
    vectors: np.ndarray, labels: list[str], path: Path, *, title: str, seed: int = 0,
    grey: str | None = None, method: Plane = "t-SNE",
) -> Path:  # fmt: skip
    """User vectors on a plane, coloured by their most frequent labels; the others stay grey.

    Args:
        vectors: [N, D]; a seeded sample is drawn above 3,000.
        labels: one per row.
        grey: a label that is not coloured: users of whom there is nothing to show.
    """
    rng = np.random.default_rng(seed)
    rows = np.arange(len(vectors))
    if len(rows) > _MAX_POINTS:
        rows = rng.choice(rows, _MAX_POINTS, replace=False)
    chosen, names = vectors[rows], np.array(labels, object)[rows]
    points = _on_a_plane(chosen, seed, method)

    figure, axes = pyplot.subplots(figsize=(8, 6.5), layout="constrained")
    axes.scatter(*points.T, s=5, color="#d0d0d0", linewidths=0)
    values, counts = np.unique(names[names != grey], return_counts=True)
    frequent = values[np.argsort(-counts, kind="stable")][:_LEGEND]
    for name, colour in zip(frequent, _COLOURS, strict=False):
        here = names == name
        axes.scatter(*points[here].T, s=7, color=colour, linewidths=0, label=_short(name))
    axes.legend(markerscale=3, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(title=title, xticks=[], yticks=[])
    return _save(figure, path)


def query_map(
    users_ND: np.ndarray, kinds: list[str], queries: dict[str, np.ndarray], path: Path, *,
    title: str, seed: int = 0,
) -> Path:  # fmt: skip
    """t-SNE of users and queries together, by direction: what an inner product ranks by.

    Args:
        kinds: one per user; the most frequent is drawn in grey, the rarest last.
        queries: name → [D], drawn as stars.
    """
    centred = users_ND - users_ND.mean(0)
    both = np.concatenate([centred, np.stack(list(queries.values()))])
    points = _on_a_plane(both / np.linalg.norm(both, axis=1, keepdims=True).clip(1e-9), seed)
    figure, axes = pyplot.subplots(figsize=(8, 6.5), layout="constrained")
    names = np.array(kinds, object)
    values, counts = np.unique(names, return_counts=True)
    for i, name in enumerate(values[np.argsort(-counts, kind="stable")]):
        here = np.flatnonzero(names == name)
        look = {"color": "#d0d0d0", "s": 6} if i == 0 else {"color": _COLOURS[i], "s": 8 + 14 * i}
        axes.scatter(*points[here].T, linewidths=0, label=name, **look)
    for i, name in enumerate(queries):
        place = points[len(users_ND) + i]
        size = 420 / (1 + i)  # the first still shows where the others lie upon it
        axes.scatter(*place, marker="*", s=size, color=_COLOURS[-1 - i], edgecolors="black",
                     label=name)  # fmt: skip
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(title=title, xticks=[], yticks=[])
    return _save(figure, path)


def plane_method() -> Plane:
    """UMAP, the method of One4all, if it is installed (extra ``evaluation``), else t-SNE."""
    return "UMAP" if find_spec("umap") is not None else "t-SNE"


def _on_a_plane(vectors: np.ndarray, seed: int, method: Plane = "t-SNE") -> np.ndarray:
    """t-SNE or UMAP after PCA, [N, 2]; equal vectors, of which they can make nothing, at random."""
    if len(vectors) < 4 or vectors.std(0).max() == 0:
        return np.random.default_rng(seed).normal(size=(len(vectors), 2))
    reduced = PCA(min(30, *vectors.shape), random_state=seed).fit_transform(vectors)
    if method == "UMAP":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a seed makes it run on one thread
            mapper = import_module("umap").UMAP(random_state=seed)
            points: np.ndarray = mapper.fit_transform(reduced)
        return points
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    return TSNE(2, init="pca", perplexity=perplexity, random_state=seed).fit_transform(reduced)


def zero_shot_bars(results: dict[str, Any], path: Path) -> Path:
    """Mean zero-shot AUC per group, one bar per method."""
    methods, groups = list(results), sorted({g for rows in results.values() for g in rows})
    many = len(methods) > _FEW
    figure, axes = pyplot.subplots(figsize=(13 if many else 7, 3.6), layout="constrained")
    width = 0.8 / len(methods)
    for i, method in enumerate(methods):
        at = [g for g in groups if g in results[method]]
        heights = [results[method][g]["auc"] for g in at]
        x = np.array([groups.index(g) for g in at]) + (i - (len(methods) - 1) / 2) * width
        bars = axes.bar(x, heights, width, label=method, color=_COLOURS[i])
        axes.bar_label(bars, fmt="%.2f", fontsize=7, rotation=90 if many else 0, padding=2)
    axes.axhline(0.5, color="#888888", linewidth=0.8, linestyle="--")
    axes.set(ylim=(0.4, 1.0), ylabel="AUC", xticks=range(len(groups)), xticklabels=groups,
             title="Zero-shot AUC by group of tasks (dashed: chance)")  # fmt: skip
    if many:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        axes.legend(fontsize=8, loc="lower right")
    return _save(figure, path)


def history_lines(found: dict[str, Any], path: Path) -> Path:
    """Each task's first figure over the months of history, relative to the longest."""
    months = sorted(found, key=int)
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name, colour in zip(found[months[-1]], _COLOURS, strict=False):
        values = [_first(found[m][name]) for m in months]
        axes.plot([int(m) for m in months], np.array(values) / values[-1], marker="o",
                  color=colour, label=name)  # fmt: skip
    axes.set(xlabel="months of history", ylabel="relative to the longest",
             xticks=[int(m) for m in months], title="U-MLP by length of history")  # fmt: skip
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return _save(figure, path)


def fusion_lines(worlds: Sequence[dict[str, Any]], path: Path) -> Path:
    """Probe AUC by steps of alignment: fused, its parts, and fused at a small temperature.

    Args:
        worlds: one panel each; its ``rows`` have ``steps``, ``temperature``, ``start`` and
            ``kinds`` (kind → ``auc``). A kind has one colour in all panels.
    """
    kinds = {kind for world in worlds for row in world["rows"] for kind in row["kinds"]}
    named = sorted(kinds, key=lambda kind: (kind != "fused", kind))
    colours = dict(zip(named, _COLOURS, strict=False))
    figure, panels = pyplot.subplots(
        1, len(worlds), figsize=(5.6 * len(worlds), 3.8), layout="constrained", squeeze=False
    )
    shown: dict[str, Any] = {}
    for axes, world in zip(panels[0], worlds, strict=True):
        shown |= _fusion_panel(axes, world, colours)
    panels[0][-1].legend(
        shown.values(), shown.keys(), fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    return _save(figure, path)


def _fusion_panel(axes: Any, world: dict[str, Any], colours: dict[str, Any]) -> dict[str, Any]:
    """One world's lines, by label."""
    even = sorted((r for r in world["rows"] if r["start"] == "even"), key=lambda r: r["steps"])
    plain = [row for row in even if row["temperature"] == 1.0]
    learnt = [row for row in even if row["temperature"] != 1.0 or row["steps"] == 0]
    steps = [row["steps"] for row in plain]
    shown: dict[str, Any] = {}
    for kind in (kind for kind in colours if kind in plain[0]["kinds"]):
        (shown[kind],) = axes.plot(
            range(len(steps)), [row["kinds"][kind]["auc"] for row in plain], marker="o",
            color=colours[kind], linewidth=2.6 if kind == "fused" else 1.2,
        )  # fmt: skip
    (shown["fused, small temperature"],) = axes.plot(
        [steps.index(row["steps"]) for row in learnt],
        [row["kinds"]["fused"]["auc"] for row in learnt], marker="s", linestyle="--",
        color=colours["fused"],
    )  # fmt: skip
    axes.set(title=world["source"], xlabel="steps of alignment", ylabel="mean AUC of probes",
             xticks=range(len(steps)), xticklabels=steps)  # fmt: skip
    return shown


def _first(row: dict[str, Any]) -> float:
    """AUROC of yes-or-no tasks, NDCG of recommendations."""
    return float(row["auroc"] if "auroc" in row else row["ndcg"])


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _short(name: Any) -> str:
    text = str(name)
    return text if len(text) <= 28 else text[:27] + "…"
