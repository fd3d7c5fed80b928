"""The eager layer through torch.compile."""

import torch
from torch import nn

from peers.couplings import eager


def compiled(module: nn.Module) -> nn.Module:
    """Compile both directions of ``module``, in place."""
    # Each bench compiles the same code for another shape; past eight variants torch would
    # silently run it eagerly.
    torch.compiler.reset()
    on_gpu = next(module.parameters()).is_cuda
    mode = "max-autotune-no-cudagraphs" if on_gpu else "default"
    for direction in ("forward", "inverse"):
        setattr(module, direction, torch.compile(getattr(module, direction), mode=mode))
    return module


def build(network: nn.Module, d: int) -> nn.Module:
    return compiled(eager.build(network, d))
