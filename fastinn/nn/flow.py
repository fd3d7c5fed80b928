"""A composition of invertible layers."""

from collections.abc import Iterable

from torch import Tensor, nn


class Flow(nn.Module):
    """Apply invertible layers one after the other, and undo them in reverse order.

    Args:
        layers: Modules with ``forward(x) -> (y, log_det)`` and ``inverse(y) -> (x, log_det)``.

    Example:
        >>> flow = Flow(InvertibleLinear(8), AffineCoupling(8))
        >>> y, log_det = flow(torch.randn(5, 8))
        >>> x, _ = flow.inverse(y)
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows ``x``, shape ``(n, d)``, to ``y`` and ``log|det dy/dx|``, shape ``(n,)``."""
        return _chain(x, self.layers)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows ``y``, shape ``(n, d)``, to ``x`` and ``log|det dx/dy|``, shape ``(n,)``."""
        return _chain(y, (layer.inverse for layer in reversed(self.layers)))


def _chain(rows: Tensor, maps: Iterable) -> tuple[Tensor, Tensor]:
    total = rows.new_zeros(len(rows))
    for apply in maps:
        rows, log_det = apply(rows)
        total = total + log_det
    return rows, total
