"""The CUDA kernels."""

from functools import partial

import torch
from torch import Tensor

from fastinn.ops._native import dtype_name, native
from fastinn.ops.second_moments import _panels
from fastinn.ops.second_moments._panels import Form, Staged, Tile


class _Kernels:
    """Launches on the current stream of the tensors' device."""

    def tile(self, form: Form, device: torch.device) -> Tile:
        return Tile(64, 64) if form == "double" else Tile(128, 192)

    def stage(self, x: Tensor, shift: Tensor | None, root: Tensor | None, staged: Staged) -> None:
        module, where = native(x.device)
        layers, n, features = x.shape
        shift = None if shift is None else shift.double().contiguous()
        source = (x.data_ptr(), dtype_name(x), features, *x.stride(), _address(shift))
        rows = staged.high.shape[1]
        module.second_moments_stage(
            staged.form,
            layers,
            n,
            source,
            _address(root),
            rows,
            staged.panel,
            _packed(staged),
            *where,
        )

    def multiply(self, x: Staged, y: Staged, tiles: Tensor, sums: Tensor) -> None:
        module, where = native(sums.device)
        module.second_moments_multiply(
            x.form,
            *x.high.shape[:2],
            x.panel,
            _packed(x),
            _packed(y),
            tiles.data_ptr(),
            len(tiles),
            sums.data_ptr(),
            *where,
        )

    def merge(
        self,
        x: Staged,
        y: Staged,
        tiles: Tensor,
        sums: Tensor,
        out: Tensor,
        symmetric: bool,
        add: bool,
    ) -> None:
        module, where = native(out.device)
        module.second_moments_merge(
            x.form,
            *sums.shape[:2],
            _packed(x),
            _packed(y),
            tiles.data_ptr(),
            *sums.shape[2:],
            sums.data_ptr(),
            (out.data_ptr(), *out.stride(), *out.shape[1:]),
            symmetric,
            add,
            *where,
        )


accumulate = partial(_panels.accumulate, _Kernels())


def _packed(staged: Staged) -> tuple[int, int, int, int]:
    """Return the addresses of the matrices and of the scale, and the number of columns."""
    addresses = (staged.high.data_ptr(), _address(staged.low), staged.scale.data_ptr())
    return *addresses, staged.high.shape[2]


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
