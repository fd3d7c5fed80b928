"""Arrays in, arrays of the same kind out: NumPy, CuPy, DLPack and torch."""

import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fastinn._types import Array


def as_tensor(array: Array) -> Tensor:
    """View ``array`` as a tensor, sharing memory where its kind allows it.

    Args:
        array: Tensor, NumPy array, anything with ``__dlpack__``, or nested numbers.

    Returns:
        The tensor, on the device of ``array``.
    """
    if isinstance(array, Tensor):
        return array
    if isinstance(array, np.ndarray):
        # from_numpy refuses negative strides and warns on read-only memory; a copy serves both.
        whole = (
            array if array.flags.writeable and min(array.strides, default=0) >= 0 else array.copy()
        )
        return torch.from_numpy(whole)
    if hasattr(array, "__dlpack__"):
        return torch.from_dlpack(array)
    return torch.as_tensor(array)


def like(tensor: Tensor, kind: Array) -> Array:
    """Give ``tensor`` back as the kind of array that ``kind`` is, sharing memory on its device."""
    if isinstance(kind, Tensor):
        return tensor
    if isinstance(kind, np.ndarray):
        return tensor.detach().cpu().numpy()
    if hasattr(kind, "__dlpack__"):
        return _from_dlpack(kind)(tensor.detach())
    return tensor


def _from_dlpack(kind: Array) -> Callable[[Tensor], Array]:
    """Return the ``from_dlpack`` of the library of ``kind``, which need not be imported here."""
    if hasattr(kind, "__array_namespace__"):
        return kind.__array_namespace__().from_dlpack
    # Arrays of CuPy 13 do not name their namespace; it is the package that defines them.
    package = sys.modules[type(kind).__module__.partition(".")[0]]
    if hasattr(package, "from_dlpack"):
        return package.from_dlpack
    raise TypeError(
        f"cannot give results back as {type(kind).__module__}.{type(kind).__name__}: neither it "
        "nor its package has from_dlpack; pass a torch tensor or a NumPy array"
    )
