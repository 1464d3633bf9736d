"""Windows as text: what is kept, in which order, and that it depends on the window alone."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from encoders.batch import Collate
from encoders.behaviour import BehaviourConfig, BehaviourEncoder
from encoders.window_text import WindowTexts
from feature_repo.schema import EVENT_SOURCES

WEEK = 7 * 24 * 3600 * 1_000_000
SEP = 102
ALBERT = BehaviourConfig(
    window_encoder="albert", dim=8, temporal_dim=None, heads=2, layers=2, windows=4,
    pretrain_windows=4, forecast_windows=1, pooling="mean", vocabulary=1_200, text_dim=8,
    text_embedding=8, text_heads=2, text_layers=1, max_tokens=12, dropout=0.0,
)  # fmt: skip


@dataclass
class Rows:
    """Lines per row as lists of (line, weight)."""

    rows: list[list[tuple[int, float]]]

    @property
    def length(self) -> np.ndarray:
        return np.array([len(row) for row in self.rows])

    @property
    def start(self) -> np.ndarray:
        return np.cumsum(self.length) - self.length

    @property
    def ids(self) -> np.ndarray:
        return np.array([line for row in self.rows for line, _ in row], np.int64)

    @property
    def weights(self) -> np.ndarray:
        return np.array([weight for row in self.rows for _, weight in row], np.float32)


def spell(line: str) -> list[int]:
    """A token per letter, then the separator."""
    return [1_000 + ord(letter) for letter in line] + [SEP]


def read(texts: WindowTexts, rows: list[int]) -> list[list[tuple[str, str]]]:
    """Lines and their sources, as a row of tokens spells them."""
    text = texts(np.array(rows))
    out = []
    for tokens, segments in zip(text.tokens_NL.tolist(), text.segments_NL.tolist(), strict=True):
        lines, word = [], ""
        for token, segment in zip(tokens, segments, strict=True):
            if token == SEP:
                lines.append((EVENT_SOURCES[segment], word))
                word = ""
            elif token:
                word += chr(token - 1_000)
        out.append([*lines, (EVENT_SOURCES[segments[-1]], word)] if word else lines)
    return out


LINES = ["ab", "cde", "f", "ghij", "k" * 30]


def test_a_window_is_read_source_by_source_most_frequent_first() -> None:
    bills = Rows([[(0, 1.0), (1, 3.0)], [], [(2, 1.0)]])
    clicks = Rows([[(3, 2.0)], [], []])
    texts = WindowTexts(
        {"click": clicks, "bill": bills}, LINES, np.arange(3) * WEEK, spell, max_tokens=20
    )
    assert read(texts, [2, 0]) == [
        [("bill", "f")],
        [("bill", "cde"), ("bill", "ab"), ("click", "ghij")],
    ]
    assert len(texts(np.array([1])).tokens_NL) == 0  # an empty window has no text
    assert texts(np.array([2])).tokens_NL.shape == (1, 2)  # padded to the longest asked for


def test_the_limit_keeps_whole_lines_the_most_frequent_of_any_source() -> None:
    bills = Rows([[(0, 1.0), (1, 3.0)]])  # "ab" takes 3 tokens, "cde" 4
    clicks = Rows([[(3, 2.0)]])  # "ghij" takes 5
    for limit, expected in (
        (12, [("bill", "cde"), ("bill", "ab"), ("click", "ghij")]),
        (11, [("bill", "cde"), ("click", "ghij")]),
        (8, [("bill", "cde")]),
        (3, [("bill", "cde")]),
    ):
        texts = WindowTexts({"bill": bills, "click": clicks}, LINES, np.zeros(1), spell, limit)
        got = read(texts, [0])[0]
        assert got == [(source, line[:limit]) for source, line in expected]
        assert (texts(np.array([0])).tokens_NL != 0).sum() <= limit


def test_a_single_line_longer_than_the_limit_is_cut() -> None:
    texts = WindowTexts({"bill": Rows([[(4, 1.0)]])}, LINES, np.zeros(1), spell, 6)
    assert read(texts, [0]) == [[("bill", "k" * 6)]]


def test_no_line_is_always_the_one_that_is_cut() -> None:
    lines = [chr(97 + n) for n in range(10)]
    rows = Rows([[(n, 1.0) for n in range(10)]] * 40)
    texts = WindowTexts({"bill": rows}, lines, np.arange(40) * WEEK, spell, max_tokens=8)
    kept = [{line for _, line in row} for row in read(texts, list(range(40)))]
    assert all(len(each) == 4 for each in kept)
    assert set().union(*kept) == set(lines)


def test_a_window_reads_the_same_in_any_history() -> None:
    lines = [chr(97 + n) for n in range(10)]
    full = Rows([[(n, 1.0) for n in range(10)], [(n, 2.0) for n in range(1, 9)]])
    times = np.array([3, 4]) * WEEK
    long = WindowTexts({"bill": full, "click": Rows([[], []])}, lines, times, spell, 8)
    short = WindowTexts({"bill": Rows([[(n - 1, 2.0) for n in range(1, 9)]])}, lines[1:], times[1:],
                        spell, 8)  # fmt: skip
    assert read(long, [1]) == read(short, [0])


@pytest.fixture
def collate_of(world: Any, tokens_of: Callable) -> Callable[..., Collate]:
    return lambda rows=None: Collate(
        world.history(rows), windows=4, line_tokens=tokens_of, window_tokens=12
    )


def test_texts_of_a_batch_stand_in_the_order_of_its_filled_windows(
    world: Any, collate_of: Callable
) -> None:
    collate = collate_of()
    rows = np.arange(0, len(world.rows), 2)
    batch = collate(rows)
    assert len(batch.window_text.tokens_NL) == batch.filled_BW.sum() > 0
    at = 0
    for b, row in enumerate(rows):
        alone = collate(np.array([row])).window_text.tokens_NL
        mine = batch.window_text.tokens_NL[at : at + len(alone)]
        assert torch.equal(mine[:, : alone.shape[1]], alone)
        assert not mine[:, alone.shape[1] :].any()
        at += int(batch.filled_BW[b].sum())


def test_the_albert_reads_each_window_alone(world: Any, collate_of: Callable) -> None:
    encoder = BehaviourEncoder(ALBERT).eval()
    torch.nn.init.normal_(encoder.empty_D)
    torch.nn.init.normal_(encoder.unknown_D)
    batch = collate_of()(np.arange(len(world.rows)))
    with torch.no_grad():
        z_BWD = encoder.windows(batch)
        text = batch.window_text
        for n, (b, w) in enumerate(batch.filled_BW.nonzero().tolist()):
            ids, segments = text.tokens_NL[n], text.segments_NL[n]
            held = ids != 0
            hidden = encoder.albert(
                ids[held][None], token_type_ids=segments[held][None]
            ).last_hidden_state[0]
            torch.testing.assert_close(z_BWD[b, w], encoder.read(hidden.mean(0)), atol=1e-5, rtol=0)
    empty = batch.known_BW & ~batch.filled_BW
    assert torch.equal(z_BWD[empty], encoder.empty_D.detach().expand(int(empty.sum()), -1))
    unknown = ~batch.known_BW
    assert torch.equal(z_BWD[unknown], encoder.unknown_D.detach().expand(int(unknown.sum()), -1))


def test_users_without_any_text_have_vectors(world: Any, collate_of: Callable) -> None:
    encoder = BehaviourEncoder(ALBERT).eval()
    silent = [row | {n: [] for n in row if n in ("bills", "clicks") or n.endswith("_counts")}
              | {"searches": []} for row in world.rows]  # fmt: skip
    batch = collate_of(silent)(np.arange(4))
    assert len(batch.window_text.tokens_NL) == 0
    assert encoder(batch).isfinite().all()
    total, _ = encoder.loss(batch)
    assert total.item() == 0.0


def test_the_source_of_a_line_matters(world: Any, collate_of: Callable) -> None:
    encoder = BehaviourEncoder(ALBERT).eval()
    batch = collate_of()(np.arange(len(world.rows)))
    other = replace(batch.window_text, segments_NL=(batch.window_text.segments_NL + 1) % 3)
    with torch.no_grad():
        moved = (encoder(batch) - encoder(replace(batch, window_text=other))).abs().amax(1)
    assert moved[batch.filled_BW.any(1)].min() > 1e-5


@pytest.mark.parametrize("temporal", ["transformer", "gru"])
def test_the_papers_encoder_learns_to_forecast(
    temporal: Any, make_world: Callable, tokens_of: Callable
) -> None:
    """Users who keep buying one thing each are told apart by their past windows."""
    world = make_world(num_users=8, weeks=5, seed=3)
    things = ["apples", "bread", "cheese", "candles"]
    rows = [
        row | {"bills": [things[int(row["user_id"][1:]) % 4]], "bill_counts": [1.0],
               "clicks": [], "click_counts": []}
        for row in world.rows
    ]  # fmt: skip
    collate = Collate(world.history(rows), windows=4, line_tokens=tokens_of, window_tokens=12)
    batch = collate(np.arange(len(rows)))
    encoder = BehaviourEncoder(replace(ALBERT, temporal=temporal, learn_temperature=True))
    optimizer = torch.optim.Adam(encoder.parameters(), 2e-2)
    history = []
    for _ in range(60):
        total, parts = encoder.loss(batch)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(parts["forecast"].item())
    assert history[-1] < history[0] - 0.3
    assert encoder.log_temperature.item() < 0  # the cosines are sharpened
    learnt = {n for n, p in encoder.named_parameters() if p.grad is not None and p.grad.any()}
    assert any(n.startswith("albert.embeddings.word") for n in learnt)
    assert encoder.objective_parameters() == [encoder.log_temperature]


def test_without_a_width_of_its_own_time_is_read_at_full_width() -> None:
    encoder = BehaviourEncoder(ALBERT).eval()
    z_BWD = torch.randn(3, 4, 8)
    with torch.no_grad():
        c_BWD = encoder.contexts(z_BWD)
        mask = torch.nn.Transformer.generate_square_subsequent_mask(4)
        expected = encoder.temporal(z_BWD + encoder.lag_WH, mask=mask)
    torch.testing.assert_close(c_BWD, expected)
    # What g_μ gives out is its own: a window of no consequence leaves no trace beside it.
    torch.testing.assert_close(c_BWD.mean(-1), torch.zeros(3, 4), atol=1e-5, rtol=0)


def test_another_window_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="window_encoder must be 'albert' or 'lines', got 'bert'"):
        replace(ALBERT, window_encoder="bert")
