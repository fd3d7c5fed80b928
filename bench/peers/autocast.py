"""A peer whose products are rounded to 16 bits by torch's autocast."""

import torch
from torch import Tensor, nn


class Autocast(nn.Module):
    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, self.dtype):
            return self.module.forward(x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(y.device.type, self.dtype):
            return self.module.inverse(y)
