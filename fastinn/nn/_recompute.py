"""Backward passes that recover the input of each layer from its output."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from fastinn.nn._autocast import no_autocast
from fastinn.ops import use_backend
from fastinn.ops._backend import named_backend


class LayerGradients(NamedTuple):
    """Input of a layer, recovered, and the gradients of its input and its parameters."""

    rows: Tensor
    grad_rows: Tensor
    grad_parameters: list[Tensor | None]


def chain(
    layers: list[nn.Module], rows: Tensor, total: Tensor | None = None, *, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Pass rows through ``layers`` in the given order, or through their inverses.

    The log-determinants are added to ``total``, where given.
    """
    if total is None:
        total = rows.new_zeros(len(rows))
    for layer in layers:
        rows, log_det = _function(layer, inverse)(rows)
        total = total + log_det
    return rows, total


def segments(layers: list[nn.Module], every: int) -> list[list[nn.Module]]:
    """Cut a list of layers such that no part has more than ``every`` layers with parameters."""
    parts: list[list[nn.Module]] = [[]]
    n_learned = 0
    for layer in layers:
        learned = next(layer.parameters(), None) is not None
        if learned and n_learned == every:
            parts.append([])
            n_learned = 0
        n_learned += learned
        parts[-1].append(layer)
    return parts


def recomputed(layers: list[nn.Module], rows: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """Do what :func:`chain` does and keep the first and the last rows only.

    A layer with a method ``vjp(parameters, rows, out, grad_out, grad_log_det, *, inverse)`` that
    returns :class:`LayerGradients` is differentiated by it, any other by autograd, one at a time.
    """
    walk = _Walk(layers, inverse)
    out: tuple[Tensor, Tensor] = _Recomputed.apply(walk, rows, *walk.parameters)
    return out


class _Walk:
    """Layers in the order in which rows pass them, and which parameters are whose."""

    def __init__(self, layers: list[nn.Module], inverse: bool) -> None:
        self.layers, self.inverse = layers, inverse
        self.backend = named_backend()
        owned = [dict(layer.named_parameters(remove_duplicate=False)) for layer in layers]
        # Couplings may share parameters, but autograd wants each one once.
        self.parameters = list(dict.fromkeys(p for named in owned for p in named.values()))
        place = {parameter: i for i, parameter in enumerate(self.parameters)}
        self.places = [{name: place[p] for name, p in named.items()} for named in owned]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, walk: _Walk, rows: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        out, log_det = chain(walk.layers, rows, inverse=walk.inverse)
        ctx.walk = walk
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows, out, *parameters)
        return out, log_det

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_out: Tensor | None, grad_log_det: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        first, out, *parameters = ctx.saved_tensors
        if grad_out is None:
            grad_out = torch.zeros_like(out)
        grads: list[Tensor | None] = [None] * len(parameters)
        places = ctx.walk.places
        # On a GPU a thread of autograd's runs this, which knows nothing of use_backend().
        backend = ctx.walk.backend
        again = nullcontext() if backend is None else use_backend(backend)
        with no_autocast(out.device.type), again:
            for i, layer in reversed(list(enumerate(ctx.walk.layers))):
                named = {name: parameters[place] for name, place in places[i].items()}
                # The first layer's input is at hand, without the errors of its inverse.
                known = first if i == 0 else None
                out, grad_out, found = _differentiate(
                    layer, ctx.walk.inverse, named, known, out, grad_out, grad_log_det
                )
                for place, grad in zip(places[i].values(), found, strict=True):
                    grads[place] = _sum(grads[place], grad)
        return None, grad_out, *grads


def _differentiate(
    layer: nn.Module,
    inverse: bool,
    named: dict[str, Tensor],
    known: Tensor | None,
    out: Tensor,
    grad_out: Tensor,
    grad_log_det: Tensor | None,
) -> LayerGradients:
    vjp: Callable[..., LayerGradients] | None = getattr(layer, "vjp", None)
    if vjp is not None:
        parameters = list(named.values())
        return vjp(parameters, known, out, grad_out, grad_log_det, inverse=inverse)
    rows = known if known is not None else _call(layer, not inverse, named, out)[0]
    return _by_autograd(layer, inverse, named, rows, grad_out, grad_log_det)


def _by_autograd(
    layer: nn.Module,
    inverse: bool,
    named: dict[str, Tensor],
    rows: Tensor,
    grad_out: Tensor,
    grad_log_det: Tensor | None,
) -> LayerGradients:
    """Differentiate one layer at ``rows``, on leaves of its own: nobody's hooks are to run."""
    leaves = {k: p.detach().requires_grad_(p.requires_grad) for k, p in named.items()}
    rows = rows.detach().requires_grad_()
    with torch.enable_grad():
        outputs = _call(layer, inverse, leaves, rows)
    used = [
        (output, grad)
        for output, grad in zip(outputs, (grad_out, grad_log_det), strict=True)
        if output.requires_grad and grad is not None
    ]
    trained = [name for name, leaf in leaves.items() if leaf.requires_grad]
    grad_rows, *grads = torch.autograd.grad(
        [output for output, _ in used],
        [rows, *(leaves[name] for name in trained)],
        [grad for _, grad in used],
        materialize_grads=True,
    )
    by_name = dict(zip(trained, grads, strict=True))
    return LayerGradients(rows.detach(), grad_rows, [by_name.get(name) for name in leaves])


def _call(
    layer: nn.Module, inverse: bool, named: dict[str, Tensor], rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Apply a layer or its inverse with the given parameters in the place of its own."""
    parameters = {f"layer.{name}": parameter for name, parameter in named.items()}
    outputs: tuple[Tensor, Tensor] = functional_call(_Directed(layer, inverse), parameters, (rows,))
    return outputs


class _Directed(nn.Module):
    """A layer or its inverse, as a module of its own."""

    def __init__(self, layer: nn.Module, inverse: bool) -> None:
        super().__init__()
        self.layer, self.inverse = layer, inverse

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = _function(self.layer, self.inverse)(rows)
        return result


def _function(layer: nn.Module, inverse: bool) -> Any:
    return layer.inverse if inverse else layer


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b
