"""Tabular encoder: what is masked and replaced, and that columns learn from each other."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from encoders import losses
from encoders.batch import UserBatch, example_batch
from encoders.tabular import TabularConfig, TabularEncoder

TINY = TabularConfig(
    vocabularies={"a": ["x", "y"], "b": ["u", "v", "w"], "c": ["t"] * 6},
    scales={"f": (0.0, 1.0), "g": (0.0, 1.0)},
    dim=8, out_dim=6, blocks=1, heads=2, dropout=0.0,
)  # fmt: skip
SIZES = torch.tensor([4, 5, 8])  # codes per column, missing and unknown included


def batch_of(rows: int, seed: int = 0) -> UserBatch:
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(rows, 3, generator=generator)
    return replace(
        example_batch(num_users=rows, windows=1),
        codes_BC=(uniform * SIZES).long(),
        values_BF=torch.randn(rows, 2, generator=generator),
        missing_BF=torch.rand(rows, 2, generator=generator) < 0.3,
    )


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the encoder hands to its losses."""
    record: dict[str, Any] = {}
    mlm, rtd = losses.masked_columns, losses.replaced_detection

    def masked(logits: list[Tensor], codes: Tensor, masked: Tensor) -> Tensor:
        record.update(mlm_logits=logits, codes=codes, masked=masked)
        return mlm(logits, codes, masked)

    def detect(logits: Tensor, replaced: Tensor, valid: Tensor | None = None) -> Tensor:
        record.update(rtd_logits=logits, replaced=replaced, valid=valid)
        return rtd(logits, replaced, valid)

    monkeypatch.setattr(losses, "masked_columns", masked)
    monkeypatch.setattr(losses, "replaced_detection", detect)
    return record


def inputs(encoder: TabularEncoder, record: list[Tensor]) -> None:
    """Notes the joint codes that go into the Transformer: first MLM's, then RTD's."""
    encoder.values.register_forward_hook(lambda module, args, out: record.append(args[0]))


@pytest.mark.parametrize("rate", [0.3, 0.05])
def test_the_share_of_masked_cells_is_the_rate_and_they_are_hidden(
    seen: dict[str, Any], rate: float
) -> None:
    encoder = TabularEncoder(replace(TINY, mask_rate=rate))
    batch = batch_of(3_000)
    joint: list[Tensor] = []
    inputs(encoder, joint)
    encoder.loss(batch)
    share_C = seen["masked"].float().mean(0)
    torch.testing.assert_close(share_C, torch.full((3,), rate), atol=0.035, rtol=0)
    assert seen["codes"] is batch.codes_BC
    first_C = torch.tensor([0, 4, 9])
    expected = torch.where(seen["masked"], 0, batch.codes_BC) + first_C  # 0: missing (A.1)
    assert torch.equal(joint[0], expected)
    for column, logits in enumerate(seen["mlm_logits"]):
        assert logits.shape == (3_000, SIZES[column])


def test_with_everything_masked_nothing_of_a_row_is_left(seen: dict[str, Any]) -> None:
    encoder = TabularEncoder(replace(TINY, mask_rate=1.0, scales={}))
    empty = {"values_BF": torch.zeros(50, 0), "missing_BF": torch.zeros(50, 0, dtype=torch.bool)}
    encoder.loss(replace(batch_of(50), **empty))
    for logits in seen["mlm_logits"]:
        torch.testing.assert_close(logits, logits[:1].expand_as(logits))


def test_detection_is_asked_of_every_cell_and_labels_are_true(seen: dict[str, Any]) -> None:
    encoder = TabularEncoder(replace(TINY, replace_rate=0.4))
    batch = batch_of(3_000)
    joint: list[Tensor] = []
    inputs(encoder, joint)
    encoder.loss(batch)
    original, corrupted = batch.codes_BC + torch.tensor([0, 4, 9]), joint[1]
    assert seen["rtd_logits"].shape == (3_000, 3)
    assert seen["valid"] is None
    assert torch.equal(seen["replaced"], corrupted != original)
    # A replacement that happens to be the same value is no replacement.
    share_C = seen["replaced"].float().mean(0)
    expected = 0.4 * (1 - 1 / SIZES.float())
    torch.testing.assert_close(share_C, expected, atol=0.035, rtol=0)


def test_replacements_come_from_the_same_column_of_other_rows(seen: dict[str, Any]) -> None:
    encoder = TabularEncoder(replace(TINY, replace_rate=1.0))
    batch = batch_of(200)
    joint: list[Tensor] = []
    inputs(encoder, joint)
    encoder.loss(batch)
    corrupted = joint[1] - torch.tensor([0, 4, 9])
    for column in range(3):
        expected = batch.codes_BC[:, column].sort().values
        assert torch.equal(corrupted[:, column].sort().values, expected)


def test_each_column_is_replaced_from_rows_of_its_own(seen: dict[str, Any]) -> None:
    """Were one row swapped in whole, columns would still fit together and nothing would show."""
    same = ["x", "y", "z"]
    encoder = TabularEncoder(
        replace(TINY, vocabularies={"a": same, "b": same}, scales={}, replace_rate=1.0)
    )
    codes_BC = torch.randint(2, 5, (400, 1)).repeat(1, 2)  # b is a copy of a
    empty = {"values_BF": torch.zeros(400, 0), "missing_BF": torch.zeros(400, 0).bool()}
    joint: list[Tensor] = []
    inputs(encoder, joint)
    encoder.loss(replace(batch_of(400), codes_BC=codes_BC, **empty))
    first, second = joint[1].T
    assert (first == second - 5).float().mean().item() == pytest.approx(1 / 3, abs=0.1)


def test_a_vector_is_read_from_the_codes_of_each_column() -> None:
    encoder = TabularEncoder(TINY).eval()
    batch = batch_of(50)
    joint: list[Tensor] = []
    inputs(encoder, joint)
    encoder(batch)
    assert torch.equal(joint[0], batch.codes_BC + torch.tensor([0, 4, 9]))


def test_each_column_has_a_classifier_of_its_own(seen: dict[str, Any]) -> None:
    encoder = TabularEncoder(TINY).eval()
    batch = batch_of(40)
    torch.manual_seed(1)
    encoder.loss(batch)
    before = seen["rtd_logits"].detach()
    for column in range(3):
        for parameter in (encoder.rtd_CD, encoder.rtd_bias_C):
            kept = parameter.detach().clone()
            with torch.no_grad():
                parameter[column] += 1.0
            torch.manual_seed(1)
            encoder.loss(batch)
            moved = (seen["rtd_logits"].detach() - before).abs().amax(0) > 0
            assert moved.tolist() == [c == column for c in range(3)]
            with torch.no_grad():
                parameter.copy_(kept)


def test_the_loss_weighs_its_parts_as_the_paper_does() -> None:
    total, parts = TabularEncoder(TINY).loss(batch_of(20))
    expected = 0.6 * parts["mlm"].item() + 0.4 * parts["rtd"].item()
    assert total.item() == pytest.approx(expected, rel=1e-6)


def test_a_missing_category_is_a_value_of_its_own() -> None:
    encoder = TabularEncoder(TINY).eval()
    batch = batch_of(1)
    vectors = []
    for code in range(4):
        codes = batch.codes_BC.clone()
        codes[0, 0] = code
        vectors.append(encoder(replace(batch, codes_BC=codes))[0])
    assert torch.cdist(torch.stack(vectors), torch.stack(vectors)).fill_diagonal_(1).min() > 1e-3


def test_a_missing_number_is_not_a_zero_and_hides_its_content() -> None:
    encoder = TabularEncoder(TINY).eval()
    batch = replace(batch_of(2), missing_BF=torch.tensor([[True, False], [False, False]]))
    before = encoder(batch)
    values = batch.values_BF.clone()
    values[:, 0] += 3.0
    after = encoder(replace(batch, values_BF=values))
    assert torch.equal(after[0], before[0])
    assert (after[1] - before[1]).abs().max() > 1e-3
    zero = replace(
        batch, values_BF=torch.zeros(2, 2), missing_BF=torch.tensor([[True, False], [False, False]])
    )
    first, second = encoder(replace(zero, codes_BC=batch.codes_BC[:1].repeat(2, 1)))
    assert (first - second).abs().max() > 1e-3


def test_the_same_value_in_two_columns_means_two_things() -> None:
    config = replace(TINY, vocabularies={"a": ["x", "y"], "b": ["x", "y"]}, scales={})
    encoder = TabularEncoder(config).eval()
    empty = {"values_BF": torch.zeros(2, 0), "missing_BF": torch.zeros(2, 0, dtype=torch.bool)}
    swapped = replace(batch_of(2), codes_BC=torch.tensor([[2, 3], [3, 2]]), **empty)
    first, second = encoder(swapped)
    assert (first - second).abs().max() > 1e-3


def test_objective_parameters_are_those_only_the_loss_uses() -> None:
    encoder = TabularEncoder(replace(TINY, mask_rate=0.5, replace_rate=0.5))
    only = {id(parameter) for parameter in encoder.objective_parameters()}
    encoder(batch_of(30)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is None) == (id(parameter) in only), name
    encoder.zero_grad(set_to_none=True)
    encoder.loss(batch_of(30))[0].backward()
    unused = {name for name, parameter in encoder.named_parameters() if parameter.grad is None}
    assert unused == {"out.weight", "out.bias"}


def test_training_finds_a_planted_dependency_between_columns() -> None:
    config = replace(
        TINY, vocabularies={"a": list("wxyz"), "b": list("wxyz")}, scales={"f": (0.0, 1.0)}, dim=16
    )
    encoder = TabularEncoder(config)
    codes = torch.randint(2, 6, (256, 1), generator=torch.Generator().manual_seed(2))
    batch = replace(
        batch_of(256),
        codes_BC=torch.cat([codes, 7 - codes], 1),  # b mirrors a
        values_BF=(codes - 3.5).float(),  # and f orders them
        missing_BF=torch.zeros(256, 1, dtype=torch.bool),
    )
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-2)
    history = []
    for _ in range(80):
        total, parts = encoder.loss(batch)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append((parts["mlm"].item(), parts["rtd"].item()))
    # Sums over a user's cells; two columns, of which three in ten are masked.
    mlm, rtd = (torch.tensor(history[-5:]).mean(0) / torch.tensor([0.3 * 2, 2])).tolist()
    assert mlm < 0.5  # guessing costs log 4 = 1.39
    assert rtd < 0.35  # the base rate alone costs 0.53
    assert history[0][0] / (0.3 * 2) > 1.2


def test_numbers_alone_make_a_table() -> None:
    encoder = TabularEncoder(replace(TINY, vocabularies={})).eval()
    batch = replace(batch_of(3), codes_BC=torch.zeros(3, 0, dtype=torch.int64))
    assert encoder(batch).std(0).min() > 1e-4


def test_numbers_alone_have_no_loss() -> None:
    encoder = TabularEncoder(replace(TINY, vocabularies={}))
    batch = replace(batch_of(3), codes_BC=torch.zeros(3, 0, dtype=torch.int64))
    total, _ = encoder.loss(batch)
    total.backward()
    assert total.item() == 0.0
