"""Affine coupling: one half of the features moves, by an amount the other half decides."""

from collections.abc import Callable, Iterable
from typing import Any, cast, get_args

from torch import Tensor, nn

from fastinn import _checks
from fastinn._types import Activation, Backend, Kept, Memory, Precision
from fastinn.nn._autocast import outside_autocast
from fastinn.nn._mlp import mlp
from fastinn.nn._recompute import LayerGradients
from fastinn.ops import coupling_mlp, coupling_mlp_inverse, coupling_mlp_vjp
from fastinn.ops.affine_coupling.reference import clamped
from fastinn.ops.coupling_mlp import reference
from fastinn.ops.coupling_mlp._layer import Layer, halves

# Narrower networks cost as much time, which goes into overhead, and learn little.
_LEAST_HIDDEN = 64


class Coupling(nn.Module):
    """Coupling layer whose sub-networks have the given parameters, as they are, shared or not.

    Args:
        weights: See :func:`fastinn.ops.coupling_mlp`, as for the other arguments.
        biases: See :func:`fastinn.ops.coupling_mlp`.
        kept: See :func:`fastinn.ops.coupling_mlp`.
        activation: See :func:`fastinn.ops.coupling_mlp`.
        clamp: See :func:`fastinn.ops.coupling_mlp`.
        eps: See :func:`fastinn.ops.coupling_mlp`.
        precision: See :func:`fastinn.ops.coupling_mlp`.
        memory: See :func:`fastinn.ops.coupling_mlp`.
        backend: See :func:`fastinn.ops.coupling_mlp`.

    Raises:
        ValueError: If an option is unknown.
    """

    def __init__(
        self,
        weights: Iterable[Tensor],
        biases: Iterable[Tensor],
        *,
        kept: Kept,
        activation: Activation,
        clamp: float | None,
        eps: float,
        precision: Precision,
        memory: Memory,
        backend: Backend | None,
    ) -> None:
        super().__init__()
        _checks.one_of(kept, get_args(Kept), "kept")
        _checks.one_of(activation, get_args(Activation), "activation")
        _checks.one_of(precision, get_args(Precision), "precision")
        _checks.one_of(memory, get_args(Memory), "memory")
        self.weights, self.biases = nn.ParameterList(weights), nn.ParameterList(biases)
        self.memory = memory
        self.options: dict[str, Any] = {
            "kept": kept,
            "activation": activation,
            "clamp": clamp,
            "eps": eps,
            "precision": precision,
            "backend": backend,
        }

    @property
    def precision(self) -> Precision:
        """Rounding of the sub-networks' products."""
        return cast(Precision, self.options["precision"])

    @precision.setter
    def precision(self, precision: Precision) -> None:
        self.options["precision"] = precision

    @outside_autocast
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows ``x``, shape ``(n, d)``, to ``y`` and ``log|det dy/dx|``, shape ``(n,)``."""
        return self._couple(coupling_mlp, x)

    @outside_autocast
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows ``y``, shape ``(n, d)``, to ``x`` and ``log|det dx/dy|``, shape ``(n,)``."""
        return self._couple(coupling_mlp_inverse, y)

    def largest_log_scale(self, rows: Tensor) -> Tensor:
        """Return the largest absolute log-scale, after clamping, on rows of either side."""
        layer = Layer(False, *(self.options[name] for name in Layer._fields[1:]))
        weights, biases = list(self.weights), list(self.biases)
        stays, _ = halves(rows.shape[1], layer.kept)
        _, log_scale = reference.network(layer, rows[:, stays], weights, biases)
        return clamped(log_scale, layer.clamp).abs().max()

    def vjp(
        self,
        parameters: list[Tensor],
        rows: Tensor | None,
        out: Tensor,
        grad_out: Tensor,
        grad_log_det: Tensor | None,
        *,
        inverse: bool,
    ) -> LayerGradients:
        """Go back through the layer, or its inverse, from its output alone.

        Args:
            parameters: Values of the parameters at the forward pass, weights before biases.
            rows: Not needed: what came in is recovered, at no cost beside that of the gradients.
            out: What the layer returned, shape ``(n, d)``.
            grad_out: Gradient by ``out``, shape ``(n, d)``.
            grad_log_det: Gradient by the log-determinant, shape ``(n,)``; ``None`` is zero.
            inverse: Whether the forward pass was :meth:`inverse`.
        """
        n = len(self.weights)
        if grad_log_det is None:
            grad_log_det = out.new_zeros(1).expand(len(out))
        recovered, grad_rows, grad_weights, grad_biases = coupling_mlp_vjp(
            out,
            grad_out,
            grad_log_det,
            parameters[:n],
            parameters[n:],
            inverse=inverse,
            **self.options,
        )
        return LayerGradients(recovered, grad_rows, [*grad_weights, *grad_biases])

    def extra_repr(self) -> str:
        """Return the sizes and what differs between couplings."""
        widths = [self.weights[0].shape[-1], *(weight.shape[-2] for weight in self.weights)]
        return f"{' -> '.join(map(str, widths))}, kept={self.options['kept']!r}"

    def _couple(
        self, op: Callable[..., tuple[Tensor, Tensor]], rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        weights, biases = list(self.weights), list(self.biases)
        return op(rows, weights, biases, memory=self.memory, **self.options)


class AffineCoupling(Coupling):
    r"""Affine coupling layer :math:`y = (x_1,\; x_2 \odot e^{l(x_1)} + t(x_1))`.

    Half of the features stay and feed a sub-network that gives the translation and the log-scale
    of the others. Its last layer starts at zero, so the layer starts as the identity.

    Args:
        d: Number of features, at least 2.
        hidden: Width of the sub-network; ``d``, but at least 64, by default.
        kept: Which features stay: the ``"first"`` or ``"last"`` ``d // 2``, or those of ``"even"``
            or ``"odd"`` index.
        n_hidden: Number of hidden layers of the sub-network, one to three.
        activation: ``"relu"``, ``"selu"``, ``"gelu"`` (tanh form) or ``"silu"``.
        clamp: Bound of the soft clamp on the log-scale; ``None`` leaves it unbounded.
        precision: Rounding of the sub-network's products, see
            :func:`fastinn.ops.coupling_mlp`. The features themselves keep their dtype, also
            inside autocast regions.
        memory: ``"store"`` keeps the hidden activations for the backward pass; ``"recompute"``
            keeps only the result and goes back through the inverse.
        backend: Kernel to use; ``None`` picks the fastest for the device.

    Raises:
        ValueError: If ``d`` is below 2, ``n_hidden`` is not 1, 2 or 3, or an option is unknown.

    Source: Dinh et al. 2017, Density estimation using Real NVP, eq. 7-8.
    """

    def __init__(
        self,
        d: int,
        hidden: int | None = None,
        *,
        kept: Kept = "first",
        n_hidden: int = 2,
        activation: Activation = "gelu",
        clamp: float | None = 1.0,
        precision: Precision = "exact",
        memory: Memory = "store",
        backend: Backend | None = None,
    ) -> None:
        _checks.at_least(d, 2, "d")
        _checks.one_of(kept, get_args(Kept), "kept")
        _checks.one_of(activation, get_args(Activation), "activation")
        _checks.one_of(n_hidden, (1, 2, 3), "n_hidden")
        n_kept, n_moved = (len(range(d)[half]) for half in halves(d, kept))
        widths = [n_kept, *[hidden or max(d, _LEAST_HIDDEN)] * n_hidden, 2 * n_moved]
        linears = [layer for layer in mlp(widths, activation) if isinstance(layer, nn.Linear)]
        super().__init__(
            (layer.weight for layer in linears),
            (layer.bias for layer in linears),
            kept=kept,
            activation=activation,
            clamp=clamp,
            eps=0.0,
            precision=precision,
            memory=memory,
            backend=backend,
        )
