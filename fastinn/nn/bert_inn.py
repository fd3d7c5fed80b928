"""BERT-INN, the published bijection of Ren et al. 2023 (arXiv 2305.14555)."""

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, selu

from fastinn import _checks
from fastinn._types import Precision
from fastinn.nn._precision import PRECISIONS, products
from fastinn.nn.flow import Flow
from fastinn.ops import affine_coupling, affine_coupling_inverse

Half: TypeAlias = Literal["even", "odd"]

_CLAMP, _EPS = 1.0, 1e-8
_NAMES = ("shift", "log_scale")
_HALVES: tuple[Half, Half] = ("even", "odd")


class BertINN(Flow):
    """Two coupling passes, over the odd and then the even features, that share two networks.

    The published networks map all ``d`` features to all ``d``, with half of their input masked
    to zero and half of their output unused. Here the first layers are kept by input column and
    the last ones by output row, even and odd apart, so that a pass multiplies only by what it
    uses; the first layers of both networks read the same input and are one product.

    Build it with :func:`bert_inn`.
    """

    def __init__(self, published: Mapping[str, Tensor], *, precision: Precision) -> None:
        super().__init__()
        self.precision = precision
        weight = torch.cat([published[f"{name}.0.weight"] for name in _NAMES])
        self.first = nn.ParameterDict({h: _every_other(weight.mT, h).mT for h in _HALVES})
        self.first_bias = nn.Parameter(torch.cat([published[f"{name}.0.bias"] for name in _NAMES]))
        self.shift, self.log_scale = (_Rest(published, name) for name in _NAMES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows ``x``, shape ``(n, d)``, to ``y`` and ``log|det dy/dx|``, shape ``(n,)``."""
        even, odd = x[:, ::2].contiguous(), x[:, 1::2]
        odd, log_det_odd = self._pass(affine_coupling, odd, even, "even")
        even, log_det_even = self._pass(affine_coupling, even, odd, "odd")
        return _interleave(even, odd), log_det_odd + log_det_even

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows ``y``, shape ``(n, d)``, to ``x`` and ``log|det dx/dy|``, shape ``(n,)``."""
        even, odd = y[:, ::2], y[:, 1::2].contiguous()
        even, log_det_even = self._pass(affine_coupling_inverse, even, odd, "odd")
        odd, log_det_odd = self._pass(affine_coupling_inverse, odd, even, "even")
        return _interleave(even, odd), log_det_odd + log_det_even

    def to_published(self) -> dict[str, Tensor]:
        """Return the full-width weights: ``shift`` and ``log_scale``, layers 0, 1 and 2."""
        weights = _interleave(self.first["even"], self.first["odd"]).chunk(2)
        biases = self.first_bias.chunk(2)
        layout: dict[str, Tensor] = {}
        for name, rest, weight, bias in zip(
            _NAMES, (self.shift, self.log_scale), weights, biases, strict=True
        ):
            layers = {"0.weight": weight, "0.bias": bias, **rest.published()}
            layout |= {f"{name}.{key}": value.detach().clone() for key, value in layers.items()}
        return layout

    def _pass(
        self, op: Callable[..., tuple[Tensor, Tensor]], moved: Tensor, kept: Tensor, half: Half
    ) -> tuple[Tensor, Tensor]:
        """Apply ``op`` to ``moved``; the networks read ``kept``, which is the half ``half``."""
        other: Half = "odd" if half == "even" else "even"
        with products(self.precision, kept):
            first = selu(linear(kept, self.first[half], self.first_bias))
            of_shift, of_log_scale = first.chunk(2, dim=1)
            shift = self.shift(of_shift, other).to(kept.dtype)
            log_scale = self.log_scale(of_log_scale, other).to(kept.dtype)
        return op(moved, shift, log_scale, clamp=_CLAMP, eps=_EPS)


class _Rest(nn.Module):
    """The second and third layer of one network."""

    def __init__(self, published: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        weight, bias = published[f"{name}.2.weight"], published[f"{name}.2.bias"]
        self.middle = _linear(published[f"{name}.1.weight"], published[f"{name}.1.bias"])
        self.even, self.odd = (
            _linear(_every_other(weight, half), _every_other(bias, half)) for half in _HALVES
        )

    def forward(self, hidden: Tensor, half: Half) -> Tensor:
        last = self.even if half == "even" else self.odd
        out: Tensor = last(selu(self.middle(hidden)))
        return out

    def published(self) -> dict[str, Tensor]:
        return {
            "1.weight": self.middle.weight,
            "1.bias": self.middle.bias,
            "2.weight": _interleave(self.even.weight.mT, self.odd.weight.mT).mT,
            "2.bias": _interleave(self.even.bias[None], self.odd.bias[None])[0],
        }


def bert_inn(
    d: int, *, published: Mapping[str, Tensor] | None = None, precision: Precision = "exact"
) -> BertINN:
    r"""Build the bijection of Ren et al.

    With :math:`e` and :math:`o` the even and odd features, :math:`F_s` and :math:`F_t` networks
    ``Linear(d, 4d) - SELU - Linear(4d, 4d) - SELU - Linear(4d, d)``, :math:`l(u) = \tanh F_s(u)`
    and :math:`\sigma = e^l + 10^{-8}`:

    .. math::
        y_o &= x_o \odot \sigma(x_e)_o + F_t(x_e)_o \\
        y_e &= x_e \odot \sigma(y_o)_e + F_t(y_o)_e

    and the log-determinant is the sum of the :math:`l` that were used.

    Args:
        d: Number of features, at least 2; odd widths have one even feature more.
        published: Full-width weights with the keys ``shift.{0,1,2}.{weight,bias}`` and
            ``log_scale.{0,1,2}.{weight,bias}``; by default drawn like those of ``nn.Linear``.
        precision: Rounding of the networks' products; ``"fast"`` uses bfloat16, ``"high"`` is the
            same as ``"exact"``. The features themselves keep their dtype in all three.

    Returns:
        A flow whose ``to_published()`` gives the full-width weights back.

    Raises:
        ValueError: If ``d`` is below 2, or ``published`` lacks a key or has one of another shape.

    Source: Ren et al. 2023, All Roads Lead to Rome?, arXiv 2305.14555, section 3.
    """
    _checks.at_least(d, 2, "d")
    _checks.one_of(precision, PRECISIONS, "precision")
    if published is None:
        published = _drawn(d)
    _check_layout(published, d)
    return BertINN(published, precision=precision)


def _shapes(d: int) -> dict[str, tuple[int, int]]:
    """Return ``(out, in)`` of each linear layer of the published layout."""
    layers = ((4 * d, d), (4 * d, 4 * d), (d, 4 * d))
    return {f"{name}.{i}": layer for name in _NAMES for i, layer in enumerate(layers)}


def _drawn(d: int) -> dict[str, Tensor]:
    modules = {name: nn.Linear(width, out) for name, (out, width) in _shapes(d).items()}
    return {
        f"{name}.{kind}": getattr(module, kind).detach()
        for name, module in modules.items()
        for kind in ("weight", "bias")
    }


def _check_layout(published: Mapping[str, Tensor], d: int) -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for name, shape in _shapes(d).items():
        expected |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    if published.keys() != expected.keys():
        raise ValueError(
            f"published lacks {sorted(expected.keys() - published.keys())} and has unknown "
            f"{sorted(published.keys() - expected.keys())}; rename its keys to the layout"
        )
    for key, needed in expected.items():
        if published[key].shape != needed:
            raise ValueError(
                f"published {key} has shape {tuple(published[key].shape)}, d = {d} needs {needed}"
            )


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return layer


def _every_other(tensor: Tensor, half: Half) -> Tensor:
    return tensor[_HALVES.index(half) :: 2].contiguous()


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    """Put the columns of two matrices back in turn; ``even`` may have one more."""
    whole = even.new_empty(len(even), even.shape[1] + odd.shape[1])
    whole[:, ::2], whole[:, 1::2] = even, odd
    return whole
