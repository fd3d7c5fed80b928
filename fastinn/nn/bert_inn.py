"""BERT-INN, the published bijection of Ren et al. 2023 (arXiv 2305.14555)."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from fastinn import _checks
from fastinn._types import Backend, Memory, Precision
from fastinn.nn.coupling import Coupling
from fastinn.nn.flow import Flow

Half: TypeAlias = Literal["even", "odd"]

_NAMES = ("shift", "log_scale")
_HALVES: tuple[Half, Half] = ("even", "odd")


class BertINN(Flow):
    """Two couplings, which move the odd and then the even features and share two networks.

    The published networks map all ``d`` features to all ``d``, with half of their input masked
    to zero and half of their output unused. Here the first layers are kept by input column and
    the last ones by output row, even and odd apart, so that a coupling multiplies only by what it
    uses. The middle layers and the first biases are the same parameters in both couplings.

    Build it with :func:`bert_inn`.
    """

    def __init__(
        self,
        published: Mapping[str, Tensor],
        *,
        precision: Precision,
        memory: Memory,
        backend: Backend | None,
    ) -> None:
        weights = [_stack(published, f"{i}.weight") for i in range(3)]
        biases = [_stack(published, f"{i}.bias") for i in range(3)]
        shared = nn.Parameter(weights[1]), nn.Parameter(biases[0]), nn.Parameter(biases[1])
        couplings = []
        for kept, moved in (_HALVES, _HALVES[::-1]):
            first, last = _every_other(weights[0], -1, kept), _every_other(weights[2], -2, moved)
            couplings.append(
                Coupling(
                    [nn.Parameter(first), shared[0], nn.Parameter(last)],
                    [*shared[1:], nn.Parameter(_every_other(biases[2], -1, moved))],
                    kept=kept,
                    activation="selu",
                    clamp=1.0,
                    eps=1e-8,
                    precision=precision,
                    memory=memory,
                    backend=backend,
                )
            )
        super().__init__(*couplings, memory=memory)

    def to_published(self) -> dict[str, Tensor]:
        """Return the full-width weights: ``shift`` and ``log_scale``, layers 0, 1 and 2."""
        even, odd = (layer for layer in self.layers if isinstance(layer, Coupling))
        # The coupling that keeps the odd features is the one whose outputs are the even ones.
        stacks = {
            "0.weight": _interleave(even.weights[0], odd.weights[0], -1),
            "0.bias": even.biases[0],
            "1.weight": even.weights[1],
            "1.bias": even.biases[1],
            "2.weight": _interleave(odd.weights[2], even.weights[2], -2),
            "2.bias": _interleave(odd.biases[2], even.biases[2], -1),
        }
        return {
            f"{name}.{key}": stack[k].detach().clone()
            for k, name in enumerate(_NAMES)
            for key, stack in stacks.items()
        }


def bert_inn(
    d: int,
    *,
    published: Mapping[str, Tensor] | None = None,
    precision: Precision = "exact",
    memory: Memory = "store",
    backend: Backend | None = None,
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
        precision: Rounding of the networks' products, see :func:`fastinn.ops.coupling_mlp`. The
            features themselves keep their dtype in all three.
        memory: What the backward pass reads, see :class:`Flow`.
        backend: Kernel to use; ``None`` picks the fastest for the device.

    Returns:
        A flow whose ``to_published()`` gives the full-width weights back.

    Raises:
        ValueError: If ``d`` is below 2, an option is unknown, or ``published`` lacks a key or has
            one of another shape.

    Source: Ren et al. 2023, All Roads Lead to Rome?, arXiv 2305.14555, section 3.
    """
    _checks.at_least(d, 2, "d")
    if published is None:
        published = _drawn(d)
    _check_layout(published, d)
    return BertINN(published, precision=precision, memory=memory, backend=backend)


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


def _stack(published: Mapping[str, Tensor], key: str) -> Tensor:
    """Return one tensor of both networks, that of the shift first."""
    return torch.stack([published[f"{name}.{key}"] for name in _NAMES])


def _every_other(tensor: Tensor, dim: int, half: Half) -> Tensor:
    index = torch.arange(_HALVES.index(half), tensor.shape[dim], 2, device=tensor.device)
    return tensor.index_select(dim, index)


def _interleave(even: Tensor, odd: Tensor, dim: int) -> Tensor:
    """Put the halves of a dimension back in turn; ``even`` may have one more."""
    even, odd = even.movedim(dim, 0), odd.movedim(dim, 0)
    whole = even.new_empty(len(even) + len(odd), *even.shape[1:])
    whole[::2], whole[1::2] = even, odd
    return whole.movedim(0, dim)
