import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from instruction_sets import instruction_set
from tolerances import CORRELATION, FORMULA, REPEATED_ROWS, SECOND_MOMENTS

from fastinn import _cpu
from fastinn.ops import BackendUnavailableError, second_moments, use_backend
from fastinn.ops.second_moments import reference

PRECISIONS = ("exact", "high", "fast")
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def rows(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def outlier_rows(n, d, seed=0):
    """Rows like those of a BERT: means up to 1000, scales that differ by 1e5."""
    generator = torch.Generator().manual_seed(seed)
    scale = 10 ** torch.linspace(-3, 2, d)
    mean = 1000 * (torch.rand(d, generator=generator) - 0.5).sign() * torch.linspace(0, 1, d)
    mixed = torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator)
    return (mixed / d**0.5 * scale + mean).float(), mean.double()


def correlation_error(product, x, y):
    """Largest error of an entry, in units of the deviations of both columns."""
    x, y = x.double(), y.double()
    scale = torch.outer(x.square().sum(dim=0).sqrt(), y.square().sum(dim=0).sqrt())
    difference = (product - x.T @ y).abs()
    return float((difference / scale.clamp_min(torch.finfo(torch.float64).tiny)).max())


def largest_norm(x, weight, shift):
    """Of the shifted and weighted columns: errors of products are relative to their norms."""
    squares = second_moments(x.double(), weight=weight, shift=shift, backend="reference")
    return float(squares.diagonal(dim1=-2, dim2=-1).max().sqrt())


@pytest.fixture(params=["reference", *_cpu.supported_isas()])
def computes(request, monkeypatch):
    """The op on each backend of the CPU, its output poisoned with NaN before it is written."""
    empty = torch.Tensor.new_empty
    monkeypatch.setattr(
        torch.Tensor, "new_empty", lambda *a, **k: empty(*a, **k).fill_(float("nan"))
    )
    if request.param == "reference":
        yield lambda *args, **kwargs: second_moments(*args, **kwargs, backend="reference")
        return
    with instruction_set(request.param):
        yield lambda *args, **kwargs: second_moments(*args, **kwargs, backend="cpu")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (300, 5, 3), (4100, 100, 53)], ids=str)
def test_equals_float64(computes, shape, dtype, precision):
    n, d_x, d_y = shape
    x, y = rows(n, d_x, dtype=dtype), rows(n, d_y, dtype=dtype, seed=1)
    tolerance = CORRELATION["exact" if dtype == torch.float64 else precision]
    assert correlation_error(computes(x, y, precision=precision), x, y) <= tolerance
    product = computes(x, precision=precision)
    assert correlation_error(product, x, x) <= tolerance
    assert product.dtype == torch.float64
    assert torch.equal(product, product.T)


@pytest.mark.parametrize("precision", ["exact", "high"])
def test_outlier_dimensions(computes, precision):
    x, mean = outlier_rows(20_000, 60)
    y, mean_y = outlier_rows(20_000, 37, seed=1)
    centred, centred_y = x.double() - mean, y.double() - mean_y
    symmetric = computes(x, shift=mean, precision=precision)
    cross = computes(x, y, shift=mean, shift_y=mean_y, precision=precision)
    assert correlation_error(symmetric, centred, centred) <= CORRELATION[precision]
    assert correlation_error(cross, centred, centred_y) <= CORRELATION[precision]


def test_columns_that_nearly_agree(computes):
    x = rows(5000, 20)
    y = x * (1 + 1e-3 * rows(5000, 20, seed=1))
    both = torch.cat([x, y], dim=1)
    assert correlation_error(computes(x, y, precision="high"), x, y) <= CORRELATION["high"]
    assert correlation_error(computes(both, precision="high"), both, both) <= CORRELATION["high"]


@pytest.mark.campaign("R12")
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_shape_and_stride(data):
    """Every kernel on batches, odd sizes, strided and broadcast rows, weights, masks and shifts."""
    b, n, d_x, d_y = (data.draw(st.integers(1, most)) for most in (3, 600, 130, 130))
    dtype = data.draw(st.sampled_from(DTYPES))
    x, y = rows(b, n, 2 * d_x, dtype=dtype)[..., ::2], rows(b, d_y, n, dtype=dtype, seed=1).mT
    repeated = data.draw(st.booleans())
    if repeated:
        x = x[:, :1].expand(b, n, d_x)
    y = data.draw(st.sampled_from([None, y]))
    weight = data.draw(st.sampled_from([None, torch.rand(n), torch.rand(n) > 0.5]))
    shift = data.draw(st.sampled_from([None, rows(b, d_x, seed=2)]))
    shift_y = None if y is None else data.draw(st.sampled_from([None, rows(b, d_y, seed=3)]))
    options = {"weight": weight, "shift": shift, "shift_y": shift_y, "precision": "high"}
    expected = second_moments(x.double(), None if y is None else y.double(), **options)
    scale = largest_norm(x, weight, shift)
    scale *= scale if y is None else largest_norm(y, weight, shift_y)
    tolerance = REPEATED_ROWS if repeated else CORRELATION["high"]
    for isa in _cpu.supported_isas():
        with instruction_set(isa):
            found = second_moments(x, y, **options, backend="cpu")
        assert (found - expected).abs().max() <= tolerance * scale


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("isa", _cpu.supported_isas())
@pytest.mark.parametrize("shape", [(5000, 200), (3, 20_000, 60)], ids=str)
def test_same_bits_for_any_number_of_threads(isa, precision, shape):
    x = rows(*shape)
    usual = torch.get_num_threads()
    cross, symmetric = [], []
    with instruction_set(isa):
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            cross.append(second_moments(x, x[..., :50], precision=precision, backend="cpu"))
            symmetric.append(second_moments(x, precision=precision, backend="cpu"))
    torch.set_num_threads(usual)
    # Split products of x with itself are added in another order than those of x with y.
    if precision == "exact" or isa != "amx":
        cross.append(symmetric[0][..., :50])
    for products in (cross, symmetric):
        assert all(torch.equal(products[0], product) for product in products)


@pytest.mark.parametrize("n", [16_384, 20_001, 40_000])
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_many_rows_in_batches(computes, n, n_threads):
    """Enough rows to be shared out in spans, each with its own weights and shifts."""
    x, y, weight = rows(2, n, 40), rows(2, n, 33, seed=1), torch.rand(n, dtype=torch.float64)
    options = {"weight": weight, "shift": x[:, 7], "shift_y": y[:, 9]}
    usual = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    found = computes(x, **options | {"shift_y": None}), computes(x, y, **options)
    torch.set_num_threads(usual)
    for product, z, shift in zip(found, (x, y), (x[:, 7], y[:, 9]), strict=True):
        left, right = x.double() - x[:, 7, None], z.double() - shift[:, None]
        expected = (weight[:, None] * left).mT @ right
        assert (product - expected).abs().max() <= CORRELATION["high"] * n


def test_rows_before_and_after_a_batch_are_left_alone():
    """Wide strides between batches, as of one layer among many."""
    x = rows(4, 50, 33)[1::2]
    product = second_moments(x, backend="cpu")
    for batch, layer in zip(product, x, strict=True):
        assert torch.equal(batch, second_moments(layer, backend="cpu"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_rows_are_converted_exactly(computes, dtype):
    x = rows(4096, 6, dtype=dtype)
    x[0] = torch.tensor([65504.0, 6e-8, -6e-8, 0.0, -0.0, 1e-5]).to(dtype)  # denormals too
    assert torch.equal(computes(x), computes(x.float()))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_shows(computes, dtype, value):
    x = rows(20, 3, dtype=dtype)
    x[7, 1] = value
    assert not computes(x)[1, 1].isfinite()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0x7FFF8000, -1, 0x7FC00000], ids=hex)
def test_every_kind_of_nan_shows(computes, precision, bits):
    """Rounding to 16 bits would carry a NaN whose upper bits are all ones into a zero."""
    x = rows(2048, 40)
    x.view(torch.int32)[5, 3] = bits
    found = computes(x, precision=precision)
    assert found[3].isnan().all()
    assert found[:, 3].isnan().all()
    assert found.isnan().sum() == 2 * 40 - 1


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_weights_are_repeats(repeats):
    x = rows(len(repeats), 4, dtype=torch.float64)
    weight = torch.tensor(repeats)
    repeated = x.repeat_interleave(weight, dim=0)
    torch.testing.assert_close(
        second_moments(x, weight=weight), repeated.T @ repeated, rtol=FORMULA, atol=FORMULA
    )


def test_a_mask_leaves_rows_out(computes):
    x = rows(500, 7)
    mask = torch.arange(500) % 3 > 0
    torch.testing.assert_close(
        computes(x, weight=mask, precision="exact"),
        computes(x[mask], precision="exact"),
        rtol=FORMULA,
        atol=FORMULA,
    )


def test_no_rows_make_zeros(computes):
    assert torch.equal(computes(torch.ones(0, 3)), torch.zeros(3, 3, dtype=torch.float64))


def test_widest_of_two_dtypes(computes):
    x, y = rows(400, 5, dtype=torch.float16), rows(400, 4, dtype=torch.float64, seed=1)
    assert correlation_error(computes(x, y), x, y) <= CORRELATION["exact"]


@pytest.mark.skipif("amx" not in _cpu.supported_isas(), reason="no matrix tiles")
@pytest.mark.parametrize("precision", ["high", "fast"])
def test_few_rows_are_not_split(precision):
    """Their rounding would not average out."""
    found = {}
    for isa in ("avx512", "amx"):
        with instruction_set(isa):
            found[isa] = [second_moments(rows(n, 40), precision=precision) for n in (1000, 5000)]
    assert torch.equal(found["amx"][0], found["avx512"][0])
    assert not torch.equal(found["amx"][1], found["avx512"][1])


@pytest.mark.parametrize("n", [1024, 1025, 3000])
def test_diagonals_are_sums_of_squares(computes, n):
    """Whatever a few heavy rows of a column leave in the products of its parts."""
    x = rows(n, 35) * torch.rand(n, 1, generator=torch.Generator().manual_seed(1)).pow(-2)
    squares = x.double().square().sum(dim=0)
    error = (computes(x).diagonal() / squares - 1).abs().max()
    assert error <= SECOND_MOMENTS["high"]


@pytest.mark.parametrize("with_y", [False, True], ids=["symmetric", "cross"])
def test_opcheck(with_y):
    x, y = rows(2, 40, 5), rows(2, 40, 3, seed=1) if with_y else None
    arguments = (x, y, torch.rand(40), rows(2, 5), None, "high", "cpu")
    torch.library.opcheck(torch.ops.fastinn.second_moments.default, arguments)


def test_compiles_whole():
    compiled = torch.compile(second_moments, fullgraph=True, backend="eager")
    x = rows(50, 4)
    assert torch.equal(compiled(x, shift=x[0]), second_moments(x, shift=x[0]))


def test_backends_by_name():
    x = rows(30, 4)
    with use_backend("reference"):
        expected = second_moments(x)
    assert torch.equal(second_moments(x, backend="reference"), expected)
    with pytest.raises(BackendUnavailableError, match="cannot compute second_moments on cpu"):
        second_moments(x, backend="cuda")


def test_the_reference_is_a_sum_of_outer_products():
    x, y, weight = rows(9, 3), rows(9, 2, seed=1), torch.rand(9)
    out = torch.empty(1, 3, 2, dtype=torch.float64)
    reference.accumulate(x[None], y[None], weight, rows(1, 3), None, "exact", out)
    parts = [w * torch.outer(a - rows(1, 3)[0], b) for w, a, b in zip(weight, x, y, strict=True)]
    torch.testing.assert_close(out[0].float(), sum(parts))


ONES = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((ONES, torch.ones(2, 3)), {}, r"x has shape \(4, 3\) and y has shape \(2, 3\)"),
        ((ONES, torch.ones(4)), {}, r"y has shape \(4,\)"),
        ((ONES[0],), {}, r"x has shape \(3,\), expected \(n, d\) or \(layers, n, d\)"),
        ((ONES,), {"weight": torch.ones(3)}, r"weight has shape \(3,\), expected \(4,\)"),
        ((ONES,), {"shift": torch.ones(4)}, r"shift has shape \(4,\), expected \(3,\)"),
        ((ONES[None],), {"shift": ONES[0]}, r"shift has shape \(3,\), expected \(1, 3\)"),
        ((ONES,), {"shift_y": torch.ones(3)}, "shift_y is given and y is not"),
        ((ONES,), {"precision": "double"}, "precision is 'double', expected one of 'exact'"),
        ((ONES.clone().requires_grad_(),), {}, r"x requires a gradient .* pass x.detach\(\)"),
        ((ONES.to("meta"), ONES), {}, "x is on meta and y is on cpu"),
    ],
    ids=["rows", "vector", "x", "weight", "shift", "batch", "y", "precision", "grad", "device"],
)
def test_bad_input(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        second_moments(*arguments, **options)


def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"x is torch.int64, expected a floating-point dtype"):
        second_moments(torch.ones(4, 3, dtype=torch.int64))


def test_gradients_may_be_required_where_none_are_recorded():
    x = ONES.clone().requires_grad_()
    with torch.no_grad():
        assert torch.equal(second_moments(x), torch.full((3, 3), 4.0, dtype=torch.float64))
