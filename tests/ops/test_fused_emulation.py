"""The fused CUDA kernel run on the host, instruction by instruction, with no GPU."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerances import FUSED_PRODUCTS, ROUND_TRIP

from fastinn.ops.affine_coupling.reference import affine_coupling, affine_coupling_inverse
from fastinn.ops.coupling_mlp._layer import halves
from fastinn.ops.coupling_mlp.reference import _ACTIVATIONS as ACTIVATIONS

pytestmark = pytest.mark.gate

ROOT = Path(__file__).parents[2]
EMULATOR = Path(__file__).with_name("sm90_emulator")
CLAMP, EPS = 1.3, 1e-3


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """The kernel's own source, with the instructions of sm_90a emulated."""
    program = tmp_path_factory.mktemp("emulator") / "fused_coupling"
    include = ["-I", EMULATOR, "-I", ROOT / "csrc"]
    source = EMULATOR / "fused_coupling.cpp"
    options = ["-std=c++17", "-O2", "-Wall", "-Werror", "-Wno-unknown-pragmas"]
    subprocess.run(["g++", *options, *include, source, "-o", program], check=True)
    return program


def network(n_kept, n_moved, hidden):
    """Weights and biases; outputs of order one, so that no log-scale is all clamp."""
    generator = torch.Generator().manual_seed(0)
    widths = [n_kept, *hidden, 2 * n_moved]
    weights = [
        torch.randn(n_out, n_in, generator=generator) / n_in**0.5
        for n_in, n_out in zip(widths[:-1], widths[1:], strict=True)
    ]
    return weights, [torch.randn(n_out, generator=generator) for n_out in widths[1:]]


def numbers(columns, n_features):
    """First, step and how many features a half has."""
    start, stop, step = columns.indices(n_features)
    return start, step, len(range(start, stop, step))


def run(emulator, case, rows, weights, biases, inverse=False):
    """Rows and log-determinants that the kernel writes."""
    n, d = rows.shape
    sides = [numbers(columns, d) for columns in halves(d, case["kept"])]
    head = [int(inverse), list(ACTIVATIONS).index(case["activation"]), case["blocks"], case["seed"]]
    hidden = [len(weight) for weight in weights[:-1]]
    head += [n, d, *sides[0], *sides[1], case["clamp"] or 0.0, EPS, len(hidden), *hidden]
    tensors = [rows, *(t for layer in zip(weights, biases, strict=True) for t in layer)]
    data = b"".join(t.contiguous().numpy().tobytes() for t in tensors)
    head = " ".join(map(str, head)).encode() + b"\n"
    done = subprocess.run([emulator], input=head + data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    values = torch.from_numpy(np.frombuffer(done.stdout, np.float32).copy())
    return values[: n * d].view(n, d), values[n * d :]


def defined(case, rows, weights, biases, inverse=False):
    """The same in float64, but for the operands, which are rounded to float16."""
    stays, moves = halves(rows.shape[1], case["kept"])
    hidden = rows[:, stays].half().double()
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        hidden = ACTIVATIONS[case["activation"]](hidden @ weight.half().double().T + bias)
        hidden = hidden.half().double()
    shift, log_scale = (hidden @ weights[-1].half().double().T + biases[-1]).chunk(2, dim=1)
    couple = affine_coupling_inverse if inverse else affine_coupling
    out = rows.double().clone()
    moved = rows[:, moves].double()
    out[:, moves], log_det = couple(moved, shift, log_scale, case["clamp"], EPS)
    return out, log_det


def case(n, d, hidden, kept="first", activation="gelu", clamp=CLAMP, blocks=1, seed=0):
    return locals()


CASES = [
    case(1, 2, [1]),
    case(128, 128, [64], activation="relu"),
    case(129, 130, [128, 128], kept="last", blocks=2, seed=1),
    case(300, 33, [40, 100], activation="selu", clamp=None),  # more tiles than blocks, odd width
    case(200, 66, [130, 17], kept="even", activation="silu", blocks=3),  # more blocks than tiles
    case(70, 67, [200], kept="odd", blocks=2, seed=1),
    case(140, 258, [256, 192], kept="first", seed=1),
    case(64, 401, [257, 300, 384], kept="last", activation="relu"),
    case(130, 768, [384, 384], seed=1),
    case(65, 768, [128], clamp=None),  # more slabs of kept features than hidden ones
]


def name(case):
    widths = "-".join(map(str, case["hidden"]))
    return f"{case['n']}x{case['d']}-h{widths}-{case['kept']}-{case['activation']}"


def assert_close(actual, expected, tolerance):
    error = (actual.double() - expected).abs().max().item()
    assert error <= tolerance * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize("case", CASES, ids=name)
def test_computes_the_layer(emulator, case):
    rows = torch.randn(case["n"], case["d"], generator=torch.Generator().manual_seed(1))
    sides = [numbers(columns, case["d"])[2] for columns in halves(case["d"], case["kept"])]
    weights, biases = network(*sides, case["hidden"])
    out, log_det = run(emulator, case, rows, weights, biases)
    expected, expected_log_det = defined(case, rows, weights, biases)
    stays, _ = halves(case["d"], case["kept"])
    assert torch.equal(out[:, stays], rows[:, stays])
    assert_close(out, expected, FUSED_PRODUCTS)
    assert_close(log_det / sides[1], expected_log_det / sides[1], FUSED_PRODUCTS)

    back, back_log_det = run(emulator, case, out, weights, biases, inverse=True)
    assert_close(back, rows.double(), ROUND_TRIP)
    assert torch.equal(back_log_det, -log_det)
