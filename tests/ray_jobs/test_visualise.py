"""Figures are written, have their size, and hold something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot

from ray_jobs import visualise

MAP, BARS = (880, 715), (770, 396)  # inches × 110 dots


def pixels(path: Path) -> np.ndarray:
    return pyplot.imread(path)


def check(path: Path, size: tuple[int, int]) -> None:
    image = pixels(path)
    assert image.shape[1::-1] == size
    ink = (image[..., :3] < 0.95).any(-1).mean()
    assert 0.002 < ink < 0.9  # neither blank nor all paint


def clouds(n: int = 60) -> tuple[np.ndarray, list[str]]:
    """Two groups far apart in 12 dimensions."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((n, 12)).astype(np.float32)
    vectors[::2] += 20
    return vectors, ["left" if row % 2 else "right" for row in range(n)]


def test_the_map_is_drawn_in_a_directory_that_is_made(tmp_path: Path) -> None:
    vectors, labels = clouds()
    path = visualise.embedding_map(vectors, labels, tmp_path / "a" / "map.png", title="A map")
    assert path == tmp_path / "a" / "map.png"
    check(path, MAP)
    image = pixels(path)[..., :3]
    for colour in visualise._COLOURS[:2]:  # one per label
        assert (np.abs(image - np.array(colour)).max(-1) < 0.02).sum() > 20


def test_the_same_seed_draws_the_same_map(tmp_path: Path) -> None:
    vectors, labels = clouds()
    first, again = (
        visualise.embedding_map(vectors, labels, tmp_path / f"{n}.png", title="t") for n in (1, 2)
    )
    assert np.array_equal(pixels(first), pixels(again))


def test_a_large_population_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visualise, "_MAX_POINTS", 40)
    drawn = []
    tsne = visualise.TSNE.fit_transform
    monkeypatch.setattr(
        visualise.TSNE, "fit_transform", lambda self, x: drawn.append(len(x)) or tsne(self, x)
    )
    vectors, labels = clouds(200)
    check(visualise.embedding_map(vectors, labels, tmp_path / "m.png", title="t"), MAP)
    assert drawn == [40]


_DEGENERATE = """
import sys, warnings
import numpy as np
from pathlib import Path
from ray_jobs import visualise
warnings.simplefilter("ignore")
for rows, width in [(50, 8), (5, 3), (3, 2), (2, 2)]:
    path = Path(sys.argv[1]) / f"{rows}.png"
    visualise.embedding_map(np.ones((rows, width), "f"), ["same"] * rows, path, title="t")
    print(path)
"""


def test_equal_vectors_and_small_populations_do_not_crash(tmp_path: Path) -> None:
    """In a process of its own: scikit-learn's t-SNE once answered with a segmentation fault."""
    done = subprocess.run(
        [sys.executable, "-c", _DEGENERATE, str(tmp_path)], capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-1000:])
    for path in done.stdout.split():
        assert pixels(Path(path)).shape[1::-1] == MAP


def test_long_labels_are_cut_and_only_the_frequent_ones_are_named(tmp_path: Path) -> None:
    vectors, _ = clouds()
    labels = [f"{'department of ' * 5}{row % 20}" for row in range(60)]
    check(visualise.embedding_map(vectors, labels, tmp_path / "m.png", title="t"), MAP)
    assert len(visualise._short(labels[0])) == 28


def test_bars_show_every_method_and_group(tmp_path: Path) -> None:
    results = {
        "sentence": {"A": {"auc": 0.8}, "C": {"auc": 0.6}},
        "count": {"A": {"auc": 0.75}, "B": {"auc": float("nan")}},
    }
    path = visualise.zero_shot_bars(results, tmp_path / "bars.png")
    check(path, BARS)
    image = pixels(path)[..., :3]
    for colour in visualise._COLOURS[:2]:
        assert (np.abs(image - np.array(colour)).max(-1) < 0.02).sum() > 500


def fusion_world(*kinds: str) -> dict[str, Any]:
    def row(steps: int, temperature: float, start: str = "even") -> dict[str, Any]:
        found = {kind: {"auc": 0.6 + 0.01 * n + 0.0001 * steps / temperature}
                 for n, kind in enumerate(kinds)}  # fmt: skip
        return {"steps": steps, "temperature": temperature, "start": start, "kinds": found}

    rows = [row(0, 1.0), row(80, 1.0), row(320, 1.0), row(80, 0.5), row(320, 0.5)]
    return {"source": "a world", "rows": [*rows, row(0, 1.0, "random")]}


def inked(image: np.ndarray) -> list[bool]:
    """Which colours of the cycle are drawn with."""
    near = [np.abs(image[..., :3] - np.array(c)).max(-1) < 0.02 for c in visualise._COLOURS[:4]]
    return [bool(each.sum() > 100) for each in near]


def test_fusion_has_a_panel_per_world_and_a_colour_per_kind(tmp_path: Path) -> None:
    few = fusion_world("fused", "tabular")
    many = fusion_world("behaviour", "fused", "search", "tabular")
    check(visualise.fusion_lines([few], tmp_path / "one.png"), (616, 418))
    two = visualise.fusion_lines([few, many], tmp_path / "two.png")
    check(two, (1232, 418))
    image = pixels(two)
    left, right = image[:, :500], image[:, 560:]
    assert inked(right) == [True] * 4
    assert inked(left) == [True, False, False, True], "tabular is the fourth of all, here too"


def test_figures_are_closed(tmp_path: Path) -> None:
    before = len(pyplot.get_fignums())
    visualise.zero_shot_bars({"sentence": {"A": {"auc": 0.8}}}, tmp_path / "bars.png")
    assert len(pyplot.get_fignums()) == before


def test_a_query_stands_among_the_users_it_points_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    near = rng.standard_normal((30, 4)) + [9, 0, 0, 0]
    far = rng.standard_normal((40, 4)) - [9, 0, 0, 0]
    placed: list[np.ndarray] = []
    plane = visualise._on_a_plane
    monkeypatch.setattr(
        visualise, "_on_a_plane", lambda v, seed: placed.append(v) or plane(v, seed)
    )
    path = visualise.query_map(
        np.concatenate([near, far]), ["did it"] * 30 + ["did not"] * 40,
        {"sentence": np.array([1.0, 0, 0, 0])}, tmp_path / "q.png", title="t",
    )  # fmt: skip
    assert path.stat().st_size > 10_000
    np.testing.assert_allclose(np.linalg.norm(placed[0], axis=1), 1.0)  # by direction alone
    cosine = placed[0][:-1] @ placed[0][-1]
    assert cosine[:30].min() > cosine[30:].max()
