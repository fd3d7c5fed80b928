"""Every kernel of the whole coupling layer against the plain reference in float64."""

import math
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from instruction_sets import MULTIPLY_BFLOAT16, instruction_set
from tolerances import BFLOAT16, ELEMENTWISE, ROUNDED, ROW_SUM

from fastinn import _cpu
from fastinn.ops import (
    BackendUnavailableError,
    coupling_mlp,
    coupling_mlp_inverse,
    coupling_mlp_vjp,
    use_backend,
)
from fastinn.ops.coupling_mlp import _native, _network, _op, reference
from fastinn.ops.coupling_mlp._layer import Layer, halves

DIRECTIONS = pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
PRECISIONS = pytest.mark.parametrize("precision", ["exact", "fast"])
MEMORIES = pytest.mark.parametrize("memory", ["store", "recompute"])
NETWORKS = pytest.mark.parametrize("networks", [1, 2], ids=["one network", "two networks"])
KEPT = ["first", "last", "even", "odd"]
ACTIVATIONS = ["relu", "selu", "gelu", "silu"]
EPS = 1e-3  # large enough that a kernel which forgets it is caught

OPS = {False: coupling_mlp, True: coupling_mlp_inverse}


class Case(NamedTuple):
    """A layer and the shapes of its arguments."""

    n: int = 7
    d: int = 9
    hidden: tuple[int, ...] = (11, 6)
    networks: int = 1
    kept: str = "first"
    activation: str = "gelu"
    clamp: float | None = 1.3
    inverse: bool = False
    dtype: torch.dtype = torch.float32

    @property
    def layer(self):
        return Layer(self.inverse, self.kept, self.activation, self.clamp, EPS, "exact")

    @property
    def options(self):
        return {"kept": self.kept, "activation": self.activation, "clamp": self.clamp, "eps": EPS}


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of four rows, so that small inputs are several."""
    monkeypatch.setattr(_network, "_BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(_network, "_LEAST_ROWS", 4)


def randn(*shape, dtype=torch.float32, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(device, dtype)


def parameters(case, device="cpu"):
    """Weights and biases; the activations' kinks are far from whatever is activated."""
    n_kept, n_moved = (len(range(case.d)[half]) for half in halves(case.d, case.kept))
    stack = (2,) if case.networks == 2 else ()
    widths = [n_kept, *case.hidden, n_moved if stack else 2 * n_moved]
    weights, biases = [], []
    for seed, (n_in, n_out) in enumerate(pairwise(widths)):
        scale = 0.3 / math.sqrt(max(1, n_in))
        weights.append(scale * randn(*stack, n_out, n_in, seed=seed, dtype=torch.float64))
        signs = 1.0 - 2.0 * (torch.arange(n_out) % 2)
        biases.append((2 * signs).expand(*stack, n_out))
    biases[-1] = biases[-1] / 8
    return [[t.to(device, case.dtype).contiguous() for t in ts] for ts in (weights, biases)]


def inputs(case, device="cpu"):
    rows = randn(case.n, case.d, dtype=case.dtype, device=device, seed=7)
    return rows, *parameters(case, device)


def cotangents(rows):
    grad_out = randn(*rows.shape, dtype=rows.dtype, device=rows.device, seed=8)
    return grad_out, randn(len(rows), dtype=rows.dtype, device=rows.device, seed=9)


def values_and_gradients(op, rows, weights, biases, grads):
    """Both outputs and the gradients of their weighted sum by every argument."""
    leaves = [t.detach().requires_grad_() for t in (rows, *weights, *biases)]
    outputs = op(leaves[0], leaves[1 : len(weights) + 1], leaves[len(weights) + 1 :])
    return [*outputs, *torch.autograd.grad(outputs, leaves, grads)]


def defined(case, rows, weights, biases, grads):
    """What the reference computes in float64."""
    wide = [rows.double(), [w.double() for w in weights], [b.double() for b in biases]]
    return values_and_gradients(
        lambda *t: reference.coupling_mlp(case.layer, *t), *wide, [g.double() for g in grads]
    )


def assert_close(actual, expected, tolerance):
    """Compare relative to the largest entry of ``expected``."""
    assert actual.shape == expected.shape
    if expected.numel():
        error = (actual.double() - expected).abs().max().item()
        assert error <= tolerance * max(1.0, expected.abs().max().item())


def assert_all_close(actual, expected, tolerance):
    for got, wanted in zip(actual, expected, strict=True):
        assert_close(got, wanted, tolerance)


def check(kernel, case, memory="store", rows=None, **options):
    """Values and gradients of ``kernel`` against the reference in float64."""
    drawn, weights, biases = inputs(case, kernel.device)
    rows = drawn if rows is None else rows
    if case.dtype == torch.float64 and kernel.backend != "cpu":
        pytest.skip("float32 kernels")
    grads = cotangents(rows)

    def computed(*tensors):
        extra = {**case.options, **options, "memory": memory, "backend": kernel.backend}
        return OPS[case.inverse](*tensors, **extra)

    actual = values_and_gradients(computed, rows, weights, biases, grads)
    tolerance = ROUNDED if options.get("precision") == "fast" else ROW_SUM[case.dtype]
    assert_all_close(actual, defined(case, rows, weights, biases, grads), tolerance)


@pytest.mark.campaign("R12")
@DIRECTIONS
@MEMORIES
@NETWORKS
@pytest.mark.parametrize("kept", KEPT)
def test_matches_reference(layer_kernel, small_blocks, kept, networks, memory, inverse):
    case = Case(kept=kept, networks=networks, inverse=inverse)
    check(layer_kernel, case, memory)


@DIRECTIONS
@MEMORIES
@DTYPES
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_in_a_layer(layer_kernel, activation, dtype, memory, inverse):
    check(layer_kernel, Case(activation=activation, dtype=dtype, inverse=inverse), memory)


@pytest.mark.campaign("R12")
@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    case=st.builds(
        Case,
        n=st.integers(0, 13),
        d=st.integers(2, 20),
        hidden=st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple),
        networks=st.integers(1, 2),
        kept=st.sampled_from(KEPT),
        activation=st.sampled_from(ACTIVATIONS),
        clamp=st.sampled_from([None, 0.1, 1.3, 10.0]),  # Triton compiles each
        inverse=st.booleans(),
        dtype=st.sampled_from([torch.float32, torch.float64]),
    ),
    memory=st.sampled_from(["store", "recompute"]),
)
def test_any_shape(layer_kernel, small_blocks, case, memory):
    assume(case.dtype == torch.float32 or layer_kernel.backend == "cpu")
    check(layer_kernel, case, memory)


@pytest.mark.campaign("R12")
@DIRECTIONS
@MEMORIES
@pytest.mark.parametrize(
    "case",
    [
        Case(n=0),
        Case(n=1),
        Case(n=1, d=2, hidden=(1,)),
        Case(n=5, d=2, hidden=(1, 1, 1), networks=2),
        Case(n=3, d=1100, hidden=(5,), kept="odd"),
        Case(n=520, d=31, hidden=(4100, 3)),
    ],
    ids=["no rows", "one row", "smallest", "thin", "tiles of a row", "blocks of rows"],
)
def test_odd_sizes(layer_kernel, case, memory, inverse):
    if layer_kernel == ("triton", "cpu"):  # interpreted, the large case takes minutes
        case = case._replace(hidden=tuple(min(width, 130) for width in case.hidden))
    check(layer_kernel, case._replace(inverse=inverse), memory)


STRIDED = {
    "columns": lambda t: t.repeat_interleave(2, dim=1)[:, ::2],
    "rows": lambda t: torch.cat([t, t], dim=1)[:, : t.shape[1]],
    "transposed": lambda t: t.T.contiguous().T,
    "expanded": lambda t: t[:1].expand(t.shape),
}


@pytest.mark.campaign("R12")
@DIRECTIONS
@MEMORIES
@pytest.mark.parametrize("kept", ["last", "even"])
@pytest.mark.parametrize("layout", STRIDED)
def test_strided_rows(layer_kernel, small_blocks, layout, kept, memory, inverse):
    case = Case(kept=kept, inverse=inverse)
    rows = STRIDED[layout](inputs(case, layer_kernel.device)[0])
    check(layer_kernel, case, memory, rows=rows)


@pytest.mark.campaign("R12")
@DIRECTIONS
@NETWORKS
def test_strided_weights(layer_kernel, networks, inverse):
    case = Case(networks=networks, inverse=inverse)
    rows, weights, biases = inputs(case, layer_kernel.device)
    grads = cotangents(rows)
    views = [w.mT.contiguous().mT for w in weights], [b.repeat(2, 1, 1)[0] for b in biases]
    views[1][:] = [b.view_as(other) for b, other in zip(views[1], biases, strict=True)]

    def computed(*tensors):
        return OPS[inverse](*tensors, **case.options, backend=layer_kernel.backend)

    actual = values_and_gradients(computed, rows, *views, grads)
    assert_all_close(actual, defined(case, rows, weights, biases, grads), ROW_SUM[case.dtype])


@DIRECTIONS
@MEMORIES
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_rounded_products(layer_kernel, monkeypatch, activation, memory, inverse):
    # Also where the CPU has no 16-bit matrix unit and multiplies float32 operands by itself.
    monkeypatch.setattr(_native, "multiplies_bfloat16", lambda device: True)
    case = Case(activation=activation, inverse=inverse)
    check(layer_kernel, case, memory, precision="fast")


def rounded(case, backend, tensors, grads, memory="store"):
    options = {**case.options, "precision": "fast", "memory": memory, "backend": backend}
    return values_and_gradients(partial(OPS[case.inverse], **options), *tensors, grads)


def check_rounded(case, memory="store", layout=lambda t: t, size=1.0):
    """On the CPU, by every instruction set that it has for this: tiles of 16 rows, 32 entries."""
    rows, weights, biases = inputs(case)
    tensors = layout(rows), weights, biases
    grads = [size * layout(cotangents(rows)[0]), size * cotangents(rows)[1]]
    expected = [t.double() for t in rounded(case, "reference", tensors, grads)]
    scales = typical_sizes(case, tensors, grads)
    for name in MULTIPLY_BFLOAT16 or [_cpu.build_info()["isa"]]:
        with instruction_set(name):
            found = rounded(case, "cpu", tensors, grads, memory)
        assert_all_close(found[:2], expected[:2], ROUNDED)
        for got, wanted, scale in zip(found[2:], expected[2:], scales, strict=True):
            error = (got.double() - wanted).abs().max().item() if wanted.numel() else 0.0
            assert error <= ROUNDED * max(size, scale)


def typical_sizes(case, tensors, grads):
    """Largest entry of each gradient with signs of rows drawn anew: by chance, few sums cancel."""
    draws = [grads]
    for seed in range(4):
        signs = randn(case.n, seed=seed).sign()
        draws.append([grads[0] * signs[:, None], grads[1] * signs])
    found = [rounded(case, "reference", tensors, draw)[2:] for draw in draws]
    return [
        max(t.abs().max().item() if t.numel() else 0.0 for t in same)
        for same in zip(*found, strict=True)
    ]


@pytest.mark.campaign("R12")
@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    case=st.builds(
        partial(Case, dtype=torch.float32),
        n=st.integers(0, 200),
        d=st.integers(2, 90),
        hidden=st.lists(st.integers(1, 90), min_size=1, max_size=3).map(tuple),
        networks=st.integers(1, 2),
        kept=st.sampled_from(KEPT),
        activation=st.sampled_from(ACTIVATIONS),
        clamp=st.none() | st.floats(0.1, 10),
        inverse=st.booleans(),
    ),
    memory=st.sampled_from(["store", "recompute"]),
)
def test_rounded_products_of_any_shape(case, memory):
    check_rounded(case, memory)


@pytest.mark.campaign("R12")
@DIRECTIONS
@MEMORIES
@pytest.mark.parametrize(
    "case",
    [
        Case(n=31, d=64, hidden=(32,)),
        Case(n=32, d=64, hidden=(32, 64)),
        Case(n=33, d=65, hidden=(31, 33), networks=2),
        Case(n=513, d=63, hidden=(257,)),
        Case(n=193, d=1100, hidden=(5,), kept="odd"),
        Case(n=4130, d=9, hidden=(34,)),
        Case(n=65, d=31, hidden=(4100, 3)),
    ],
    ids=["less than a strip", "a strip", "two", "panels", "wide rows", "chunks", "wide layer"],
)
def test_rounded_products_around_tiles(case, memory, inverse):
    check_rounded(case._replace(inverse=inverse), memory)


@pytest.mark.campaign("R12")
@DIRECTIONS
@MEMORIES
@pytest.mark.parametrize("layout", STRIDED)
def test_rounded_products_of_strided_rows(layout, memory, inverse):
    case = Case(n=70, d=41, kept="even", inverse=inverse)
    check_rounded(case, memory, layout=STRIDED[layout])


@DIRECTIONS
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_gradients_of_any_size_are_rounded_alike(size, inverse):
    check_rounded(Case(n=70, d=41, inverse=inverse), size=size)


@pytest.mark.skipif(not MULTIPLY_BFLOAT16, reason="no instructions for bfloat16 products")
@DIRECTIONS
@MEMORIES
def test_rounded_products_do_not_depend_on_threads_and_blocks(memory, inverse):
    for name in MULTIPLY_BFLOAT16:
        with instruction_set(name):
            check_threads_and_blocks(memory, inverse)


def check_threads_and_blocks(memory, inverse):
    case = Case(n=2500, d=40, hidden=(50, 33), inverse=inverse)
    rows, *network = tensors = inputs(case)
    usual, outputs = torch.get_num_threads(), []
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        found = rounded(case, "cpu", tensors, cotangents(rows), memory)
        options = {**case.options, "precision": "fast", "backend": "cpu"}
        part, _ = OPS[inverse](rows[100:164], *network, **options)
        assert torch.equal(found[0][100:164], part)
        outputs.append(found)
    torch.set_num_threads(usual)
    for some in outputs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outputs[0], some, strict=True))


@DIRECTIONS
@MEMORIES
def test_fast_where_products_stay_wide(layer_kernel, monkeypatch, memory, inverse):
    monkeypatch.setattr(_native, "multiplies_bfloat16", lambda device: False)
    check(layer_kernel, Case(inverse=inverse), memory, precision="fast")


@DIRECTIONS
def test_large_gains_are_exact_when_stored(layer_kernel, inverse):
    case = Case(clamp=None, inverse=inverse)
    rows, weights, biases = inputs(case, layer_kernel.device)
    biases[-1][len(biases[-1]) // 2 :] = 20 * (1 - 2 * (torch.arange(5) % 2)).to(biases[-1])
    grads = cotangents(rows)

    def computed(*tensors):
        return OPS[inverse](*tensors, **case.options, backend=layer_kernel.backend)

    actual = values_and_gradients(computed, rows, weights, biases, grads)
    # A log-scale of 20 turns its own rounding error, 2e-6, into that of the gain.
    tolerance = 20 * ROW_SUM[case.dtype]
    assert_all_close(actual, defined(case, rows, weights, biases, grads), tolerance)


def activations(activation, values, **options):
    """Return the activations that a coupling adds up, and their slopes, in float64 beside both."""
    # One kept feature x, one hidden unit, no scale: the moved feature becomes activation(x).
    weights = [torch.ones(1, 1).to(values), torch.tensor([[1.0], [0.0]]).to(values)]
    biases = [values.new_zeros(1), values.new_zeros(2)]
    x = values.clone().requires_grad_()
    rows = torch.stack([x, torch.zeros_like(x)], dim=1)
    actual = coupling_mlp(rows, weights, biases, activation=activation, **options)[0][:, 1]
    wide = values.double().requires_grad_()
    expected = reference._ACTIVATIONS[activation](wide)
    slopes = [torch.autograd.grad(y.sum(), z)[0] for y, z in ((actual, x), (expected, wide))]
    return (actual, expected), slopes


def values_near_and_far():
    near, far = torch.linspace(-12, 12, 601), torch.tensor([-300.0, -88.5, -1e-20, 1e-5, 90, 300])
    return torch.cat([near, far])


@DTYPES
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_is_accurate_to_the_last_places(layer_kernel, activation, dtype):
    if dtype == torch.float64 and layer_kernel.backend != "cpu":
        pytest.skip("float32 kernels")
    values = values_near_and_far().to(layer_kernel.device, dtype)
    for got, wanted in activations(activation, values, backend=layer_kernel.backend):
        error = (got.double() - wanted).abs() / wanted.abs().clamp(min=1)
        assert error.max().item() <= ELEMENTWISE[dtype]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_rounded_activation_is_accurate_to_bfloat16(activation):
    """Its value to half a place of itself, down to where 1 + tanh is lost in float64."""
    values = values_near_and_far().bfloat16().float()
    (got, wanted), slopes = activations(activation, values, backend="cpu", precision="fast")
    assert ((got - wanted).abs() <= BFLOAT16 * wanted.abs() + 1e-14).all()
    assert (slopes[0] - slopes[1]).abs().max().item() <= BFLOAT16


@MEMORIES
@DIRECTIONS
@PRECISIONS
def test_nan_stays_in_its_row(layer_kernel, precision, memory, inverse):
    case = Case(n=9, inverse=inverse)
    rows, weights, biases = inputs(case, layer_kernel.device)
    bad = rows.clone()
    bad[4, 0] = math.nan
    others = torch.arange(9) != 4

    def outputs(rows):
        rows = rows.requires_grad_()
        options = {**case.options, "memory": memory, "backend": layer_kernel.backend}
        out, log_det = OPS[inverse](rows, weights, biases, precision=precision, **options)
        return out, log_det, torch.autograd.grad(out.sum() + log_det.sum(), rows)[0]

    for spoiled, clean in zip(outputs(bad), outputs(rows), strict=True):
        assert torch.equal(spoiled[others], clean[others])
        assert spoiled[4].isnan().any()


@DIRECTIONS
@MEMORIES
@PRECISIONS
@pytest.mark.parametrize("kept", ["first", "even"])
def test_every_output_is_written(layer_kernel, small_blocks, kept, precision, memory, inverse):
    case = Case(kept=kept, inverse=inverse)
    layer = case.layer._replace(precision=precision)
    rows, weights, biases = inputs(case, layer_kernel.device)
    kernels = _op.kernels(layer_kernel.backend)
    arguments = (rows, weights, biases, *layer)
    outputs = poisoned(_op.empty_outputs(*arguments, memory == "store", layer_kernel.backend))
    kernels.transform(layer, rows, weights, biases, *outputs)
    out, _, saved = outputs
    known = rows if memory == "store" and not inverse else out
    given = (*cotangents(rows), known, weights, biases, saved)
    gradients = poisoned(_op.empty_gradients(*given, *layer, layer_kernel.backend))
    recovered = None if saved else gradients[0]
    kernels.differentiate(layer, *given, recovered, *gradients[1:])
    for written in (*outputs[:2], *saved, gradients[0], gradients[1], *gradients[2], *gradients[3]):
        assert written.isfinite().all()


def poisoned(tree):
    return torch.utils._pytree.tree_map(lambda t: t.fill_(math.nan), tree)


@DIRECTIONS
@NETWORKS
@pytest.mark.parametrize("kept", KEPT)
def test_gradients_from_the_output_alone(layer_kernel, small_blocks, kept, networks, inverse):
    case = Case(kept=kept, networks=networks, inverse=inverse)
    rows, weights, biases = inputs(case, layer_kernel.device)
    grad_out, grad_log_det = cotangents(rows)
    grads = (grad_out.T.contiguous().T, grad_log_det[:1].expand(len(rows)))
    out, _, *expected = defined(case, rows, weights, biases, grads)
    found = coupling_mlp_vjp(
        out.to(rows),
        *grads,
        weights,
        biases,
        inverse=inverse,
        **case.options,
        backend=layer_kernel.backend,
    )
    assert_close(found.rows, rows.double(), ROW_SUM[case.dtype])
    flat = [found.grad_rows, *found.grad_weights, *found.grad_biases]
    assert_all_close(flat, expected, ROW_SUM[case.dtype])


def test_second_derivatives_are_refused():
    rows, weights, biases = inputs(Case())
    rows.requires_grad_()
    out, _ = coupling_mlp(rows, weights, biases, backend="cpu")
    (grad,) = torch.autograd.grad(out.sum(), rows, create_graph=True)
    with pytest.raises(NotImplementedError, match="backend='reference' has"):
        torch.autograd.grad(grad.sum(), rows)


@DIRECTIONS
def test_reference_goes_back_from_the_output_too(inverse):
    case = Case(inverse=inverse, dtype=torch.float64)
    rows, weights, biases = inputs(case)
    grads = cotangents(rows)
    out, _, *expected = defined(case, rows, weights, biases, grads)
    found = coupling_mlp_vjp(
        out, *grads, weights, biases, inverse=inverse, **case.options, backend="reference"
    )
    flat = [found.grad_rows, *found.grad_weights, *found.grad_biases]
    assert_all_close([found.rows, *flat], [rows, *expected], ROW_SUM[case.dtype])


@pytest.mark.campaign("R12")
@DIRECTIONS
@pytest.mark.parametrize("precision", ["exact", "high", "fast"])
def test_the_other_direction_undoes_it(layer_kernel, precision, inverse):
    case = Case(n=65, d=33, hidden=(40,))
    rows, weights, biases = inputs(case, layer_kernel.device)
    options = {**case.options, "precision": precision, "backend": layer_kernel.backend}
    out, log_det = OPS[inverse](rows, weights, biases, **options)
    back, log_det_back = OPS[not inverse](out, weights, biases, **options)
    # Rounded products are the same both ways, so they cost no accuracy here.
    assert_close(back, rows.double(), ROW_SUM[case.dtype])
    assert_close(-log_det_back, log_det.double(), ROW_SUM[case.dtype])


@pytest.mark.campaign("R12")
@DIRECTIONS
def test_log_det_is_that_of_the_jacobian(inverse):
    case = Case(n=1, d=5, dtype=torch.float64)
    rows, weights, biases = inputs(case)

    def op(row):
        return OPS[inverse](row, weights, biases, clamp=1.3, backend="cpu")

    jacobian = torch.autograd.functional.jacobian(lambda row: op(row)[0], rows).reshape(5, 5)
    torch.testing.assert_close(op(rows)[1][0], jacobian.slogdet().logabsdet)


@pytest.mark.campaign("R12")
@DIRECTIONS
@MEMORIES
@NETWORKS
def test_gradcheck(networks, memory, inverse):
    case = Case(n=2, d=4, hidden=(3, 2), networks=networks, dtype=torch.float64)
    rows, weights, biases = inputs(case)
    leaves = [t.requires_grad_() for t in (rows, *weights, *biases)]

    def op(rows, *rest):
        options = {**case.options, "memory": memory, "backend": "cpu"}
        return OPS[inverse](rows, rest[:3], rest[3:], **options)

    assert torch.autograd.gradcheck(op, leaves)


@DIRECTIONS
@MEMORIES
@pytest.mark.parametrize("used", [0, 1], ids=["value only", "log_det only"])
def test_gradient_of_one_output(layer_kernel, used, memory, inverse):
    case = Case(inverse=inverse)
    rows, weights, biases = inputs(case, layer_kernel.device)

    def gradients(op, tensors):
        leaves = [t.detach().requires_grad_() for t in (tensors[0], *tensors[1], *tensors[2])]
        out = op(leaves[0], leaves[1:4], leaves[4:])[used].sum()
        return torch.autograd.grad(out, leaves, materialize_grads=True)

    def computed(*tensors):
        options = {**case.options, "memory": memory, "backend": layer_kernel.backend}
        return OPS[inverse](*tensors, **options)

    wide = [rows.double(), [w.double() for w in weights], [b.double() for b in biases]]
    expected = gradients(lambda *t: reference.coupling_mlp(case.layer, *t), wide)
    assert_all_close(gradients(computed, (rows, weights, biases)), expected, ROW_SUM[case.dtype])


@pytest.mark.campaign("R12")
@DIRECTIONS
@pytest.mark.parametrize("store", [True, False], ids=["store", "recompute"])
def test_opcheck(store, inverse):
    case = Case(inverse=inverse, dtype=torch.float64)
    rows, *layers = inputs(case)
    layers = [[t.requires_grad_() for t in tensors] for tensors in layers]
    rows.requires_grad_()
    torch.library.opcheck(_op.forward, (rows, *layers, *case.layer, store, "cpu"))


@pytest.mark.campaign("R12")
@DIRECTIONS
def test_opcheck_of_the_backward_pass(inverse):
    case = Case(inverse=inverse, dtype=torch.float64)
    rows, weights, biases = inputs(case)
    arguments = (*cotangents(rows), rows, weights, biases, [], *case.layer, "cpu")
    torch.library.opcheck(_op.backward, arguments)


@DIRECTIONS
@MEMORIES
@pytest.mark.parametrize("backend", ["reference", "cpu", None])
def test_compiles_without_graph_breaks(backend, memory, inverse):
    rows, weights, biases = inputs(Case(dtype=torch.float64))
    leaves = [t.requires_grad_() for t in (rows, *weights, *biases)]

    def op(rows, *rest):
        return OPS[inverse](rows, rest[:3], rest[3:], clamp=1.3, memory=memory, backend=backend)

    torch.compiler.reset()  # each case compiles the same code, and torch counts how often
    compiled = torch.compile(op, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*leaves), op(*leaves))
    gradients = [torch.autograd.grad(f(*leaves)[0].sum(), leaves) for f in (compiled, op)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_gradients_from_the_output_compile_too(backend):
    rows, weights, biases = inputs(Case(dtype=torch.float64))

    def op(out, grad_out, grad_log_det):
        grads = (grad_out, grad_log_det)
        return coupling_mlp_vjp(out, *grads, weights, biases, clamp=1.3, backend=backend)

    given = (rows, *cotangents(rows))
    compiled = torch.compile(op, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*given), op(*given))


def bytes_kept(memory, hidden):
    """Bytes that autograd keeps of a layer, besides those of its parameters."""
    rows, weights, biases = inputs(Case(n=50, d=8, hidden=hidden))
    parameters = {t.data_ptr() for t in (*weights, *biases)}
    leaves = [[t.requires_grad_() for t in tensors] for tensors in (weights, biases)]
    kept = {}

    def pack(tensor):
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out, _ = coupling_mlp(rows, *leaves, memory=memory, backend="cpu")
    assert out.requires_grad
    return sum(kept.values())


def test_recompute_keeps_the_output_alone():
    rows, half, hidden = 50 * 8 * 4, 50 * 4 * 4, 50 * (16 + 24) * 4
    assert bytes_kept("recompute", (16, 24)) == rows
    assert bytes_kept("store", (16, 24)) == rows + half + hidden


@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_nothing_is_kept_without_gradients(monkeypatch, memory):
    kept = []
    monkeypatch.setattr(
        _native, "transform", lambda *arguments: kept.append(arguments[-1]), raising=True
    )
    tensors = inputs(Case())
    with torch.no_grad():
        coupling_mlp(*tensors, memory=memory, backend="cpu")
    assert kept == [[]]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_autocast_does_not_round(backend):
    rows, weights, biases = inputs(Case())
    leaves = [t.requires_grad_() for t in (rows, *weights, *biases)]

    def results(autocast):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            outputs = coupling_mlp(leaves[0], leaves[1:4], leaves[4:], backend=backend)
            # torch asks to leave the region first, or rounds its own backward passes.
            within = torch.autograd.grad(outputs[0].sum(), leaves, retain_graph=True)
        after = torch.autograd.grad(outputs[0].sum(), leaves)
        return [*outputs, *after, *(within if backend == "cpu" else ())]

    for found, expected in zip(results(True), results(False), strict=True):
        assert torch.equal(found, expected)


def test_use_backend_reaches_the_layer():
    tensors = inputs(Case())
    with use_backend("reference"):
        out, _ = coupling_mlp(*tensors)
    assert torch.equal(out, coupling_mlp(*tensors, backend="reference")[0])
    with pytest.raises(BackendUnavailableError, match="'cuda' cannot compute coupling_mlp on cpu"):
        coupling_mlp(*tensors, backend="cuda")


ROWS, WEIGHTS, BIASES = inputs(Case(n=3, d=4, hidden=(5,)))
STACKED = [w.expand(2, *w.shape) for w in WEIGHTS]
EMPTY_HIDDEN = [WEIGHTS[0][:0], WEIGHTS[1][:, :0]], [BIASES[0][:0], BIASES[1]]


@DIRECTIONS
@pytest.mark.parametrize(
    ("tensors", "options", "error", "message"),
    [
        ((ROWS[0], WEIGHTS, BIASES), {}, ValueError, r"has shape \(4,\), expected \(n, d\)"),
        ((ROWS[:, :1], WEIGHTS, BIASES), {}, ValueError, "has 1 feature"),
        ((ROWS.half(), WEIGHTS, BIASES), {}, TypeError, "float16, expected float32 or float64"),
        ((ROWS.double(), WEIGHTS, BIASES), {}, ValueError, r"float64 on cpu and weights\[0\] is"),
        ((ROWS, WEIGHTS[:1], BIASES[:1]), {}, ValueError, "1 weights, expected 2 to 4"),
        ((ROWS, WEIGHTS, BIASES[:1]), {}, ValueError, "2 weights and 1 biases"),
        ((ROWS, WEIGHTS, BIASES[::-1]), {}, ValueError, r"biases\[0\] has shape \(4,\), weights"),
        ((ROWS, [WEIGHTS[0], STACKED[1]], BIASES), {}, ValueError, "all must be matrices or all"),
        ((ROWS, [WEIGHTS[0][0], WEIGHTS[1]], BIASES), {}, ValueError, r"has shape \(2,\), expec"),
        ((ROWS[:, :3], WEIGHTS, BIASES), {}, ValueError, r"keeps 1 features .* reads 2"),
        ((ROWS, [WEIGHTS[0], WEIGHTS[1][:, :3]], BIASES), {}, ValueError, "gives 5 .* reads 3"),
        ((ROWS, *EMPTY_HIDDEN), {}, ValueError, r"weights\[0\] gives no features"),
        ((ROWS, STACKED, [b.expand(2, -1) for b in BIASES]), {}, ValueError, "moves 2 .* needs 2"),
        ((ROWS, WEIGHTS, BIASES), {"kept": "left"}, ValueError, "kept is 'left', expected one of"),
        ((ROWS, WEIGHTS, BIASES), {"activation": "tanh"}, ValueError, "activation is 'tanh'"),
        ((ROWS, WEIGHTS, BIASES), {"precision": "low"}, ValueError, "precision is 'low'"),
        ((ROWS, WEIGHTS, BIASES), {"memory": "none"}, ValueError, "memory is 'none'"),
        ((ROWS, WEIGHTS, BIASES), {"clamp": -1.0}, ValueError, "clamp is -1.0, expected a posit"),
    ],
    ids=[
        "1-D",
        "narrow",
        "half",
        "dtype",
        "no hidden layer",
        "biases",
        "bias",
        "mixed",
        "vector",
        "kept width",
        "hidden width",
        "no hidden width",
        "last width",
        "kept",
        "activation",
        "precision",
        "memory",
        "clamp",
    ],
)
def test_wrong_input_is_named(tensors, options, error, message, inverse):
    with pytest.raises(error, match=message):
        OPS[inverse](*tensors, **options)


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ((ROWS[:, :2], ROWS[:, 0]), r"grad_out has shape \(3, 2\), out asks for \(3, 4\)"),
        ((ROWS, ROWS[0]), r"grad_log_det has shape \(4,\), out asks for \(3,\)"),
        ((ROWS.double(), ROWS[:, 0]), "out is torch.float32 .* and grad_out is torch.float64"),
        ((ROWS, ROWS[:, 0].bfloat16()), "and grad_log_det is torch.bfloat16 on cpu"),
    ],
    ids=["grad_out", "grad_log_det", "dtype of grad_out", "dtype of grad_log_det"],
)
def test_wrong_cotangents_are_named(grads, message):
    with pytest.raises(ValueError, match=message):
        coupling_mlp_vjp(ROWS, *grads, WEIGHTS, BIASES)
