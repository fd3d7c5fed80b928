"""The sub-network of couplings and free maps."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from fastinn import _checks
from fastinn._types import Activation

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "gelu": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
}


def mlp(widths: Sequence[int], activation: Activation) -> nn.Sequential:
    """Build linear layers of the given widths with activations between them.

    The last layer is zero, so that what the network is added to starts unchanged.

    Raises:
        ValueError: If the activation is unknown.
    """
    _checks.one_of(activation, tuple(ACTIVATIONS), "activation")
    layers: list[nn.Module] = []
    for width, following in pairwise(widths[:-1]):
        layers += [nn.Linear(width, following), ACTIVATIONS[activation]()]
    last = nn.Linear(widths[-2], widths[-1])
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)
