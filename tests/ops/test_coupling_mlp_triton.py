"""The coupling layer in Triton: its tiles, descriptors, chunks and splits, in Triton's interpreter.

Where there is a GPU, the same on it. What holds for every backend is in `test_coupling_mlp.py`.
"""

import math
import os
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tolerances import ROUNDED, ROW_SUM

pytest.importorskip("triton", reason="triton is not installed")

from fastinn.ops import coupling_mlp, coupling_mlp_inverse
from fastinn.ops.coupling_mlp import reference
from fastinn.ops.coupling_mlp._layer import Layer, halves
from fastinn.ops.coupling_mlp._triton import _blocking, _launch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
HAS_TMA = INTERPRETED or torch.cuda.get_device_capability()[0] >= 9

DIRECTIONS = pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
MEMORIES = pytest.mark.parametrize("memory", ["store", "recompute"])
KEPT = ("first", "last", "even", "odd")
ACTIVATIONS = ("relu", "selu", "gelu", "silu")
OPS = {False: coupling_mlp, True: coupling_mlp_inverse}
EPS = 1e-3  # large enough that a kernel which forgets it is caught


@pytest.fixture(autouse=True)
def poisoned():
    """Fill with NaN whatever is allocated and not yet written."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def read_through(descriptors, monkeypatch):
    if descriptors and not HAS_TMA:
        pytest.skip("this GPU has no tensor memory accelerator")
    monkeypatch.setattr(_launch, "has_tma", lambda device: descriptors)


@pytest.fixture(params=[False, True], ids=["pointers", "descriptors"])
def tma(request, monkeypatch):
    """Both ways to read 16-bit tiles, whatever the device would choose."""
    read_through(request.param, monkeypatch)


@pytest.fixture(params=["exact", "fast", "fast-descriptors"])
def precision(request, monkeypatch):
    """Both types of operands and, where there are two, ways to read them."""
    name, _, descriptors = request.param.partition("-")
    read_through(bool(descriptors), monkeypatch)
    return name


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 24 rows and splits of 8, so that few rows are several of each."""
    monkeypatch.setattr(_blocking, "_CHUNK_ELEMENTS", 1)
    monkeypatch.setattr(_blocking, "_CHUNK_ROWS", 24)
    monkeypatch.setattr(_blocking, "_SPLIT_ROWS", 8)


class Case(NamedTuple):
    n: int = 19
    d: int = 21
    hidden: tuple[int, ...] = (18, 5)
    networks: int = 1
    kept: str = "first"
    activation: str = "gelu"
    clamp: float | None = 1.3
    inverse: bool = False
    memory: str = "store"

    @property
    def layer(self):
        return Layer(self.inverse, self.kept, self.activation, self.clamp, EPS, "exact")

    @property
    def options(self):
        return self.layer._asdict() | {"memory": self.memory}


CASES = st.builds(
    Case,
    n=st.integers(0, 20),
    d=st.integers(2, 36),
    hidden=st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple),
    networks=st.integers(1, 2),
    kept=st.sampled_from(KEPT),
    activation=st.sampled_from(ACTIVATIONS),
    clamp=st.sampled_from([None, 0.5, 1.3, 10.0]),  # Triton compiles each
    inverse=st.booleans(),
    memory=st.sampled_from(["store", "recompute"]),
)


def examples(number):
    return settings(
        # For a GPU nearly every example is compiled anew, which takes seconds.
        max_examples=number if INTERPRETED else 10,
        deadline=None,
        derandomize=True,
        # Each example takes a third of a second, and shrinking takes hundreds.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def arguments(case):
    """Rows, weights and biases that keep pre-activations away from the kinks of relu and selu."""
    n_kept, n_moved = (len(range(case.d)[half]) for half in halves(case.d, case.kept))
    stack = (2,) if case.networks == 2 else ()
    widths = [n_kept, *case.hidden, n_moved if stack else 2 * n_moved]
    weights = [
        0.3 / math.sqrt(n_in) * randn(*stack, n_out, n_in, seed=seed)
        for seed, (n_in, n_out) in enumerate(pairwise(widths))
    ]
    signs = [1.0 - 2.0 * (torch.arange(n_out, device=DEVICE) % 2) for n_out in widths[1:]]
    biases = [2 * sign.expand(*stack, len(sign)).contiguous() for sign in signs]
    return randn(case.n, case.d, seed=7), weights, [*biases[:-1], biases[-1] / 8]


def values_and_gradients(op, rows, weights, biases, grads):
    """Both outputs and the gradients of their weighted sum by every argument."""
    leaves = [t.detach().requires_grad_() for t in (rows, *weights, *biases)]
    outputs = op(leaves[0], leaves[1 : len(weights) + 1], leaves[len(weights) + 1 :])
    return [*outputs, *torch.autograd.grad(outputs, leaves, grads)]


def computed(case, precision, rows, weights, biases, grads):
    options = case.options | {"precision": precision, "backend": "triton"}
    op = OPS[options.pop("inverse")]
    return values_and_gradients(lambda *t: op(*t, **options), rows, weights, biases, grads)


def defined(case, rows, weights, biases, grads):
    """What the reference computes in float64."""
    wide = [rows.double(), [w.double() for w in weights], [b.double() for b in biases]]
    return values_and_gradients(
        lambda *t: reference.coupling_mlp(case.layer, *t), *wide, [g.double() for g in grads]
    )


def scales(case, rows, weights, biases, grads):
    """What rounding errors are relative to: the largest entry of each value and gradient, or 1.

    Gradients of the parameters are sums over rows that may cancel, so that theirs are the largest
    sums of magnitudes.
    """
    each = [
        defined(case, rows[i : i + 1], weights, biases, [g[i : i + 1] for g in grads])
        for i in range(len(rows))
    ]
    return [_scale(i, tensors) for i, tensors in enumerate(zip(*each, strict=True))]


def _scale(index, tensors):
    magnitudes = [t.abs() for t in tensors]
    is_of_rows = index < 3  # out, log_det and the gradient of the rows
    return max(1.0, (torch.cat(magnitudes) if is_of_rows else sum(magnitudes)).max().item())


def assert_close(actual, expected, tolerance):
    """Compare relative to the largest entry of ``expected``."""
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    assert_within(actual, expected, tolerance * scale)


def assert_within(actual, expected, bound):
    assert actual.shape == expected.shape
    assert not expected.numel() or (actual.double() - expected).abs().max().item() <= bound


def check(case, precision, rows=None, weights=None, grads=None):
    """Values and gradients against the reference in float64."""
    drawn, drawn_weights, biases = arguments(case)
    rows = drawn if rows is None else rows
    weights = drawn_weights if weights is None else weights
    grads = grads or (randn(*rows.shape, seed=8), randn(len(rows), seed=9))
    tensors = (rows, weights, biases, grads)
    actual, expected = computed(case, precision, *tensors), defined(case, *tensors)
    tolerance = ROUNDED if precision == "fast" else ROW_SUM[torch.float32]
    relative_to = scales(case, *tensors) or [1.0] * len(expected)
    for got, wanted, scale in zip(actual, expected, relative_to, strict=True):
        assert_within(got, wanted, tolerance * scale)


@pytest.mark.campaign("R12")
@examples(100)
@given(case=CASES)
def test_any_shape_in_float32(case):
    check(case, "exact")


@pytest.mark.campaign("R12")
@examples(50)
@given(case=CASES)
def test_any_shape_in_16_bits(tma, case):
    check(case, "fast")


@DIRECTIONS
@MEMORIES
@pytest.mark.parametrize("networks", [1, 2], ids=["one network", "two networks"])
def test_chunks_and_splits(small_chunks, precision, networks, memory, inverse):
    case = Case(n=57, d=9, hidden=(17,), networks=networks, memory=memory, inverse=inverse)
    check(case, precision)


def test_small_chunks_are_several(small_chunks):
    assert len(list(_launch.chunks(57, widest=17))) == 3
    assert _blocking.n_splits(n_tiles=2, n_rows=57, n_multiprocessors=4) == 2


LAYOUTS = {
    "columns": lambda t: t.repeat_interleave(2, dim=1)[:, ::2],
    "rows": lambda t: torch.cat([t, t], dim=1)[:, : t.shape[1]],
    "transposed": lambda t: t.T.contiguous().T,
    "unaligned": lambda t: torch.cat([t[:, :1], t], dim=1)[:, 1:],
}


@pytest.mark.campaign("R12")
@MEMORIES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides(layout, precision, memory):
    case = Case(kept="even", memory=memory)
    rows, weights, _ = arguments(case)
    strided = LAYOUTS[layout]
    grads = strided(randn(*rows.shape, seed=8)), randn(1, seed=9).expand(len(rows))
    check(case, precision, strided(rows), [strided(w) for w in weights], grads)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_far_out(activation):
    values = [-1e20, -1e4, -90.0, -41.0, -12.0, -1e-20, 0.0, 1e-3, 41.0, 90.0, 1e4, 1e20]
    rows = torch.tensor([[value, 1.0] for value in values], device=DEVICE)
    # One hidden unit, scaled back, so that neither the products nor the coupling overflow.
    shrunk = torch.tensor([[1e-20], [1e-22]], device=DEVICE)
    weights, biases = [torch.ones_like(shrunk[:1]), shrunk], [rows.new_zeros(1), rows.new_zeros(2)]
    grads = (torch.ones_like(rows), torch.ones_like(rows[:, 0]))
    case = Case(activation=activation)
    tensors = (rows, weights, biases, grads)
    actual, expected = computed(case, "exact", *tensors), defined(case, *tensors)
    for got, wanted in zip(actual, expected, strict=True):
        assert_close(got, wanted, ROW_SUM[torch.float32])


@DIRECTIONS
def test_rounded_products_cost_the_round_trip_nothing(tma, inverse):
    case = Case(n=33, d=33, hidden=(40,))
    rows, weights, biases = arguments(case)
    options = {"clamp": 1.3, "precision": "fast", "backend": "triton"}
    out, log_det = OPS[inverse](rows, weights, biases, **options)
    back, log_det_back = OPS[not inverse](out, weights, biases, **options)
    assert_close(back, rows.double(), ROW_SUM[torch.float32])
    assert torch.equal(-log_det_back, log_det)


@pytest.mark.skipif(INTERPRETED, reason="one thread computes programs in order")
@pytest.mark.parametrize("precision", ["exact", "high", "fast"])
def test_same_bits_every_time(precision):
    case = Case(n=20_003, d=129, hidden=(130, 67))
    tensors = arguments(case)
    grads = randn(*tensors[0].shape, seed=8), randn(case.n, seed=9)
    runs = [computed(case, precision, *tensors, grads) for _ in range(3)]
    assert all(torch.equal(a, b) for other in runs[1:] for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("arch", [None, 75, 80, 89, 90, 100, 120])
@pytest.mark.parametrize("precision", ["exact", "high", "fast"])
@pytest.mark.parametrize("width", [1, 128, 129, 6144])
def test_tiles_fit_into_the_padding(width, precision, arch):
    """A product reads whole inner tiles, all of which the kernel before it has written."""
    kernels = ("hidden", "coupling", "coupling_gradient", "gradient", "weight_gradient")
    tiles = {k: _blocking.blocking(k, precision, width, arch) for k in kernels}
    for tile in tiles.values():
        assert _blocking.PADDING % tile.k == 0
    for reader in ("hidden", "coupling"):
        assert tiles["hidden"].n % tiles[reader].k == 0
    for writer in ("coupling_gradient", "gradient"):
        assert tiles[writer].n % tiles["gradient"].k == 0
