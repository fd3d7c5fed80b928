"""Arrays in, arrays of the same kind out: NumPy, CuPy, DLPack and torch."""

from typing import Any

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
    """Give ``tensor`` back as the kind of array that ``kind`` is."""
    if isinstance(kind, Tensor):
        return tensor
    if isinstance(kind, np.ndarray):
        return tensor.detach().cpu().numpy()
    if hasattr(kind, "__dlpack__"):
        return _namespace(kind).from_dlpack(tensor.detach())
    return tensor


def _namespace(kind: Array) -> Any:
    """Return the array-API namespace of ``kind`` (``cupy`` for a CuPy array)."""
    if hasattr(kind, "__array_namespace__"):
        return kind.__array_namespace__()
    raise TypeError(
        f"cannot give results back as {type(kind).__module__}.{type(kind).__name__}: it has no "
        "__array_namespace__; pass a torch tensor or a NumPy array"
    )
