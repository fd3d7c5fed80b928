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
        return torch.from_numpy(array if _is_shared(array) else _copied(array))
    if hasattr(array, "__dlpack__"):
        return torch.from_dlpack(array)
    return torch.as_tensor(array)


def _is_shared(array: np.ndarray) -> bool:
    """Whether torch can share the memory: not read-only, backwards or in foreign byte order."""
    forwards = min(array.strides, default=0) >= 0
    return array.flags.writeable and forwards and array.dtype.isnative


def _copied(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("="))


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
