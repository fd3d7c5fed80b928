"""What the machine can do at most: copying memory, and large products of matrices."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from timing import interleaved

_COPIED_FLOATS = {"cpu": 2**25, "cuda": 2**28}  # well past the caches
_PRODUCT_WIDTH = {"cpu": 1536, "cuda": 8192}


class Ceiling(NamedTuple):
    """A piece of work that nothing does faster."""

    name: str
    unit: str
    """``"B"`` or ``"FLOP"``."""
    work: float
    """Bytes moved or floating-point operations done by one call."""
    call: Callable[[], object]


@cache
def copying(device: str) -> Ceiling:
    """Return a copy of one large matrix: a read and a write."""
    source = torch.ones(_COPIED_FLOATS[device], device=device)
    target = torch.empty_like(source)
    return Ceiling("copy", "B", 2.0 * source.nbytes, lambda: target.copy_(source))


@cache
def product(device: str, kind: str) -> Ceiling:
    """Return a product of two square matrices of normal entries.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        kind: Name of a dtype, or ``"tf32"`` for float32 rounded to TF32.
    """
    width = _PRODUCT_WIDTH[device]
    dtype = torch.float32 if kind == "tf32" else getattr(torch, kind)
    # Random, not zeros: a GPU clocks higher while its multipliers see few bits change.
    a, b = (torch.randn(width, width, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)

    def multiply() -> object:
        if kind != "tf32":
            return torch.mm(a, b, out=out)
        with _tf32():
            return torch.mm(a, b, out=out)

    return Ceiling(f"{kind} product", "FLOP", 2.0 * width**3, multiply)


class _tf32:  # noqa: N801 - reads as the context it is
    """Let float32 products be rounded to TF32 inside the block."""

    def __enter__(self) -> None:
        self.before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")

    def __exit__(self, *_: object) -> None:
        torch.set_float32_matmul_precision(self.before)


def of_precision(device: str, precision: str) -> tuple[Ceiling, int]:
    """Return the products that ``precision`` stands for, and how many of them replace one."""
    if device == "cpu":
        return _fastest_of_cpu(precision), 1
    kind, passes = {"exact": ("float32", 1), "high": ("tf32", 3), "fast": ("float16", 1)}[precision]
    return product(device, kind), passes


@cache
def _fastest_of_cpu(precision: str) -> Ceiling:
    """Return float32 products, unless 16 bits are allowed and this processor gains from them."""
    kinds = ["float32", "bfloat16"] if precision == "fast" else ["float32"]
    found = {kind: product("cpu", kind) for kind in kinds}
    timings = interleaved({kind: each.call for kind, each in found.items()}, rounds=3)
    return found[min(found, key=timings.seconds)]
