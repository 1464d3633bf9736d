"""The rewriters by name, made for one checkpoint."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encoders import checkpoint
from encoders.alignment import FoundModel
from encoders.catalogue import Catalogue, Subject
from encoders.checkpoint import CheckpointError
from encoders.endpoint import EndpointRewriter, EndpointSettings
from encoders.language_rewriter import LanguageRewriter
from encoders.query import QueryEncoder
from encoders.rewriter_model import RewriterConfig, RewriterModel
from encoders.rewriters import RewriterPlaces, maker
from encoders.rewriting import CHOICES

NAMES = ("CHEESE", "DIAPERS & DISPOSABLES", "DOMESTIC WINE", "CAT FOOD", "GASOLINE")
CATALOGUE = Catalogue.of(Subject("purchase", name, 2, "GROCERY", 9) for name in NAMES)


@pytest.fixture
def aligned(tmp_path: Path, tiny_config: Callable, info_of: Callable) -> Path:
    """An alignment checkpoint with a catalogue."""
    config = tiny_config(search=None)
    info = info_of("alignment", config)
    checkpoint.save(tmp_path / "aligned", FoundModel(config), info, CATALOGUE)
    return tmp_path / "aligned"


@pytest.fixture
def places(tmp_path: Path) -> RewriterPlaces:
    settings = EndpointSettings("http://127.0.0.1:9/v1", "m")
    return RewriterPlaces(tmp_path / "cache", tmp_path / "tuned", settings)


def test_the_catalogue_reads_other_words(
    shared_minilm: None, aligned: Path, places: RewriterPlaces
) -> None:
    make = maker("catalogue", places)
    assert make is not None
    encoder = QueryEncoder.open(aligned, make)
    query = encoder.understand("people who love brie and cheddar")
    assert query.notes[0].startswith("Read as: cheese")
    assert encoder.understand("owners of a kitten").notes[0].startswith("Read as: cat food")
    told = "will redeem a coupon in the next eight weeks"
    np.testing.assert_array_equal(encoder.understand(told).vector, encoder.encode([told])[0])
    assert list(places.cache.iterdir())  # descriptions are computed once per workspace


def test_no_rewriting_and_no_catalogue_make_none(
    aligned: Path, places: RewriterPlaces, caplog: pytest.LogCaptureFixture
) -> None:
    assert maker("none", places) is None
    (aligned / "catalogue.json").unlink()
    for choice in CHOICES[1::2]:
        make = maker(choice, places)
        assert make is not None and make(aligned) is None
    assert "demands are read literally" in caplog.text


def test_the_endpoint_knows_the_catalogue(aligned: Path, places: RewriterPlaces) -> None:
    make = maker("endpoint", places)
    assert make is not None
    rewriter = make(aligned)
    assert isinstance(rewriter, EndpointRewriter)
    assert "will buy cheese in the next four weeks" in rewriter.vocabulary()


def test_the_tuned_language_model_is_opened_once(
    shared_minilm: None, aligned: Path, places: RewriterPlaces, tiny_llama: str, info_of: Callable
) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        maker("language-model", places)
    config = RewriterConfig(model=tiny_llama)
    checkpoint.save(places.tuned, RewriterModel(config), info_of("rewriter", config))
    make = maker("language-model", places)
    assert make is not None
    rewriter = make(aligned)
    assert isinstance(rewriter, LanguageRewriter)
    # A random model names nothing, so the catalogue reads in its place.
    assert str(rewriter.read("people who love brie").note).startswith("Read as: cheese")
