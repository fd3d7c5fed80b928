"""Coupling layers; see :mod:`peers`."""

import torch
from torch import nn

from peers import COUPLINGS, load
from peers.autocast import Autocast


def layers(
    network: nn.Module, d: int, precision: str, dtype: torch.dtype
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Build every peer around ``network``.

    Args:
        network: Sub-network from ``d // 2`` features; all peers share its parameters.
        d: Number of features.
        precision: ``"fast"`` adds torch's layers with products of 16 bits and leaves out the
            compiled one without.
        dtype: Those 16 bits.

    Returns:
        Layers by name, and of absent peers why.
    """
    modules, absent = load(COUPLINGS)
    built = {name: module.build(network, d) for name, module in modules.items()}
    if precision == "fast":
        for name in ("torch eager", "torch.compile"):
            built[f"{name}, 16 bits"] = Autocast(modules[name].build(network, d), dtype)
        del built["torch.compile"]
    return built, absent
