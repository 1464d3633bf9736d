"""The rewriters by name, made for the sentences of one alignment checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from encoders import checkpoint
from encoders.endpoint import EndpointRewriter, EndpointSettings
from encoders.grounding import CatalogueRewriter
from encoders.language_rewriter import LanguageRewriter
from encoders.rewriter_model import RewriterModel
from encoders.rewriting import Choice, Rewriter
from encoders.text import LineEncoder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RewriterPlaces:
    """Where the rewriters find what they need."""

    cache: Path  # of sentence vectors
    tuned: Path  # the tuned language model's checkpoint
    endpoint: EndpointSettings | None = None


def maker(choice: Choice, places: RewriterPlaces) -> Callable[[Path], Rewriter | None] | None:
    """What makes the chosen rewriter for an alignment checkpoint; None for no rewriting.

    A checkpoint without a catalogue gets no rewriter.

    Raises:
        CheckpointError, WeightsMissing: the tuned language model cannot be opened.
    """
    if choice == "none":
        return None
    model = _tuned(places.tuned) if choice == "language-model" else None

    def make(directory: Path) -> Rewriter | None:
        catalogue = checkpoint.read_catalogue(directory)
        if catalogue is None:
            log.warning("%s holds no catalogue: demands are read literally", directory)
            return None
        horizon = checkpoint.read_info(directory).horizon_days
        if choice == "endpoint":
            assert places.endpoint is not None, "--rewriter endpoint is checked at the start"
            return EndpointRewriter(catalogue, places.endpoint, horizon_days=horizon)
        lines = LineEncoder(places.cache)
        grounded = CatalogueRewriter(catalogue, lines, lines.once, horizon_days=horizon)
        lines.save()
        if model is None:
            return grounded
        return LanguageRewriter(model, catalogue, horizon_days=horizon, instead=grounded)

    return make


def _tuned(directory: Path) -> RewriterModel:
    model, _ = checkpoint.load(directory, expect="rewriter")
    assert isinstance(model, RewriterModel)
    return model
