"""The instruction sets that the CPU kernels are compiled for."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastinn import _cpu

MULTIPLY_BFLOAT16 = [s for s in _cpu.supported_isas() if s in ("avx512_bf16", "amx")]
"""Those of this processor that have 16-bit products, in ascending order."""


@contextmanager
def instruction_set(name: str) -> Iterator[None]:
    """Run the kernels for ``name`` inside."""
    usual = _cpu.build_info()["isa"]
    _cpu.use_isa(name)
    try:
        yield
    finally:
        _cpu.use_isa(usual)
