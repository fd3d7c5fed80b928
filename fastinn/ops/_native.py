"""How tensors reach the compiled modules: as addresses, sizes and strides."""

from types import ModuleType

import torch
from torch import Tensor


def native(device: torch.device) -> tuple[ModuleType, tuple[int, ...]]:
    """Return the compiled module for ``device`` and what its kernels take beside the tensors."""
    if device.type == "cuda":
        from fastinn import _cuda

        return _cuda, (device.index, torch.cuda.current_stream(device).cuda_stream)
    from fastinn import _cpu

    return _cpu, ()


def dtype_name(tensor: Tensor) -> str:
    """Return ``"float32"`` for ``torch.float32``, and so on."""
    return str(tensor.dtype).removeprefix("torch.")


def strided(matrix: Tensor) -> tuple[int, int, int]:
    """Return address, row stride and column stride of a matrix that a kernel reads."""
    row, column = matrix.stride()
    return matrix.data_ptr(), row, column
