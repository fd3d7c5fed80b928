"""The eager layer through torch.compile in its default mode.

Autotuning takes minutes a shape on a GPU, to replace the products of cuBLAS.
"""

import torch
from torch import nn

from peers.couplings import eager


def compiled(module: nn.Module) -> nn.Module:
    """Compile both directions of ``module``, in place."""
    # Each bench compiles the same code for another shape; past eight variants torch would
    # silently run it eagerly.
    torch.compiler.reset()
    for direction in ("forward", "inverse"):
        setattr(module, direction, torch.compile(getattr(module, direction)))
    return module


def build(network: nn.Module, d: int) -> nn.Module:
    return compiled(eager.build(network, d))
