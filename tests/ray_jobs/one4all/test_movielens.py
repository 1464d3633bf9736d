"""MovieLens from the wheel's files: each user's past and future, never mixed."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_repo.errors import InputError
from feature_repo.transforms import open_tables
from ray_jobs.downstream import Binary, Recommendation
from ray_jobs.one4all import logs, movielens

RATINGS = [("2", m, 3 + m % 3, 880_000_000 + m) for m in range(1, 11)]
RATINGS += [("10", m, 5, 890_000_000 - m * 86_400) for m in range(1, 6)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with the three files, in miniature."""
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    inter += "".join("\t".join(map(str, row)) + "\n" for row in RATINGS)
    item = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    item += "".join(f'{m}\tMovie "{m}\t19{80 + m}\tA B C D\n' for m in range(1, 12))
    user = "user_id:token\tage:token\tgender:token\n2\t30\tF\n10\t40\tM\n"
    path = tmp_path_factory.mktemp("wheel") / "recbole-0.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (("inter", inter), ("item", item), ("user", user)):
            archive.writestr(f"recbole/dataset_example/ml-100k/ml-100k.{name}", text)
    return path


def test_the_last_fifth_of_each_user_is_the_future(wheel: Path) -> None:
    movies = movielens.Movies.open(wheel)
    future = list(zip(*(movies.future[n].to_pylist() for n in ("user_id", "item_id")), strict=True))
    assert sorted(future) == [("10", "1"), ("2", "10"), ("2", "9")]
    assert len(movies.past) + len(movies.future) == len(RATINGS)
    assert movies.users == ["10", "2"]
    assert movielens.as_of(movies) > datetime.fromtimestamp(890_000_000 - 2 * 86_400, UTC)


def test_pasts_are_canonical_purchases(wheel: Path, lines: Any) -> None:
    movies = movielens.Movies.open(wheel)
    when = movielens.as_of(movies)
    table = logs.purchases(open_tables(movies.tables()), when, movies.users, length=20)
    assert table.lengths.tolist() == [4, 8]
    assert table.categories == (2, 2, 2, 9)  # three genres, the years of eight movies
    assert set(table.texts[1:]) == {f'Movie "{m}' for m in range(1, 9)}


def test_liked_movies_of_the_past_are_no_candidates(wheel: Path, lines: Any) -> None:
    task = movielens.Movies.open(wheel).likes(lines)
    assert isinstance(task.objective, Recommendation) and task.objective.known_NM is not None
    assert task.users.tolist() == ["10", "2"]
    assert task.objective.taken_NM.sum(1).tolist() == [1, 1]  # movie 9 got 3, movie 10 got 4
    assert task.objective.known_NM.sum(1).tolist() == [4, 8]
    assert not (task.objective.known_NM & task.objective.taken_NM).any()
    assert task.task_log is not None and task.task_log.lengths.tolist() == [4, 6]  # 10 and 2


def test_women_are_told_by_the_users_themselves(wheel: Path) -> None:
    task = movielens.Movies.open(wheel).women()
    assert isinstance(task.objective, Binary)
    assert np.array_equal(task.objective.labels_N, [False, True])


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pip download --no-deps recbole"):
        movielens.find(str(tmp_path / "none.whl"))
    with pytest.raises(InputError, match="expected ml-100k.inter in"):
        movielens.read(tmp_path, "inter")
