"""The kernels under test."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import torch

from fastinn import _cpu
from fastinn.ops import backends


class Kernel(NamedTuple):
    backend: str
    device: str


def kernels_of(op: str) -> list[str]:
    """Every compiled backend that this machine can run; the CPU's once for each instruction set."""
    accelerated = [name for name in ("triton", "cuda") if backends()[op][name] is True]
    return [*(f"cpu-{isa}" for isa in _cpu.supported_isas()), *accelerated]


@contextmanager
def chosen(name: str) -> Iterator[Kernel]:
    """Use the instruction set that ``name`` says, if it says one."""
    backend, _, isa = name.partition("-")
    if not isa:
        yield Kernel(backend, "cuda" if torch.cuda.is_available() else "cpu")
        return
    usual = _cpu.build_info()["isa"]
    _cpu.use_isa(isa)
    yield Kernel(backend, "cpu")
    _cpu.use_isa(usual)


@pytest.fixture(params=kernels_of("affine_coupling"))
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """Each kernel of the elementwise coupling."""
    with chosen(request.param) as kernel:
        yield kernel


@pytest.fixture(params=kernels_of("coupling_mlp"))
def layer_kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """Each kernel of the whole coupling layer."""
    with chosen(request.param) as kernel:
        yield kernel
