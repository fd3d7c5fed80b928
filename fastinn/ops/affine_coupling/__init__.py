"""Affine coupling: an elementwise bijection whose log-determinant is a sum."""

import torch
from torch import Tensor

from fastinn._types import Backend
from fastinn.ops._backend import declare, resolve
from fastinn.ops.affine_coupling import _op, reference

__all__ = ["affine_coupling", "affine_coupling_inverse"]

declare("affine_coupling", "cpu", "triton", "cuda")


def affine_coupling(
    x: Tensor,
    shift: Tensor,
    log_scale: Tensor,
    *,
    clamp: float | None = None,
    eps: float = 0.0,
    backend: Backend | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Affine coupling :math:`y = x \odot (e^l + \epsilon) + t` and its log-determinant.

    Args:
        x: Half of the features to transform, shape ``(n, d)``, float32 or float64.
        shift: Translation :math:`t`, shape ``(n, d)``.
        log_scale: Log-scale :math:`s` before clamping, shape ``(n, d)``.
        clamp: Bound :math:`c` of the soft clamp :math:`l = c\tanh(s/c)`; ``None`` leaves
            :math:`l = s` unbounded.
        eps: Added to every scale. The published BERT-INN has 1e-8, which its log-determinant
            leaves out, as here.
        backend: Kernel to use; ``None`` picks the fastest for the device of ``x``.

    Returns:
        ``y``, shape ``(n, d)``, and ``log_det``, :math:`\sum_j l_{ij}`, shape ``(n,)``, in nats.

    Raises:
        ValueError: If shapes, dtypes or devices differ, or ``clamp`` is not positive.
        TypeError: If ``x`` is neither float32 nor float64.
        BackendUnavailableError: If a named backend is not available.

    Source: Dinh et al. 2017, Density estimation using Real NVP, eq. 7-8; soft clamp: Ardizzone et
    al. 2019, Guided image generation with conditional invertible neural networks.
    """
    _check({"x": x, "shift": shift, "log_scale": log_scale}, clamp)
    chosen = resolve("affine_coupling", backend, x.device.type)
    if chosen == "reference":
        return reference.affine_coupling(x, shift, log_scale, clamp, eps)
    return _op.forward(x, shift, log_scale, clamp, eps, chosen)


def affine_coupling_inverse(
    y: Tensor,
    shift: Tensor,
    log_scale: Tensor,
    *,
    clamp: float | None = None,
    eps: float = 0.0,
    backend: Backend | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Inverse :math:`x = (y - t) / (e^l + \epsilon)` of :func:`affine_coupling`.

    Args:
        y: Output of the coupling, shape ``(n, d)``, float32 or float64.
        shift: See :func:`affine_coupling`, as for the other arguments.
        log_scale: See :func:`affine_coupling`.
        clamp: See :func:`affine_coupling`.
        eps: See :func:`affine_coupling`.
        backend: See :func:`affine_coupling`.

    Returns:
        ``x``, shape ``(n, d)``, and the log-determinant of the inverse, the negative of the
        coupling's, shape ``(n,)``, in nats.

    Raises:
        ValueError: See :func:`affine_coupling`, as for the other errors.
        TypeError: See :func:`affine_coupling`.
        BackendUnavailableError: See :func:`affine_coupling`.
    """
    _check({"y": y, "shift": shift, "log_scale": log_scale}, clamp)
    chosen = resolve("affine_coupling", backend, y.device.type)
    if chosen == "reference":
        return reference.affine_coupling_inverse(y, shift, log_scale, clamp, eps)
    return _op.inverse(y, shift, log_scale, clamp, eps, chosen)


def _check(tensors: dict[str, Tensor], clamp: float | None) -> None:
    (name, first), *others = tensors.items()
    if first.ndim != 2:
        raise ValueError(f"{name} has shape {tuple(first.shape)}, expected (n, d)")
    if first.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} is {first.dtype}, expected float32 or float64; convert it first")
    for other_name, other in others:
        _check_alike(name, first, other_name, other)
    if clamp is not None and not clamp > 0:
        raise ValueError(f"clamp is {clamp}, expected a positive bound, or None for no clamp")


def _check_alike(name: str, first: Tensor, other_name: str, other: Tensor) -> None:
    for what in ("shape", "dtype", "device"):
        a, b = getattr(first, what), getattr(other, what)
        if a != b:
            raise ValueError(
                f"{name} has {what} {_show(a)} and {other_name} has {what} {_show(b)}: "
                "they must be the same"
            )


def _show(value: object) -> str:
    return str(tuple(value)) if isinstance(value, torch.Size) else str(value)
