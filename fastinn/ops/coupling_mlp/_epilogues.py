"""What the C++ and CUDA kernels compute between the products, on blocks of rows.

Matrices are contiguous unless they are passed as views of whole rows.
"""

from torch import Tensor

from fastinn.ops._native import dtype_name, native, strided
from fastinn.ops.coupling_mlp._layer import Layer

_NOTHING = (0, 0, 0)


def hidden(activation: str, post: Tensor, bias: Tensor, pre: Tensor | None) -> None:
    """Turn the product in ``post`` into the activation of it plus ``bias``.

    ``pre``, where given, takes what goes into the activation.
    """
    module, where = native(post.device)
    module.coupling_mlp_hidden(
        activation,
        dtype_name(post),
        dtype_name(post if pre is None else pre),
        *post.shape,
        post.data_ptr(),
        bias.data_ptr(),
        _address(pre),
        *where,
    )


def hidden_backward(activation: str, pre: Tensor, grad: Tensor, post: Tensor) -> None:
    """Take ``grad`` from after the activation to before it; write the activation again."""
    module, where = native(pre.device)
    module.coupling_mlp_hidden_backward(
        activation,
        dtype_name(grad),
        dtype_name(pre),
        pre.numel(),
        pre.data_ptr(),
        grad.data_ptr(),
        post.data_ptr(),
        *where,
    )


def couple(
    layer: Layer,
    product: Tensor,
    bias: Tensor,
    kept: Tensor,
    moved: Tensor,
    kept_out: Tensor,
    moved_out: Tensor,
    log_det: Tensor,
    log_scale: Tensor | None,
) -> None:
    """Couple the moved features as the last product asks, and copy the kept ones."""
    module, where = native(product.device)
    module.coupling_mlp_couple(
        layer.inverse,
        dtype_name(product),
        *kept.shape,
        moved.shape[1],
        product.data_ptr(),
        bias.data_ptr(),
        strided(kept),
        strided(moved),
        layer.clamp or 0.0,
        layer.eps,
        strided(kept_out),
        strided(moved_out),
        log_det.data_ptr(),
        _address(log_scale),
        *where,
    )


def couple_backward(
    layer: Layer,
    grad_out: Tensor,
    grad_log_det: Tensor,
    known: Tensor,
    log_scale: Tensor | None,
    product: Tensor | None,
    bias: Tensor,
    rows: Tensor | None,
    grad_rows: Tensor,
    grad_product: Tensor,
) -> None:
    """Write the gradients by the moved features and by the last product.

    With ``log_scale``, ``known`` is the side that has no scale in it. With ``product`` instead, it
    is the output, and the moved features of the input are written into ``rows``.
    """
    module, where = native(known.device)
    module.coupling_mlp_couple_backward(
        layer.inverse,
        dtype_name(grad_product),
        *known.shape,
        strided(grad_out),
        strided(grad_log_det[:, None]),
        strided(known),
        _address(log_scale),
        _address(product),
        bias.data_ptr(),
        layer.clamp or 0.0,
        layer.eps,
        _NOTHING if rows is None else strided(rows),
        strided(grad_rows),
        grad_product.data_ptr(),
        *where,
    )


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
