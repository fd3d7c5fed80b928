"""The C++ and CUDA kernels."""

from torch import Tensor

from fastinn.ops._native import dtype_name, native, strided


def transform(
    inverse: bool,
    z: Tensor,
    shift: Tensor,
    log_scale: Tensor,
    clamp: float | None,
    eps: float,
    out: Tensor,
    log_det: Tensor,
) -> None:
    """Write the transformed ``z`` and its log-determinant."""
    module, where = native(z.device)
    module.affine_coupling(
        inverse,
        dtype_name(z),
        *z.shape,
        strided(z),
        strided(shift),
        strided(log_scale),
        clamp or 0.0,
        eps,
        out.data_ptr(),
        log_det.data_ptr(),
        *where,
    )


def differentiate(
    inverse: bool,
    grad_out: Tensor,
    grad_log_det: Tensor,
    x: Tensor,
    log_scale: Tensor,
    clamp: float | None,
    eps: float,
    grad_z: Tensor,
    grad_log_scale: Tensor,
    grad_shift: Tensor | None = None,
) -> None:
    """Write the gradients; forward, that of the shift is ``grad_out`` and is not written."""
    module, where = native(x.device)
    module.affine_coupling_backward(
        inverse,
        dtype_name(x),
        *x.shape,
        strided(grad_out),
        strided(grad_log_det[:, None]),
        strided(x),
        strided(log_scale),
        clamp or 0.0,
        eps,
        grad_z.data_ptr(),
        grad_log_scale.data_ptr(),
        0 if grad_shift is None else grad_shift.data_ptr(),
        *where,
    )
