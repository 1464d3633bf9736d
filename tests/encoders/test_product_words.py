"""The code book of product vectors finds kinds of products, and places new ones."""

from __future__ import annotations

import pytest
import torch

from encoders.product_words import ProductWords

KINDS, EACH, WIDTH = 4, 25, 6


@pytest.fixture
def products() -> torch.Tensor:
    """Four kinds far apart, along axes of very different length."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(WIDTH)[:KINDS] * torch.tensor([100.0, 10.0, 1.0, 0.5, 1.0, 1.0])
    near = torch.randn(KINDS, EACH, WIDTH, generator=generator) * 0.01
    return (centres[:, None] + near).flatten(0, 1)


def test_kinds_are_found_however_long_their_axis_is(products: torch.Tensor) -> None:
    book = ProductWords(WIDTH, KINDS)
    book.fit(products, torch.ones(len(products)))
    words = book(products).view(KINDS, EACH)
    assert (words == words[:, :1]).all()
    assert sorted(words[:, 0].tolist()) == [0, 1, 2, 3]


def test_a_new_product_is_the_word_of_its_kind(products: torch.Tensor) -> None:
    book = ProductWords(WIDTH, KINDS)
    uses = torch.ones(len(products))
    uses[::5] = 0  # never bought: not fitted on
    strange = products.clone()
    strange[::5] = 1e3  # so it may be anything
    book.fit(strange, uses)
    words = book(products).view(KINDS, EACH)
    assert (words == words[:, 1:2]).all()


def test_words_left_over_are_nobodys(products: torch.Tensor) -> None:
    book = ProductWords(WIDTH, 9)
    few = products[[0, 30, 30, 80]]
    book.fit(few, torch.ones(4))
    assert book(few).tolist()[1:3] == [book(few)[1].item()] * 2
    assert len(set(book(few).tolist())) == 3 and int(book(few).max()) < 3
    assert torch.isfinite(book.words_KH).all() and int(book(products).max()) < 3


def test_without_purchases_everything_is_one_word(products: torch.Tensor) -> None:
    book = ProductWords(WIDTH, 2)
    book.fit(products, torch.zeros(len(products)))
    assert book(products).tolist() == [0] * len(products)
