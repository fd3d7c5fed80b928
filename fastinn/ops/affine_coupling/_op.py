"""The op as torch sees it: allocation, shapes for the compiler, and gradients.

Forward maps x to y and the inverse y to x; ``z`` is what goes in and ``out`` what comes out. Both
differentiate from x and the log-scale alone, so nothing else is kept for the backward pass.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("fastinn", "FRAGMENT")
_MODULES = {"cpu": "_native", "cuda": "_native", "triton": "_triton"}


def kernels(backend: str) -> ModuleType:
    """Return the module whose ``transform`` and ``differentiate`` write into given outputs."""
    return import_module(f"fastinn.ops.affine_coupling.{_MODULES[backend]}")


def _register(name: str, inverse: bool) -> None:
    """Define ``fastinn::name`` and its gradient for one direction."""

    def empty_outputs(z: Tensor, *_: Any) -> tuple[Tensor, ...]:
        return _empty(z), z.new_empty(len(z))

    def transform(z: Tensor, *options: Any) -> tuple[Tensor, ...]:
        *inputs, backend = options
        outputs = empty_outputs(z)
        kernels(backend).transform(inverse, z, *inputs, *outputs)
        return outputs

    def empty_gradients(grad_out: Tensor, *_: Any) -> tuple[Tensor, ...]:
        return tuple(_empty(grad_out) for _ in range(3 if inverse else 2))

    def differentiate(grad_out: Tensor, *options: Any) -> tuple[Tensor, ...]:
        *inputs, backend = options
        gradients = empty_gradients(grad_out)
        kernels(backend).differentiate(inverse, grad_out, *inputs, *gradients)
        return gradients

    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        z, _, log_scale, *ctx.options = inputs
        ctx.save_for_backward(output[0] if inverse else z, log_scale)

    def backward(ctx: Any, grad_out: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        grad_z, grad_log_scale, *rest = getattr(torch.ops.fastinn, f"{name}_backward")(
            grad_out, grad_log_det, *ctx.saved_tensors, *ctx.options
        )
        grad_shift = rest[0] if inverse else grad_out
        return grad_z, grad_shift, grad_log_scale, None, None, None

    options = "float? clamp, float eps, str backend"
    gradients = ", ".join(["Tensor"] * (3 if inverse else 2))
    _LIBRARY.define(
        f"{name}(Tensor z, Tensor shift, Tensor log_scale, {options}) -> (Tensor, Tensor)"
    )
    _LIBRARY.define(
        f"{name}_backward(Tensor grad_out, Tensor grad_log_det, Tensor x, Tensor log_scale, "
        f"{options}) -> ({gradients})"
    )
    for device in ("CPU", "CUDA"):
        _LIBRARY.impl(name, transform, device)
        _LIBRARY.impl(f"{name}_backward", differentiate, device)
    torch.library.register_fake(f"fastinn::{name}", empty_outputs, lib=_LIBRARY)
    torch.library.register_fake(f"fastinn::{name}_backward", empty_gradients, lib=_LIBRARY)
    torch.library.register_autograd(f"fastinn::{name}", backward, setup_context=save, lib=_LIBRARY)


def _empty(z: Tensor) -> Tensor:
    # Not empty_like: it would keep the strides of a view.
    return z.new_empty(z.shape)


_register("affine_coupling", inverse=False)
_register("affine_coupling_inverse", inverse=True)

forward = torch.ops.fastinn.affine_coupling.default
inverse = torch.ops.fastinn.affine_coupling_inverse.default
