"""Affine coupling on the CPU: each backend beside the reference, as a share of copy bandwidth.

Run: ``pytest bench/ops/bench_affine_coupling.py --benchmark-group-by=param:op``
"""

import time

import pytest
import torch

from fastinn.ops import affine_coupling, affine_coupling_inverse

N, D = 65_536, 384
OPS = {"forward": affine_coupling, "inverse": affine_coupling_inverse}
MATRICES_MOVED = 4  # three are read, one is written


def seconds_of_copy(x):
    """Best of five copies of one matrix: a read and a write."""
    out, times = torch.empty_like(x), []
    for _ in range(5):
        start = time.perf_counter()
        out.copy_(x)
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(N, D, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("op", OPS)
def test_affine_coupling(benchmark, inputs, op, backend):
    expected = OPS[op](*(t.double() for t in inputs), clamp=1.0, backend="reference")
    for found, right in zip(OPS[op](*inputs, clamp=1.0, backend=backend), expected, strict=True):
        torch.testing.assert_close(found.double(), right, atol=1e-4, rtol=1e-5)

    benchmark(lambda: OPS[op](*inputs, clamp=1.0, backend=backend))
    best = benchmark.stats.stats.min
    bytes_moved = MATRICES_MOVED * inputs[0].nbytes
    benchmark.extra_info["GB/s"] = bytes_moved / best / 1e9
    benchmark.extra_info["share of copy"] = seconds_of_copy(inputs[0]) * MATRICES_MOVED / 2 / best
