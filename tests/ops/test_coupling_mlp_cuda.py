"""The CUDA backend of coupling layers: its kernel run on the host, what is around it, and a GPU."""

import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from tolerances import FUSED_PRODUCTS, ROUND_TRIP, ROW_SUM

from fastinn.ops import coupling_mlp, coupling_mlp_inverse
from fastinn.ops.affine_coupling.reference import affine_coupling, affine_coupling_inverse
from fastinn.ops.coupling_mlp import _cuda_fused, _native, _network, _op, reference
from fastinn.ops.coupling_mlp._layer import Layer, halves

ROOT = Path(__file__).parents[2]
EMULATOR = Path(__file__).with_name("sm90_emulator")
HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
DIRECTIONS = pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])


class Case(NamedTuple):
    """A layer, its rows and, for the emulator, how many blocks compute them."""

    n: int
    d: int
    hidden: tuple[int, ...]
    kept: str = "first"
    activation: str = "gelu"
    clamp: float | None = 1.3
    blocks: int = 1
    seed: int = 0

    @property
    def layer(self):
        return Layer(False, self.kept, self.activation, self.clamp, 1e-3, "fast")

    @property
    def n_moved(self):
        return len(range(self.d)[halves(self.d, self.kept)[1]])

    def tensors(self, device="cpu"):
        """Rows, weights and biases; what the network says is of order one."""
        generator = torch.Generator().manual_seed(0)
        widths = [self.d - self.n_moved, *self.hidden, 2 * self.n_moved]
        shapes = list(zip(widths[1:], widths[:-1], strict=True))
        randn = lambda *shape: torch.randn(*shape, generator=generator).to(device)  # noqa: E731
        weights = [randn(n_out, n_in) / n_in**0.5 for n_out, n_in in shapes]
        return randn(self.n, self.d), weights, [randn(n_out) for n_out, _ in shapes]


def name(case):
    return f"{case.n}x{case.d}-{'-'.join(map(str, case.hidden))}-{case.kept}-{case.activation}"


def undo(layer):
    return layer._replace(inverse=True)


def assert_close(actual, expected, tolerance):
    assert actual.shape == expected.shape
    if expected.numel():
        error = (actual.double() - expected).abs().max().item()
        assert error <= tolerance * max(1.0, expected.abs().max().item())


# --- The kernel's own source, with the instructions of sm_90a emulated.


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    program = tmp_path_factory.mktemp("emulator") / "fused_coupling"
    source = EMULATOR / "fused_coupling.cpp"
    options = ["-std=c++17", "-O2", "-Wall", "-Werror", "-Wno-unknown-pragmas"]
    include = ["-I", EMULATOR, "-I", ROOT / "csrc"]
    subprocess.run(["g++", *options, *include, source, "-o", program], check=True)
    return program


def emulated(emulator, case, layer, rows, weights, biases):
    """Rows and log-determinants that the kernel writes."""
    columns = [_cuda_fused._columns(half, case.d) for half in halves(case.d, layer.kept)]
    activation = list(reference._ACTIVATIONS).index(layer.activation)
    head = [int(layer.inverse), activation, case.blocks, case.seed, case.n, case.d]
    head += [*columns[0], *columns[1], layer.clamp or 0.0, layer.eps, len(case.hidden)]
    tensors = [rows, *(t for linear in zip(weights, biases, strict=True) for t in linear)]
    data = b"".join(t.contiguous().numpy().tobytes() for t in tensors)
    head = " ".join(map(str, [*head, *case.hidden])).encode() + b"\n"
    done = subprocess.run([emulator], input=head + data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    values = torch.frombuffer(bytearray(done.stdout), dtype=torch.float32)
    return values[: rows.numel()].view_as(rows), values[rows.numel() :]


def defined(layer, rows, weights, biases):
    """The layer in float64, but for the operands of products, which are rounded to float16."""
    stays, moves = halves(rows.shape[1], layer.kept)
    hidden = rows[:, stays].half().double()
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        hidden = reference._ACTIVATIONS[layer.activation](hidden @ weight.half().double().T + bias)
        hidden = hidden.half().double()
    shift, log_scale = (hidden @ weights[-1].half().double().T + biases[-1]).chunk(2, dim=1)
    couple = affine_coupling_inverse if layer.inverse else affine_coupling
    moved, log_det = couple(rows[:, moves].double(), shift, log_scale, layer.clamp, layer.eps)
    out = rows.double()
    out[:, moves] = moved
    return out, log_det


EMULATED = [
    Case(1, 2, (1,)),
    Case(128, 128, (64,), activation="relu"),
    Case(129, 130, (128, 128), kept="last", blocks=2, seed=1),
    Case(300, 33, (40, 100), activation="selu", clamp=None),  # more tiles than blocks, odd width
    Case(200, 66, (130, 17), kept="even", activation="silu", blocks=3),  # more blocks than tiles
    Case(70, 67, (200,), kept="odd", blocks=2, seed=1),
    Case(140, 258, (256, 192), seed=1),
    Case(64, 401, (257, 300, 384), kept="last", activation="relu"),
    Case(130, 768, (384, 384), seed=1),
    Case(65, 768, (128,), clamp=None),  # more slabs of kept features than of hidden ones
]


@pytest.mark.gate
@pytest.mark.parametrize("case", EMULATED, ids=name)
def test_emulated_kernel_computes_the_layer(emulator, case):
    rows, weights, biases = case.tensors()
    out, log_det = emulated(emulator, case, case.layer, rows, weights, biases)
    expected, expected_log_det = defined(case.layer, rows, weights, biases)
    stays, _ = halves(case.d, case.kept)
    assert torch.equal(out[:, stays], rows[:, stays])
    assert_close(out, expected, FUSED_PRODUCTS)
    assert_close(log_det / case.n_moved, expected_log_det / case.n_moved, FUSED_PRODUCTS)

    back, back_log_det = emulated(emulator, case, undo(case.layer), out, weights, biases)
    assert_close(back, rows.double(), ROUND_TRIP)
    assert torch.equal(back_log_det, -log_det)


# --- What is around the kernels.


@pytest.fixture
def cuda_on_cpu(monkeypatch):
    """The CUDA backend's Python, with the CPU's kernels below it, in blocks of four rows."""
    monkeypatch.setitem(_op._MODULES, "cpu", "_cuda")
    monkeypatch.setattr(_network, "_BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(_network, "_LEAST_ROWS", 4)


@DIRECTIONS
@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize("n", [0, 1, 11])
def test_gradients_over_blocks_of_rows(cuda_on_cpu, n, memory, inverse):
    case = Case(n, 9, (11, 6), kept="odd", activation="silu")
    rows, weights, biases = case.tensors()
    layer = case.layer._replace(inverse=inverse, precision="exact")
    options = {"kept": layer.kept, "activation": layer.activation, "clamp": layer.clamp}
    options |= {"eps": layer.eps, "memory": memory, "backend": "cpu"}
    op = coupling_mlp_inverse if inverse else coupling_mlp

    def gradients(function, tensors):
        leaves = [t.detach().requires_grad_() for t in tensors]
        n_layers = len(weights)
        out, log_det = function(leaves[0], leaves[1 : n_layers + 1], leaves[n_layers + 1 :])
        return torch.autograd.grad(out.square().sum() + log_det.sum(), leaves)

    tensors = [rows, *weights, *biases]
    actual = gradients(lambda *t: op(*t, **options), tensors)
    wide = [t.double() for t in tensors]
    expected = gradients(lambda *t: reference.coupling_mlp(layer, *t), wide)
    for got, wanted in zip(actual, expected, strict=True):
        assert_close(got, wanted, ROW_SUM[torch.float32])


def test_only_hopper_runs_the_fused_kernel():
    rows, weights, _ = Case(3, 8, (8,)).tensors()
    assert not _cuda_fused.supports(Case(3, 8, (8,)).layer, rows, weights)


@pytest.mark.skipif(find_spec("fastinn._cuda") is None, reason="fastinn._cuda is not built")
@pytest.mark.parametrize(
    ("hidden", "fits"),
    [((8,), True), ((384, 1), True), ((385,), False), ((0,), False), ((8, 0), False), ((), False)],
    ids=str,
)
def test_the_fused_kernel_says_which_widths_it_takes(hidden, fits):
    assert (_cuda_fused._packed_bytes(8, 8, hidden) > 0) == fits


# --- What the emulator cannot show: the hardware's own order of things, and tiles by the thousand.

ON_HOPPER = [
    *EMULATED,
    Case(100_003, 768, (384, 384)),
    Case(100_003, 768, (128, 100), kept="even", activation="silu", clamp=None),
    Case(50_001, 401, (257, 256, 300), kept="last"),
]


def fused(layer, rows, weights, biases):
    assert _cuda_fused.supports(layer, rows, weights)
    out, log_det = torch.full_like(rows, torch.nan), torch.full_like(rows[:, 0], torch.nan)
    _cuda_fused.transform(layer, rows, weights, biases, out, log_det)
    return out, log_det


@pytest.mark.skipif(not HOPPER, reason="there is no sm_90 GPU")
@pytest.mark.parametrize("case", ON_HOPPER, ids=name)
def test_fused_kernel_agrees_with_products_in_torch(case):
    tensors = case.tensors("cuda")
    out, log_det = fused(case.layer, *tensors)
    expected, expected_log_det = torch.empty_like(out), torch.empty_like(log_det)
    _native.transform(case.layer, *tensors, expected, expected_log_det, [])
    # Products in torch round the shift and the log-scale to float16 as well.
    assert_close(out, expected, 4 * FUSED_PRODUCTS)
    assert_close(log_det / case.n_moved, expected_log_det / case.n_moved, 4 * FUSED_PRODUCTS)


@pytest.mark.skipif(not HOPPER, reason="there is no sm_90 GPU")
@pytest.mark.parametrize("case", ON_HOPPER, ids=name)
def test_fused_kernel_goes_there_and_back_and_repeats_itself(case):
    rows, *network = case.tensors("cuda")
    out, log_det = fused(case.layer, rows, *network)
    for first, second in zip((out, log_det), fused(case.layer, rows, *network), strict=True):
        assert torch.equal(first, second)
    back, back_log_det = fused(undo(case.layer), out, *network)
    assert_close(back, rows.double(), ROUND_TRIP)
    assert torch.equal(back_log_det, -log_det)
