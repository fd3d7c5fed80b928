"""What :func:`fastinn.ops.second_moments` accepts."""

import torch
from torch import Tensor


def check(
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None,
    shift: Tensor | None,
    shift_y: Tensor | None,
) -> None:
    """Raise an error that names the argument that does not fit, and what would."""
    if x.ndim not in (2, 3):
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (n, d) or (layers, n, d)")
    _check_rows(x, "x")
    if y is not None:
        _check_paired(x, y)
        _check_rows(y, "y")
    elif shift_y is not None:
        raise ValueError("shift_y is given and y is not; shift is that of x on both sides")
    _check_alike(weight, "weight", (x.shape[-2],), x)
    _check_alike(shift, "shift", (*x.shape[:-2], x.shape[-1]), x)
    _check_alike(shift_y, "shift_y", (*x.shape[:-2], x.shape[-1] if y is None else y.shape[-1]), x)


def _check_rows(rows: Tensor, name: str) -> None:
    if not rows.is_floating_point():
        raise TypeError(f"{name} is {rows.dtype}, expected a floating-point dtype; convert it")
    if rows.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{name} requires a gradient and second_moments has none; pass {name}.detach(), or "
            "call it under torch.no_grad()"
        )


def _check_paired(x: Tensor, y: Tensor) -> None:
    if x.ndim != y.ndim or x.shape[:-1] != y.shape[:-1]:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and y has shape {tuple(y.shape)}, "
            "expected (n, d_x) and (n, d_y), or (layers, n, d_x) and (layers, n, d_y)"
        )
    if x.device != y.device:
        raise ValueError(f"x is on {x.device} and y is on {y.device}: move them together")


def _check_alike(given: Tensor | None, name: str, shape: tuple[int, ...], x: Tensor) -> None:
    if given is None:
        return
    if given.shape != shape:
        raise ValueError(f"{name} has shape {tuple(given.shape)}, expected {shape}")
    if given.device != x.device:
        raise ValueError(f"x is on {x.device} and {name} is on {given.device}: move them together")
