"""The coupling layer as one writes it in torch."""

import torch
from torch import Tensor, nn

CLAMP = 1.0


class Coupling(nn.Module):
    def __init__(self, network: nn.Module, d: int) -> None:
        super().__init__()
        self.network = network
        self.sizes = [d // 2, d - d // 2]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = x.split(self.sizes, dim=1)
        shift, log_scale = self._amounts(kept)
        y = torch.cat([kept, moved * log_scale.exp() + shift], dim=1)
        return y, log_scale.sum(dim=1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = y.split(self.sizes, dim=1)
        shift, log_scale = self._amounts(kept)
        x = torch.cat([kept, (moved - shift) / log_scale.exp()], dim=1)
        return x, -log_scale.sum(dim=1)

    def _amounts(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        # Under autocast the network gives 16-bit results; the rows stay as they are.
        shift, log_scale = self.network(kept).to(kept.dtype).chunk(2, dim=1)
        return shift, CLAMP * torch.tanh(log_scale / CLAMP)


def build(network: nn.Module, d: int) -> nn.Module:
    return Coupling(network, d)
