"""Sums of products of rows: one view, and eight views side by side."""

from functools import partial

from accuracy import check, relative_error
from ceilings import product
from comparison import Case
from tolerances import BENCH_CORRELATION
from workloads import rows

from fastinn.ops import second_moments, use_backend

OP = "second_moments"
# By width.
TOKENS = {
    "cpu": {768: 65_536, 8 * 768: 4096},
    "cuda": {768: 2**20, 8 * 768: 2**17, 25 * 768: 2**14},
}
PRECISIONS = {device: ["high", "exact", "fast"] for device in TOKENS}
# One product of 16 bits is a tensor core's; "high" needs three of them for one in float32.
CEILINGS = {
    ("cpu", "exact"): ("float64", 1),
    ("cpu", "high"): ("float32", 1),
    ("cpu", "fast"): ("float32", 1),
    ("cuda", "exact"): ("float64", 1),
    ("cuda", "high"): ("float16", 3),
    ("cuda", "fast"): ("float16", 1),
}


def correlations(products):
    scale = products.diagonal().rsqrt()
    return products * scale * scale[:, None]


def peers_of(x):
    found = {"torch float32": lambda: x.T @ x}
    if x.is_cuda or x.shape[1] == 768:  # seconds a call on CPUs
        found["torch float64"] = lambda: _float64(x)
    if not x.is_cuda:
        array = x.numpy().astype("float64")
        found["numpy float64"] = lambda: array.T @ array
    return found


def _float64(x):
    """Convert first, as ours does, but in blocks, so that wide views fit."""
    return sum(block.mT @ block for block in (part.double() for part in x.split(16_384)))


def test_one_view_with_itself(comparison, device, backend, precision, width):
    tokens = TOKENS[device][width]
    x = rows(tokens, width, device)
    with use_backend(backend):
        ours = partial(second_moments, x, precision=precision)
        found, expected = correlations(ours()), correlations(_float64(x))
        error = check(relative_error([found], [expected]), BENCH_CORRELATION[precision], backend)
        kind, passes = CEILINGS[device, precision]
        # The lower triangle with its diagonal; the other half is its mirror image.
        work = 1.0 * passes * tokens * width * (width + 1)
        case = Case(f"{tokens} x {width}", tokens, product(device, kind), work, precision, backend)
        comparison(case, ours, peers_of(x), error)
