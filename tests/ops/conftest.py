"""The kernels under test."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch

from fastinn import _cpu
from fastinn.ops import backends


class Kernel(NamedTuple):
    backend: str
    device: str


CPU = [f"cpu-{isa}" for isa in _cpu.supported_isas()]
ACCELERATED = [name for name in ("triton", "cuda") if backends()["affine_coupling"][name] is True]


@pytest.fixture(params=[*CPU, *ACCELERATED])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """Each compiled backend that this machine can run; the CPU's once for each instruction set."""
    backend, _, isa = request.param.partition("-")
    if not isa:
        yield Kernel(backend, "cuda" if torch.cuda.is_available() else "cpu")
        return
    usual = _cpu.build_info()["isa"]
    _cpu.use_isa(isa)
    yield Kernel(backend, "cpu")
    _cpu.use_isa(usual)
