"""Profile columns as numbers, against formulas worked by hand."""

import json
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest

from encoders.table import MISSING, UNKNOWN, TableColumns


def table(**columns: list) -> pa.Table:
    return pa.table(columns)


def signed_log(value: float) -> float:
    return float(np.sign(value) * np.log(1 + abs(value)))


FITTED = table(
    user_id=["a", "b", "c", "d", "e"],
    event_timestamp=[1, 2, 3, 4, 5],
    created=[1, 1, 1, 1, 2],
    town=["Ulm", "Bern", "Ulm", None, "Graz"],
    agg_spend=[1.0, 2.0, 3.0, 4.0, 50.0],
    spend=[0.0, -3.0, 7.0, None, 20.0],
    visits=[1, 2, 3, 4, None],
)


def test_codes_run_by_frequency_then_alphabet() -> None:
    columns = TableColumns.fit(FITTED)
    assert columns.vocabularies == {"town": ["Ulm", "Bern", "Graz"]}
    assert columns.cardinalities == [5]
    codes, _, _ = columns.encode(FITTED)
    assert codes[:, 0].tolist() == [2, 3, 2, MISSING, 4]


def test_values_never_seen_are_unknown_and_nulls_missing() -> None:
    columns = TableColumns.fit(FITTED)
    new = table(town=["Rome", None, "Graz"], agg_spend=[1.0] * 3, spend=[1.0] * 3, visits=[1] * 3)
    codes, _, _ = columns.encode(new)
    assert codes[:, 0].tolist() == [UNKNOWN, MISSING, 4]


def test_rare_values_beyond_the_limit_become_unknown() -> None:
    columns = TableColumns.fit(FITTED, max_values=2)
    assert columns.vocabularies["town"] == ["Ulm", "Bern"]
    assert columns.encode(FITTED)[0][:, 0].tolist() == [2, 3, 2, MISSING, UNKNOWN]


def test_continuous_values_are_standardised_signed_logarithms() -> None:
    columns = TableColumns.fit(FITTED)
    _, values, missing = columns.encode(FITTED)
    names = list(columns.scales)
    assert names == ["agg_spend", "spend", "visits"]
    for f, name in enumerate(names):
        raw = [signed_log(v) for v in FITTED[name].to_pylist() if v is not None]
        expected = [
            0.0 if v is None else (signed_log(v) - np.mean(raw)) / np.std(raw)
            for v in FITTED[name].to_pylist()
        ]
        np.testing.assert_allclose(values[:, f], expected, rtol=1e-6, atol=1e-7)
        assert missing[:, f].tolist() == [v is None for v in FITTED[name].to_pylist()]
    assert values.dtype == np.float32


def test_outliers_are_clipped_on_both_sides() -> None:
    columns = TableColumns({}, {"x": (0.0, 0.5)})
    _, values, missing = columns.encode(table(x=[1e12, -1e12, 1.0]))
    np.testing.assert_allclose(values[:, 0], [5.0, -5.0, 2 * np.log(2)], rtol=1e-6)
    assert not missing.any()


def test_columns_that_say_nothing_keys_and_a_prefix_are_left_out() -> None:
    nothing = table(user_id=["a", "b"], constant=[3.0, 3.0], empty=pa.nulls(2, pa.float64()),
                    agg_x=[1.0, 2.0], agg_town=["u", "v"], x=[1.0, 2.0])  # fmt: skip
    columns = TableColumns.fit(nothing, without_prefix="agg_")
    assert list(columns.scales) == ["x"]
    assert columns.vocabularies == {}
    assert list(TableColumns.fit(nothing).scales) == ["agg_x", "x"]


@pytest.mark.parametrize("rows", [3, 10, 1_000, 99_999])
def test_a_constant_is_known_in_spite_of_rounding(rows: int) -> None:
    """The mean of many logarithms of 42 is not quite the logarithm of 42."""
    column = np.full(rows, 41.0)
    assert not TableColumns.fit(table(age=column, low=-column)).scales
    column[0] = 41.000001
    assert list(TableColumns.fit(table(age=column)).scales) == ["age"]


def test_a_row_is_encoded_by_itself() -> None:
    columns = TableColumns.fit(FITTED)
    whole = columns.encode(FITTED)
    for row in (3, 0):
        for part, alone in zip(whole, columns.encode(FITTED.slice(row, 1)), strict=True):
            np.testing.assert_array_equal(part[row : row + 1], alone)
    order = [4, 2, 0, 1, 3]
    for part, moved in zip(whole, columns.encode(FITTED.take(order)), strict=True):
        np.testing.assert_array_equal(part[order], moved)


def test_fitting_does_not_depend_on_the_order_of_rows() -> None:
    shuffled = TableColumns.fit(FITTED.take([4, 1, 3, 0, 2]))
    assert shuffled.vocabularies == TableColumns.fit(FITTED).vocabularies
    for name, (mean, std) in TableColumns.fit(FITTED).scales.items():
        assert shuffled.scales[name] == pytest.approx((mean, std), rel=1e-12)


def test_the_position_of_columns_in_the_table_does_not_matter() -> None:
    columns = TableColumns.fit(FITTED)
    reordered = FITTED.select(FITTED.column_names[::-1]).append_column("new", [[1.0] * 5])
    for part, other in zip(columns.encode(FITTED), columns.encode(reordered), strict=True):
        np.testing.assert_array_equal(part, other)


def test_lacking_columns_are_named() -> None:
    columns = TableColumns.fit(FITTED)
    with pytest.raises(ValueError, match=r"lacks columns \['town', 'visits'\].*rebuild"):
        columns.encode(FITTED.drop_columns(["town", "visits"]))


def test_an_empty_table_has_no_rows_but_all_columns() -> None:
    columns = TableColumns.fit(FITTED)
    codes, values, missing = columns.encode(FITTED.slice(0, 0))
    assert (codes.shape, values.shape, missing.shape) == ((0, 1), (0, 3), (0, 3))
    only_keys = TableColumns.fit(FITTED.select(["user_id", "created"]))
    assert only_keys == TableColumns({}, {})
    assert [part.shape for part in only_keys.encode(FITTED)] == [(5, 0)] * 3


def test_json_keeps_names_order_and_numbers() -> None:
    columns = TableColumns.fit(
        table(zebra=["ü", "b"], apple=["x", None], y=[1.0, 2.5], b=[0.1, 0.2])
    )
    stored = json.loads(json.dumps(asdict(columns)))
    assert list(stored["vocabularies"].items()) == list(columns.vocabularies.items())
    assert {n: tuple(s) for n, s in stored["scales"].items()} == columns.scales
    assert list(stored["scales"]) == ["y", "b"]
