"""FrEIA's one-sided affine coupling, clamped by tanh: the same function with s before t."""

from FrEIA.modules import AffineCouplingOneSided
from torch import Tensor, nn

from peers.couplings.eager import CLAMP


class Coupling(nn.Module):
    def __init__(self, network: nn.Module, d: int) -> None:
        super().__init__()
        self.block = AffineCouplingOneSided(
            [(d,)],
            subnet_constructor=lambda *_: network,
            clamp=CLAMP,
            clamp_activation="TANH",
            split_len=d // 2,
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        (y,), log_det = self.block([x])
        return y, log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        (x,), log_det = self.block([y], rev=True)
        return x, log_det


def build(network: nn.Module, d: int) -> nn.Module:
    return Coupling(network, d)
