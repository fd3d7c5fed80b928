"""Every kernel against the plain reference in float64, and the properties of a coupling."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tolerances import ELEMENTWISE, ROW_SUM

from fastinn.ops import affine_coupling, affine_coupling_inverse
from fastinn.ops.affine_coupling import _op, reference

DIRECTIONS = pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
CLAMPS = pytest.mark.parametrize("clamp", [None, 1.3], ids=["unbounded", "clamped"])
EPS = 1e-3  # large enough that a kernel which forgets it is caught

OPS = {False: affine_coupling, True: affine_coupling_inverse}
REFERENCES = {False: reference.affine_coupling, True: reference.affine_coupling_inverse}
REGISTERED = {False: _op.forward, True: _op.inverse}


def randn(*shape, dtype, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=dtype, generator=generator).to(device)


def inputs(shape, dtype, device="cpu"):
    return [randn(*shape, dtype=dtype, device=device, seed=seed) for seed in range(3)]


def values_and_gradients(op, tensors, weights, clamp):
    """Both outputs and the three gradients of their weighted sum."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    outputs = op(*leaves, clamp)
    return [*outputs, *torch.autograd.grad(outputs, leaves, weights)]


def assert_close(actual, expected, tolerance):
    """Compare relative to the largest entry of ``expected``."""
    if not expected.numel():
        assert actual.shape == expected.shape
        return
    error = (actual.double() - expected).abs().max().item()
    assert error <= tolerance * max(1.0, expected.abs().max().item())


def check(kernel, inverse, tensors, clamp):
    """Values and gradients of ``kernel`` against the reference in float64."""
    z = tensors[0]
    weights = [randn(*z.shape, dtype=z.dtype, device=z.device, seed=3)]
    weights.append(randn(len(z), dtype=z.dtype, device=z.device, seed=4))

    def computed(*leaves):
        *leaves, clamp = leaves
        return OPS[inverse](*leaves, clamp=clamp, eps=EPS, backend=kernel.backend)

    def defined(*leaves):
        return REFERENCES[inverse](*leaves, EPS)

    actual = values_and_gradients(computed, tensors, weights, clamp)
    wide = [tensor.double() for tensor in tensors], [weight.double() for weight in weights]
    expected = values_and_gradients(defined, *wide, clamp)
    tolerances = [ELEMENTWISE, ROW_SUM, ELEMENTWISE, ELEMENTWISE, ELEMENTWISE]
    for got, wanted, tolerance in zip(actual, expected, tolerances, strict=True):
        assert_close(got, wanted, tolerance[z.dtype])


@pytest.mark.campaign("R12")
@DIRECTIONS
@CLAMPS
@DTYPES
@pytest.mark.parametrize(
    "shape",
    [(0, 4), (4, 0), (1, 1), (3, 17), (17, 129), (127, 17), (5, 769), (2, 1100)],
    ids=lambda shape: "x".join(map(str, shape)),
)
def test_matches_reference(kernel, shape, dtype, clamp, inverse):
    check(kernel, inverse, inputs(shape, dtype, kernel.device), clamp)


STRIDED = {
    "columns": lambda t: t.repeat_interleave(2, dim=1)[:, ::2],
    "rows": lambda t: torch.cat([t, t], dim=1)[:, : t.shape[1]],
    "transposed": lambda t: t.T.contiguous().T,
    "expanded": lambda t: t[:1].expand(t.shape),
}


@pytest.mark.campaign("R12")
@DIRECTIONS
@pytest.mark.parametrize("layout", STRIDED)
def test_strided_inputs(kernel, layout, inverse):
    tensors = [STRIDED[layout](t) for t in inputs((9, 37), torch.float32, kernel.device)]
    check(kernel, inverse, tensors, clamp=1.3)


@DIRECTIONS
def test_many_rows(kernel, inverse):
    # Interpreted, each block of 512 rows takes milliseconds.
    interpreted = kernel == ("triton", "cpu")
    shape = (5_003 if interpreted else 100_003, 1)
    check(kernel, inverse, inputs(shape, torch.float32, kernel.device), clamp=1.3)


@DIRECTIONS
def test_large_outputs_have_the_same_bits(kernel, inverse):
    # 34 MB: written past the cache, with rows that start at any alignment. Interpreted, see above.
    interpreted = kernel == ("triton", "cpu")
    tensors = inputs((70 if interpreted else 66_000, 129), torch.float32, kernel.device)
    weights = [tensors[0], tensors[0][:, 0]]

    def run(rows):
        def op(*leaves):
            return OPS[inverse](*leaves[:3], clamp=leaves[3], eps=EPS, backend=kernel.backend)

        some = [t[rows] for t in tensors], [w[rows] for w in weights]
        return values_and_gradients(op, *some, 1.3)

    whole = run(slice(None))
    for rows in (slice(0, 5), slice(-5, None)):
        assert all(torch.equal(a[rows], b) for a, b in zip(whole, run(rows), strict=True))


@DIRECTIONS
@DTYPES
@pytest.mark.parametrize("log_scale", [0.0, 1e-42, -1e-30, 0.3, 30.0, -30.0, 1e6, -1e30])
def test_extreme_log_scales_are_clamped(kernel, log_scale, dtype, inverse):
    z, shift, _ = inputs((3, 20), dtype, kernel.device)
    check(kernel, inverse, [z, shift, torch.full_like(z, log_scale)], clamp=2.0)


@DTYPES
@pytest.mark.parametrize("log_scale", [-60.0, -5.5, 1e-3, 0.0, 5.5, 60.0])
def test_unbounded_scale_is_accurate_to_the_last_places(kernel, log_scale, dtype):
    ones = torch.ones(1, 1, dtype=dtype, device=kernel.device)
    log_scale = ones * log_scale
    y, _ = affine_coupling(ones, 0 * ones, log_scale, backend=kernel.backend)
    assert y.item() == pytest.approx(math.exp(log_scale.item()), rel=ELEMENTWISE[dtype])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_not_finite_goes_through(kernel, value):
    ones = torch.ones(1, 1, device=kernel.device)
    y, log_det = affine_coupling(ones, 0 * ones, value * ones, backend=kernel.backend)
    expected = torch.tensor([math.exp(value), value])
    torch.testing.assert_close(torch.cat([y[0], log_det]).cpu(), expected, equal_nan=True)


@pytest.mark.campaign("R12")
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    clamp=st.sampled_from([None, 0.1, 1.3, 10.0]),  # Triton compiles each
    inverse=st.booleans(),
)
def test_any_shape(kernel, shape, clamp, inverse):
    check(kernel, inverse, inputs(shape, torch.float32, kernel.device), clamp)


@DIRECTIONS
@pytest.mark.parametrize("shape", [(3, 17), (2, 600)], ids=["small", "tiles"])
def test_every_output_is_written(kernel, shape, inverse):
    tensors = inputs(shape, torch.float32, kernel.device)
    poison = [torch.full_like(tensors[0], math.nan) for _ in range(4)]
    log_det = torch.full_like(tensors[0][:, 0], math.nan)
    kernels = _op.kernels(kernel.backend)
    kernels.transform(inverse, *tensors, None, EPS, poison[0], log_det)
    gradients = poison[1:] if inverse else poison[1:3]
    kernels.differentiate(inverse, tensors[0], log_det, *tensors[1:], None, EPS, *gradients)
    assert all(t.isfinite().all() for t in (poison[0], log_det, *gradients))


@pytest.mark.campaign("R12")
@CLAMPS
@DTYPES
def test_inverse_undoes_forward(kernel, clamp, dtype):
    x, shift, log_scale = inputs((65, 33), dtype, kernel.device)
    options = {"clamp": clamp, "eps": EPS, "backend": kernel.backend}
    y, log_det = affine_coupling(x, shift, log_scale, **options)
    back, inverse_log_det = affine_coupling_inverse(y, shift, log_scale, **options)
    # Cancellation in y - shift is amplified by the smallest scale, here exp(-3.5).
    assert_close(back, x.double(), 50 * ELEMENTWISE[dtype])
    assert_close(-inverse_log_det, log_det.double(), ROW_SUM[dtype])


@pytest.mark.campaign("R12")
@DIRECTIONS
@CLAMPS
def test_log_det_is_that_of_the_jacobian(kernel, clamp, inverse):
    z, shift, log_scale = inputs((1, 5), torch.float64, kernel.device)

    def op(row):
        return OPS[inverse](row, shift, log_scale, clamp=clamp, backend=kernel.backend)

    jacobian = torch.autograd.functional.jacobian(lambda row: op(row)[0], z)
    expected = jacobian.reshape(5, 5).slogdet().logabsdet
    torch.testing.assert_close(op(z)[1][0], expected)


@pytest.mark.campaign("R12")
@DIRECTIONS
@CLAMPS
def test_gradcheck(kernel, clamp, inverse):
    leaves = [t.requires_grad_() for t in inputs((2, 3), torch.float64, kernel.device)]
    options = {"clamp": clamp, "eps": EPS, "backend": kernel.backend}
    assert torch.autograd.gradcheck(lambda *t: OPS[inverse](*t, **options), leaves)


@DIRECTIONS
@pytest.mark.parametrize("used", [0, 1], ids=["value only", "log_det only"])
def test_gradient_of_one_output(kernel, used, inverse):
    leaves = [t.requires_grad_() for t in inputs((3, 5), torch.float64, kernel.device)]
    actual = OPS[inverse](*leaves, clamp=1.3, backend=kernel.backend)[used].sum()
    expected = REFERENCES[inverse](*leaves, 1.3, 0.0)[used].sum()
    expected = torch.autograd.grad(expected, leaves, materialize_grads=True)
    torch.testing.assert_close(torch.autograd.grad(actual, leaves), expected)


@pytest.mark.campaign("R12")
@DIRECTIONS
def test_opcheck(inverse):
    leaves = [t.requires_grad_() for t in inputs((3, 5), torch.float64)]
    torch.library.opcheck(REGISTERED[inverse], (*leaves, 1.3, EPS, "cpu"))


@DIRECTIONS
@pytest.mark.parametrize("backend", ["reference", "cpu", None])
def test_compiles_without_graph_breaks(backend, inverse):
    leaves = [t.requires_grad_() for t in inputs((3, 5), torch.float64)]

    def op(*tensors):
        return OPS[inverse](*tensors, clamp=1.3, backend=backend)

    compiled = torch.compile(op, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*leaves), op(*leaves))
    gradients = [torch.autograd.grad(f(*leaves)[0].sum(), leaves) for f in (compiled, op)]
    torch.testing.assert_close(*gradients)


@DIRECTIONS
def test_same_bits_with_any_number_of_threads(inverse):
    tensors = inputs((400, 129), torch.float32)
    weights = [tensors[0], torch.ones(400)]

    def run(threads):
        torch.set_num_threads(threads)
        op = OPS[inverse]
        return values_and_gradients(
            lambda *t: op(*t[:3], clamp=t[3], backend="cpu"), tensors, weights, 1.3
        )

    usual = torch.get_num_threads()
    try:
        runs = [run(2), run(2), run(1)]
    finally:
        torch.set_num_threads(usual)
    assert all(torch.equal(a, b) for other in runs[1:] for a, b in zip(runs[0], other, strict=True))


ONES = torch.ones(3, 4)


@DIRECTIONS
@pytest.mark.parametrize(
    ("tensors", "clamp", "error", "message"),
    [
        ((ONES[0], ONES, ONES), None, ValueError, r"has shape \(4,\), expected \(n, d\)"),
        ((ONES, ONES[:2], ONES), None, ValueError, r"shape \(3, 4\) and shift has shape \(2, 4\)"),
        ((ONES, ONES, ONES.double()), None, ValueError, "float32 and log_scale .* torch.float64"),
        ((ONES, ONES, ONES.to("meta")), None, ValueError, "device cpu and log_scale .* meta"),
        ((ONES.long(),) * 3, None, TypeError, "int64, expected float32 or float64"),
        ((ONES.half(),) * 3, None, TypeError, "float16, expected float32 or float64"),
        ((ONES,) * 3, 0.0, ValueError, "clamp is 0.0, expected a positive bound"),
        ((ONES,) * 3, math.nan, ValueError, "clamp is nan"),
    ],
    ids=["1-D", "shape", "dtype", "device", "integers", "half", "clamp 0", "clamp nan"],
)
def test_wrong_input_is_named(tensors, clamp, error, message, inverse):
    with pytest.raises(error, match=message):
        OPS[inverse](*tensors, clamp=clamp)
