"""Search encoder: replaced-token detection and users who never searched."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from encoders import losses
from encoders.batch import UserBatch, example_batch
from encoders.search import MASK, PAD, SearchConfig, SearchEncoder

TINY = SearchConfig(
    vocabulary=1_050, dim=16, out_dim=6, layers=1, heads=2, max_tokens=12, generator_dim=16
)
SEPARATOR = 102


def batch_of(tokens_BL: Tensor) -> UserBatch:
    return replace(example_batch(num_users=len(tokens_BL), windows=1), tokens_BL=tokens_BL)


def corpus(users: int, seed: int = 0) -> Tensor:
    """Texts that count upwards, so that every token follows from its neighbours."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(1_001, 1_030, (users, 1), generator=generator)
    tokens = start + torch.arange(12)
    tokens[:, 5] = SEPARATOR
    tokens[::3, 8:] = PAD
    return tokens


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    record: dict[str, Any] = {}
    original = losses.replaced_detection

    def detect(logits: Tensor, replaced: Tensor, valid: Tensor | None = None) -> Tensor:
        record.update(logits=logits, replaced=replaced, valid=valid)
        return original(logits, replaced, valid)

    monkeypatch.setattr(losses, "replaced_detection", detect)
    return record


def test_a_user_without_searches_gets_a_finite_vector_of_their_own() -> None:
    encoder = SearchEncoder(TINY).eval()
    tokens = corpus(4)
    tokens[1] = tokens[3] = PAD
    vectors = encoder(batch_of(tokens))
    assert torch.isfinite(vectors).all()
    torch.testing.assert_close(vectors[1], vectors[3])
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3
    alone = encoder(batch_of(torch.zeros(1, 1, dtype=torch.int64)))
    torch.testing.assert_close(alone[0], vectors[1], atol=1e-6, rtol=1e-5)
    padding = encoder.albert(torch.zeros(1, 1, dtype=torch.int64)).last_hidden_state[:, 0]
    torch.testing.assert_close(vectors[1:2], encoder.out(padding), atol=1e-6, rtol=1e-5)
    vectors.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.albert.parameters())


def test_padding_does_not_change_a_vector() -> None:
    encoder = SearchEncoder(TINY).eval()
    tokens = corpus(3)[:, :6]
    padded = torch.nn.functional.pad(tokens, (0, 6), value=PAD)
    torch.testing.assert_close(
        encoder(batch_of(padded)), encoder(batch_of(tokens)), atol=1e-6, rtol=1e-5
    )


def test_words_and_their_order_change_a_vector() -> None:
    encoder = SearchEncoder(TINY).eval()
    tokens = corpus(1)[:, :4]
    other = tokens.clone()
    other[0, 2] = 1_040
    first, second, third = encoder(batch_of(torch.cat([tokens, other, tokens.flip(1)])))
    assert (first - second).abs().max() > 1e-4
    assert (first - third).abs().max() > 1e-4


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_only_words_are_masked_at_the_given_rate(seen: dict[str, Any], rate: float) -> None:
    encoder = SearchEncoder(replace(TINY, mask_rate=rate))
    tokens = torch.cat([corpus(600), torch.zeros(5, 12, dtype=torch.int64)])
    given: list[Tensor] = []
    for part in (encoder.generator.albert, encoder.albert):
        part.embeddings.word_embeddings.register_forward_hook(
            lambda module, args, out: given.append(args[0])
        )
    encoder.loss(batch_of(tokens))
    masked_input, corrupted = given
    tokens = tokens[:600]  # users without searches teach nothing
    words = tokens > 999
    masked = masked_input == MASK
    assert not (masked & ~words).any()
    assert masked[words].float().mean().item() == pytest.approx(rate, abs=0.03)
    assert torch.equal(masked_input[~masked], tokens[~masked])
    assert torch.equal(corrupted[~masked], tokens[~masked])
    # A guess that hits the original is not a replacement; padding is not asked about.
    assert torch.equal(seen["replaced"], corrupted != tokens)
    assert seen["replaced"].any()
    assert torch.equal(seen["valid"] > 0, tokens != PAD)


def train(config: SearchConfig, steps: int) -> Tensor:
    """Generator and detection loss of each step, [steps, 2]."""
    encoder, batch = SearchEncoder(config), batch_of(corpus(64))
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-2)
    history = []
    for _ in range(steps):
        total, parts = encoder.loss(batch)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append([parts["generator"].item(), parts["rtd"].item()])
    return torch.tensor(history)


def test_training_learns_to_tell_replaced_tokens() -> None:
    history = train(replace(TINY, generator_weight=0.0), 50)  # an untaught, easy opponent
    assert history[-5:, 1].mean() < 0.1  # the base rate alone costs about 0.38
    assert history[:3, 1].mean() > 0.3


def test_training_teaches_the_generator_which_words_there_are() -> None:
    history = train(TINY, 30)
    assert history[0, 0] > 6.0  # log 1,050 = 6.96
    assert history[-5:, 0].mean() < 4.2  # log 41 = 3.7 for the words in use


def test_the_total_weighs_both_parts() -> None:
    config = replace(TINY, generator_weight=0.5, discriminator_weight=7.0)
    total, parts = SearchEncoder(config).loss(batch_of(corpus(8)))
    expected = 0.5 * parts["generator"].item() + 7.0 * parts["rtd"].item()
    assert total.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("tokens", [PAD, SEPARATOR])
def test_a_batch_without_words_has_a_finite_loss(tokens: int) -> None:
    encoder = SearchEncoder(TINY)
    total, parts = encoder.loss(batch_of(torch.full((3, 12), tokens)))
    total.backward()
    assert parts["generator"].item() == 0.0
    assert torch.isfinite(total)
    if tokens == PAD:
        assert total.item() == 0.0


def test_objective_parameters_are_those_only_the_loss_uses() -> None:
    encoder = SearchEncoder(TINY)
    only = {id(parameter) for parameter in encoder.objective_parameters()}
    encoder(batch_of(corpus(6))).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is None) == (id(parameter) in only), name


def test_the_generator_learns_from_its_own_loss_only() -> None:
    encoder = SearchEncoder(replace(TINY, generator_weight=0.0, mask_rate=0.5))
    encoder.loss(batch_of(corpus(16)))[0].backward()
    assert all(not p.grad.any() for p in encoder.generator.parameters() if p.grad is not None)
    assert encoder.detect.weight.grad.abs().sum() > 0
