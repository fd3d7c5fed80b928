"""The kernels under test."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import pytest
import torch
from instruction_sets import instruction_set

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
    with instruction_set(isa):
        yield Kernel(backend, "cpu")


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


@pytest.fixture(autouse=True)
def products_of_bfloat16(monkeypatch):
    """Make the interpreter multiply bfloat16 numbers, not the integers that hold their bits.

    It does as of Triton 3.9, see triton-lang/triton issue 11584.
    """
    if os.environ.get("TRITON_INTERPRET") != "1" or find_spec("triton") is None:
        return
    from triton import language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    create_dot = InterpreterBuilder.create_dot

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_widened_dot(builder, a, b, *rest):
        return create_dot(builder, widened(a), widened(b), *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_widened_dot)
