"""zuko's coupling of affine maps; its clamp is a rational function."""

import torch
from torch import Tensor, nn
from zuko.flows.coupling import GeneralCouplingTransform


class Coupling(nn.Module):
    def __init__(self, network: nn.Module, d: int) -> None:
        super().__init__()
        self.coupling = GeneralCouplingTransform(d, mask=torch.arange(d) < d // 2)
        self.coupling.hyper = network
        self.coupling.to(next(network.parameters()).device)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.coupling().call_and_ladj(x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.coupling().inv.call_and_ladj(y)


def build(network: nn.Module, d: int) -> nn.Module:
    return Coupling(network, d)
