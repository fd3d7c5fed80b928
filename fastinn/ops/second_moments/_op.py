"""The op as torch sees it: allocation, and shapes for the compiler. It has no gradient."""

from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from fastinn._types import Precision

_LIBRARY = torch.library.Library("fastinn", "FRAGMENT")
_MODULES = {"cpu": "_native"}


def kernels(backend: str) -> ModuleType:
    """Return the module whose ``accumulate`` writes into a given output."""
    return import_module(f"fastinn.ops.second_moments.{_MODULES[backend]}")


def empty_product(x: Tensor, y: Tensor | None, *_: object) -> Tensor:
    """Return room for the products, shape ``(b, d_x, d_y)``, float64."""
    right = x if y is None else y
    return x.new_empty(len(x), x.shape[2], right.shape[2], dtype=torch.float64)


def _second_moments(
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None,
    shift: Tensor | None,
    shift_y: Tensor | None,
    precision: Precision,
    backend: str,
) -> Tensor:
    product = empty_product(x, y)
    kernels(backend).accumulate(x, y, weight, shift, shift_y, precision, product)
    return product


_LIBRARY.define(
    "second_moments(Tensor x, Tensor? y, Tensor? weight, Tensor? shift, Tensor? shift_y, "
    "str precision, str backend) -> Tensor"
)
for _device in ("CPU", "CUDA"):
    _LIBRARY.impl("second_moments", _second_moments, _device)
torch.library.register_fake("fastinn::second_moments", empty_product, lib=_LIBRARY)

second_moments = torch.ops.fastinn.second_moments.default
