"""What the benches of coupling layers have in common: networks, training step, sizes."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn

Direction = Callable[[Tensor], tuple[Tensor, Tensor]]


def network(d: int, hidden: int, device: str) -> nn.Sequential:
    """Return a sub-network of two hidden layers from ``d // 2`` features to shift and log-scale."""
    torch.manual_seed(0)
    widths = [d // 2, hidden, hidden, 2 * (d - d // 2)]
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following, device=device), nn.GELU("tanh")]
    return nn.Sequential(*layers[:-1])


def multiply_adds(d: int, hidden: int) -> int:
    """Count those of such a network, a token."""
    return d // 2 * hidden + hidden**2 + hidden * 2 * (d - d // 2)


def rows(tokens: int, d: int, device: str, seed: int = 0) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(tokens, d, device=device, generator=generator)


def two_way_gradients(
    forward: Direction, inverse: Direction, parameters: Iterable[Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of the error from ``x`` to ``y`` and, through the inverse, back."""
    there, back = forward(x)[0], inverse(y)[0]
    loss = (there - y).square().mean() + (back - x).square().mean()
    return torch.autograd.grad(loss, list(parameters))
