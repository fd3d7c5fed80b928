"""BERT-INN as published: full-width networks behind masks (Ren et al. 2023, arXiv 2305.14555)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, selu

CLAMP, EPS = 1.0, 1e-8


class PublishedBertINN(nn.Module):
    """Two passes that share the networks of shift and log-scale.

    Args:
        weights: Matrices and vectors by the keys ``shift.{0,1,2}.{weight,bias}`` and
            ``log_scale.{0,1,2}.{weight,bias}``.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterDict(
            {key.replace(".", "_"): nn.Parameter(value.clone()) for key, value in weights.items()}
        )
        d = weights["shift.2.bias"].shape[0]
        even = torch.arange(d, device=weights["shift.2.bias"].device) % 2 == 0
        self.register_buffer("even", even.to(weights["shift.2.bias"].dtype))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h, log_det = self._pass(x, self.even)
        y, log_det_even = self._pass(h, 1 - self.even)
        return y, log_det + log_det_even

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        h, log_det_even = self._inverse_pass(y, 1 - self.even)
        x, log_det = self._inverse_pass(h, self.even)
        return x, log_det + log_det_even

    def _pass(self, x: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._amounts(x * kept)
        moved = x * (log_scale.exp() + EPS) + shift
        return x * kept + moved * (1 - kept), (log_scale * (1 - kept)).sum(dim=1)

    def _inverse_pass(self, y: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._amounts(y * kept)
        moved = (y - shift) / (log_scale.exp() + EPS)
        return y * kept + moved * (1 - kept), -(log_scale * (1 - kept)).sum(dim=1)

    def _amounts(self, masked: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = (self._network(masked, name) for name in ("shift", "log_scale"))
        return shift, CLAMP * torch.tanh(log_scale / CLAMP)

    def _network(self, rows: Tensor, name: str) -> Tensor:
        for layer in range(3):
            rows = selu(rows) if layer else rows
            weight, bias = (self.weights[f"{name}_{layer}_{kind}"] for kind in ("weight", "bias"))
            rows = linear(rows, weight, bias)
        return rows
