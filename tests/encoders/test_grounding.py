"""Reading demands by the catalogue: with word vectors in which meaning is plain to see."""

from collections.abc import Sequence

import numpy as np
import pytest

from encoders.catalogue import Catalogue, Subject
from encoders.grounding import CatalogueRewriter, GroundingConfig, without_generic
from encoders.rewriting import Reading

WORDS = {
    "beer": 0, "lager": 0, "wine": 1, "merlot": 1, "diapers": 2, "nappies": 2, "coupon": 3,
    "vouchers": 3, "grocery": 4,
}  # fmt: skip
CATALOGUE = Catalogue.of(
    [
        Subject("purchase", "BEER", 2, "GROCERY", 9),
        Subject("purchase", "WINE", 2, "GROCERY", 9),
        Subject("click", "WINE", 2, "GROCERY", 2),
        Subject("purchase", "DIAPERS", 2, "GROCERY", 9),
        Subject("purchase", "LAGER", 3, "BEER", 5),
        Subject("purchase", "MERLOT", 3, "WINE", 5),
        Subject("purchase", "GROCERY", 1, "", 50),
        Subject("channel", "coupon", 0, "", 9),
    ]
)


def vectors(texts: Sequence[str]) -> np.ndarray:
    """A sum of one direction per known meaning, and a last one for whatever else is said."""
    rows = np.zeros((len(texts), 6), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().replace(",", " ").split():
            row[WORDS.get(word.strip(":"), 5)] += 1.0 if word.strip(":") in WORDS else 0.05
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def rewriter() -> CatalogueRewriter:
    keeping = GroundingConfig(own_share=0.1)
    return CatalogueRewriter(CATALOGUE, vectors, horizon_days=28, config=keeping)


def shares(reading: Reading) -> dict[str, float]:
    return dict(reading.sentences)


def test_a_demand_is_read_as_the_heading_it_means(rewriter: CatalogueRewriter) -> None:
    demand = "households that will buy nappies next month"
    reading = rewriter.read(demand)
    read = shares(reading)
    assert sum(read.values()) == pytest.approx(1.0)
    assert read["will buy diapers in the next four weeks"] > 0.6
    assert read[demand] == pytest.approx(0.1)
    assert reading.note is not None and reading.note.startswith("Read as: diapers")


def test_a_heading_said_by_its_name_is_read_as_nothing_else(rewriter: CatalogueRewriter) -> None:
    for demand in ("will buy wine in the next four weeks", "people who want wines", "WINE"):
        assert set(shares(rewriter.read(demand))) == {
            demand, "will buy wine in the next four weeks",
        }  # fmt: skip
    assert len(shares(rewriter.read("wine or nappies"))) > 2


def test_headings_said_by_their_names_share_the_query_alone(rewriter: CatalogueRewriter) -> None:
    for demand in ("will buy wine or diapers, in the next month", "wine, diapers,",
                   "diapers and wines"):  # fmt: skip
        read = shares(rewriter.read(demand))
        assert read.pop(demand) == pytest.approx(0.1)
        assert read == pytest.approx(
            {f"will buy {name} in the next four weeks": 0.45 for name in ("wine", "diapers")}
        )


def test_a_name_with_and_in_it_is_one_heading() -> None:
    both = Catalogue.of(
        [Subject("purchase", name, 2, "X", 9) for name in ("COLD AND FLU", "WINE", "COLD")]
    )
    rewriter = CatalogueRewriter(both, vectors, horizon_days=28)
    for demand, names in (("who buys cold and flu", ["cold and flu"]),
                          ("cold and flu or wine", ["cold and flu", "wine"]),
                          ("cold and wine", ["cold", "wine"])):  # fmt: skip
        read = shares(rewriter.read(demand))
        assert list(read) == [f"will buy {name} in the next four weeks" for name in names]


ALPHABETS = Catalogue.of([
    Subject("purchase", name, 1, "", 9)
    for name in ("커피", "차", "고양이 사료", "Кофе", "Чай", "咖啡", "牛奶", "🍺", "COFFEE")
])  # fmt: skip


@pytest.mark.parametrize(
    ("demand", "names"),
    [
        ("커피를 살 사람", ["커피"]),
        ("자동차를 살 사람", None),
        ("차나 고양이 사료", ["고양이 사료", "차"]),
        ("кофе", ["кофе"]),
        ("people who like КОФЕ", ["кофе"]),
        ("купят чай и кофе", ["кофе", "чай"]),
        ("случайные покупатели", None),
        ("会买咖啡的人", ["咖啡"]),
        ("🍺", ["🍺"]),
        ("кофе machines", None),
        ("coffee", ["coffee"]),
    ],
)
def test_names_of_any_alphabet_are_read(demand: str, names: list[str] | None) -> None:
    reading = CatalogueRewriter(ALPHABETS, vectors, horizon_days=28).read(demand)
    if names is None:
        assert len(reading.sentences) > 2
    else:
        assert list(shares(reading)) == [f"will buy {n} in the next four weeks" for n in names]


def test_what_is_read_by_its_letters_alone_says_so() -> None:
    rewriter = CatalogueRewriter(ALPHABETS, vectors, horizon_days=28)
    assert "Only English is read by its meaning" in str(rewriter.read("кошек").note)
    assert "Only English" not in str(rewriter.read("lager").note)


def test_each_heading_is_described_in_its_own_letters() -> None:
    described: list[str] = []

    def noting(texts: Sequence[str]) -> np.ndarray:
        described.extend(texts)
        return vectors(texts)

    CatalogueRewriter(ALPHABETS, noting, horizon_days=28)
    assert {"커피", "кофе", "чай", "咖啡", "🍺", "coffee"} <= set(described) and "" not in described


def test_a_finer_subject_leads_to_its_heading(rewriter: CatalogueRewriter) -> None:
    assert max(shares(rewriter.read("lager")).items(), key=lambda item: item[1])[0] == (
        "will buy beer in the next four weeks"
    )


def test_several_items_share_the_query(rewriter: CatalogueRewriter) -> None:
    read = shares(rewriter.read("people who like lager or merlot"))
    beer, wine = (read[f"will buy {name} in the next four weeks"] for name in ("beer", "wine"))
    assert beer == pytest.approx(wine, rel=0.2) and beer > 0.25


def test_generic_words_make_no_difference(rewriter: CatalogueRewriter) -> None:
    bare = shares(rewriter.read("merlot"))
    long = shares(rewriter.read("all households that are likely to buy merlot in the next weeks"))
    sentence = "will buy wine in the next four weeks"
    assert bare[sentence] == pytest.approx(long[sentence], abs=0.05)
    assert without_generic("who will buy it next month") == "who will buy it next month"


def test_demands_about_overall_behaviour_are_left_alone(rewriter: CatalogueRewriter) -> None:
    for demand in ("will redeem a coupon in the next eight weeks", "people who use vouchers"):
        reading = rewriter.read(demand)
        assert reading == Reading(((demand, 1.0),))


def test_what_matches_nothing_is_read_literally_with_a_note() -> None:
    strict = CatalogueRewriter(
        CATALOGUE, vectors, horizon_days=28, config=GroundingConfig(least=2.0)
    )
    reading = strict.read("lager")
    assert reading.sentences == (("lager", 1.0),)
    assert reading.note == "Nothing in the catalogue matches: the demand is read literally."
    empty = CatalogueRewriter(Catalogue(()), vectors, horizon_days=28).read("beer")
    assert empty.sentences == (("beer", 1.0),) and "empty" in str(empty.note)


def test_the_vocabulary_holds_every_sentence_a_reading_can_have(
    rewriter: CatalogueRewriter,
) -> None:
    known = set(rewriter.vocabulary())
    assert len(known) == 4  # the click on wine says nothing new
    for demand in ("lager or merlot", "nappies", "grocery"):
        assert set(shares(rewriter.read(demand))) - known == {demand}


def test_a_demand_about_overall_behaviour_is_read_as_the_outcome_it_means() -> None:
    learnt = CATALOGUE.with_outcomes({"coupon": 3, "nothing": 5, "a lot": 2, "more": 2})
    rewriter = CatalogueRewriter(learnt, vectors, horizon_days=28)
    reading = rewriter.read("people who wave vouchers at us")
    best = max(reading.sentences, key=lambda each: each[1])
    assert best[0] == "will redeem a coupon in the next four weeks" and best[1] > 0.5
    assert reading.note is not None and reading.note.startswith("Read as: use of coupons")
    assert best[0] in rewriter.vocabulary()


@pytest.mark.parametrize(
    ("demand", "read"),
    [("will spend a lot in the next four weeks", "will spend a lot in the next four weeks"),
     ("Households that will spend a lot in the next TWO weeks.",
      "will spend a lot in the next two weeks"),
     ("our most valuable shoppers of the coming eight weeks",
      "will spend a lot in the next eight weeks")],
)  # fmt: skip
def test_who_speaks_in_the_models_own_words_is_taken_at_them(demand: str, read: str) -> None:
    learnt = CATALOGUE.with_outcomes({"a lot": 9, "more": 9})
    reading = CatalogueRewriter(learnt, vectors, horizon_days=28).read(demand)
    assert reading.sentences == ((read, 1.0),)


def test_a_model_that_has_learnt_no_outcome_leaves_such_a_demand_alone(
    rewriter: CatalogueRewriter,
) -> None:
    demand = "people who wave vouchers at us"
    assert rewriter.read(demand).sentences == ((demand, 1.0),)
