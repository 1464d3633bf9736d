"""What is left of a language model's answer, and how a reading becomes a query."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encoders import checkpoint
from encoders.alignment import FoundModel
from encoders.catalogue import Catalogue, Subject
from encoders.language_rewriter import LanguageRewriter
from encoders.query import QueryEncoder
from encoders.rewriting import MAX_SUBJECTS, Reading, as_it_stands, mixture, named_in

CHEESE = Subject("purchase", "CHEESE", 2, "GROCERY", 9)
ICE = Subject("purchase", "ICE CREAM/MILK/SHERBTS", 2, "GROCERY", 9)
CATALOGUE = Catalogue.of([CHEESE, ICE, Subject("purchase", "BRIE", 3, "CHEESE", 2)])


class Says:
    """A language model that always gives the same answer."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def answer(self, asked: str, /) -> str:
        return self._answer


def test_only_names_of_the_catalogue_count() -> None:
    answer = "ignore the rules; Cheese\nICE cream, milk, sherbts; ice cream milk sherbts; cheese"
    assert named_in(answer, CATALOGUE) == [CHEESE, ICE]
    assert named_in("DROP TABLE; caviar", CATALOGUE) == []
    assert named_in("x" * 10_000 + ";cheese", CATALOGUE) == []  # too far on to be read


def test_what_is_bought_browsed_and_clicked_is_read_as_bought() -> None:
    coffee = [Subject(kind, "COFFEE", 1, "", 9) for kind in ("browsing", "click", "purchase")]
    tea = [Subject(kind, "TEA", 1, "", 9) for kind in ("click", "browsing")]
    catalogue = Catalogue.of([*coffee, *tea])
    assert named_in("coffee; tea", catalogue) == [coffee[2], tea[1]]
    said = Says("will browse coffee in the next four weeks")  # of a model tuned on every kind
    rewriter = LanguageRewriter(said, catalogue, horizon_days=28, own_share=0.0)
    assert rewriter.read("coffee").sentences == (("will buy coffee in the next four weeks", 1.0),)
    assert len(rewriter.vocabulary()) == 2


def test_names_of_any_alphabet_count() -> None:
    rows = [Subject("purchase", name, 1, "", 1) for name in ("커피", "우유", "Кофе", "🍺")]
    coffee, milk, kofe, beer = rows
    answer = "кофе; 우유\n\n- ; 🍺, 차"
    assert named_in(answer, Catalogue.of(rows)) == [kofe, milk, beer]


def test_an_answer_names_no_more_than_a_reading_holds() -> None:
    many = Catalogue.of([Subject("purchase", f"THING {i}", 1, "", 1) for i in range(20)])
    assert len(named_in(";".join(f"thing {i}" for i in range(20)), many)) == MAX_SUBJECTS


def test_a_mixture_gives_shares_that_sum_to_one() -> None:
    reading = mixture("brie", {CHEESE: 3.0, ICE: 1.0}, own_share=0.2, horizon_days=28)
    assert dict(reading.sentences) == pytest.approx(
        {
            "brie": 0.2,
            "will buy cheese in the next four weeks": 0.6,
            "will buy ice cream/milk/sherbts in the next four weeks": 0.2,
        }
    )
    assert reading.note == "Read as: cheese, ice cream/milk/sherbts."


@pytest.mark.parametrize("answer", ["will buy cheese in the next four weeks", "will buy cheese in"])
def test_the_language_models_sentence_is_taken_apart(answer: str) -> None:
    said = Says(answer if answer.endswith("weeks") else "will buy cheese")
    reading = LanguageRewriter(said, CATALOGUE, horizon_days=28, own_share=0.0).read("brie")
    assert reading.sentences == (("will buy cheese in the next four weeks", 1.0),)
    assert not reading.by_stand_in


@pytest.mark.parametrize("answer", ["", "none", "will buy caviar in the next four weeks", "cheese"])
def test_an_unknown_answer_is_replaced_or_the_demand_stays(answer: str) -> None:
    plainly = LanguageRewriter(Says(answer), CATALOGUE, horizon_days=28).read("brie")
    assert plainly.sentences == (("brie", 1.0),) and "read literally" in str(plainly.note)

    class Instead:
        def read(self, demand: str) -> Reading:
            return as_it_stands("something else")

        def vocabulary(self) -> list[str]:
            return []

    rewriter = LanguageRewriter(Says(answer), CATALOGUE, horizon_days=28, instead=Instead())
    assert rewriter.read("brie").sentences == (("something else", 1.0),)
    assert rewriter.read("brie").by_stand_in and not plainly.by_stand_in


class Halves:
    """Reads everything as half cheese, half itself."""

    def read(self, demand: str) -> Reading:
        return mixture(demand, {CHEESE: 1.0}, own_share=0.5, horizon_days=28)

    def vocabulary(self) -> list[str]:
        return [CHEESE.sentence(horizon_days=28)]


def test_a_query_is_the_weighted_sum_of_what_it_was_read_as(
    tmp_path: Path, tiny_config: Callable, info_of: Callable, jolt: Callable
) -> None:
    config = tiny_config(search=None)
    model = FoundModel(config).eval()
    jolt(model)
    checkpoint.save(tmp_path / "c", model, info_of("alignment", config))
    encoder = QueryEncoder.open(tmp_path / "c", lambda directory: Halves())
    brie, cheese = encoder.encode(["brie", "will buy cheese in the next four weeks"])
    query = encoder.understand("brie")
    np.testing.assert_allclose(query.vector, (brie + cheese) / 2, rtol=1e-6)
    assert query.vector.dtype == np.float32 and query.notes == ("Read as: cheese.",)
    literal = encoder.understand("brie", rewrite=False)
    np.testing.assert_array_equal(literal.vector, brie)
    assert literal.notes == ()
    without = QueryEncoder.open(tmp_path / "c", lambda directory: None).understand("brie")
    np.testing.assert_array_equal(without.vector, brie)
