"""normflows' affine coupling between its split and its merge; it has no clamp."""

import normflows
import torch
from torch import Tensor, nn


class Coupling(nn.Module):
    def __init__(self, network: nn.Module, d: int) -> None:
        super().__init__()
        self.sizes = [d // 2, d - d // 2]
        self.coupling = normflows.flows.AffineCoupling(network, scale_map="exp")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        halves, log_det = self.coupling(list(x.split(self.sizes, dim=1)))
        return torch.cat(halves, dim=1), log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        halves, log_det = self.coupling.inverse(list(y.split(self.sizes, dim=1)))
        return torch.cat(halves, dim=1), log_det


def build(network: nn.Module, d: int) -> nn.Module:
    return Coupling(network, d)
