import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tolerances import FORMULA

from fastinn.ops import second_moments

# Error of a correlation of unit-variance columns: float32 sums of 4096 rows; bfloat16 rows.
ROUNDING = {"exact": 1e-14, "high": 1e-6, "fast": 2e-2}


def rows(n, d, dtype=torch.float32, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize("n", [1, 300, 9000])
def test_float32_rows(n, precision):
    x, y = rows(n, 5), rows(n, 3, seed=1)
    error = second_moments(x, y, precision=precision) / n - x.double().T @ y.double() / n
    assert error.abs().max() <= ROUNDING[precision] * max(1, 10 / n**0.5)


@pytest.mark.parametrize("precision", ["exact", "high", "fast"])
def test_float64_rows_stay_float64(precision):
    x, y = rows(500, 5, torch.float64), rows(500, 3, torch.float64, seed=1)
    torch.testing.assert_close(
        second_moments(x, y, precision=precision), x.T @ y, rtol=FORMULA, atol=FORMULA
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_rows_are_converted_exactly(dtype):
    x = rows(4096, 6, dtype)
    expected = second_moments(x.float(), precision="high")
    assert torch.equal(second_moments(x, precision="high"), expected)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("precision", ["exact", "high", "fast"])
def test_symmetric_product_is_exactly_symmetric(precision, weighted):
    x = rows(5000, 67)
    weight = torch.rand(5000, dtype=torch.float64) if weighted else None
    product = second_moments(x, weight=weight, precision=precision)
    assert product.dtype == torch.float64
    assert torch.equal(product, product.T)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_weights_are_repeats(repeats):
    x = rows(len(repeats), 4, torch.float64)
    weight = torch.tensor(repeats)
    repeated = x.repeat_interleave(weight, dim=0)
    torch.testing.assert_close(
        second_moments(x, weight=weight.double()), repeated.T @ repeated, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (torch.ones(2, 3), {}, r"x has shape \(4, 3\) and y has shape \(2, 3\)"),
        (torch.ones(4), {}, r"y has shape \(4,\)"),
        (None, {"weight": torch.ones(3)}, r"weight has shape \(3,\), expected \(4,\)"),
        (None, {"precision": "double"}, "precision is 'double', expected one of 'exact'"),
    ],
    ids=["rows", "vector", "weight", "precision"],
)
def test_bad_input(y, options, message):
    with pytest.raises(ValueError, match=message):
        second_moments(torch.ones(4, 3), y, **options)
