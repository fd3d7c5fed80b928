"""Errors of the public functions: shapes, dtypes, devices and options."""

from collections.abc import Sequence
from itertools import pairwise
from typing import get_args

import torch
from torch import Tensor

from fastinn import _checks
from fastinn._types import Activation, Kept, Memory, Precision
from fastinn.ops.coupling_mlp._layer import Layer, halves

_N_LAYERS = range(2, 5)


def arguments(
    layer: Layer, name: str, rows: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> None:
    """Raise unless the arguments of a call make a coupling layer; ``name`` is that of ``rows``."""
    _options(layer)
    _rows(name, rows)
    _layers(weights, biases)
    for role, tensors in (("weights", weights), ("biases", biases)):
        for index, tensor in enumerate(tensors):
            _alike(name, rows, f"{role}[{index}]", tensor)
    _widths(layer, name, rows.shape[1], weights)


def memory(value: Memory) -> None:
    """Raise unless ``value`` is a way to keep activations."""
    _checks.one_of(value, get_args(Memory), "memory")


def gradient(name: str, tensor: Tensor, out: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless ``tensor`` is of this shape, and of the dtype and device of ``out``."""
    _same_shape(name, tensor, "out", shape)
    _alike("out", out, name, tensor)


def _same_shape(name: str, tensor: Tensor, other_name: str, shape: tuple[int, ...]) -> None:
    """Raise unless ``tensor`` has the shape that ``other_name`` asks for."""
    if tuple(tensor.shape) != shape:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, {other_name} asks for {tuple(shape)}"
        )


def _options(layer: Layer) -> None:
    _checks.one_of(layer.kept, get_args(Kept), "kept")
    _checks.one_of(layer.activation, get_args(Activation), "activation")
    _checks.one_of(layer.precision, get_args(Precision), "precision")
    if layer.clamp is not None and not layer.clamp > 0:
        raise ValueError(f"clamp is {layer.clamp}, expected a positive bound, or None for no clamp")


def _rows(name: str, rows: Tensor) -> None:
    if rows.ndim != 2:
        raise ValueError(f"{name} has shape {tuple(rows.shape)}, expected (n, d)")
    if rows.shape[1] < 2:
        raise ValueError(f"{name} has 1 feature or none, a coupling needs one to keep, one to move")
    if rows.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} is {rows.dtype}, expected float32 or float64; convert it first")


def _layers(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
    if len(weights) not in _N_LAYERS:
        raise ValueError(f"{len(weights)} weights, expected 2 to 4: one to three hidden layers")
    if len(weights) != len(biases):
        raise ValueError(f"{len(weights)} weights and {len(biases)} biases, expected one a layer")
    stack = weights[0].shape[:-2]
    if weights[0].ndim < 2 or stack not in ((), (2,)):
        raise ValueError(
            f"weights[0] has shape {tuple(weights[0].shape)}, expected (out, in), or (2, out, in) "
            "for two networks"
        )
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if weight.ndim != len(stack) + 2 or weight.shape[:-2] != stack:
            raise ValueError(
                f"weights[{index}] has shape {tuple(weight.shape)} and weights[0] has shape "
                f"{tuple(weights[0].shape)}: all must be matrices or all stacks of two"
            )
        _same_shape(f"biases[{index}]", bias, f"weights[{index}]", weight.shape[:-1])


def _alike(name: str, rows: Tensor, other_name: str, other: Tensor) -> None:
    if rows.dtype != other.dtype or rows.device != other.device:
        raise ValueError(
            f"{name} is {rows.dtype} on {rows.device} and {other_name} is {other.dtype} on "
            f"{other.device}: they must be the same"
        )


def _widths(layer: Layer, name: str, n_features: int, weights: Sequence[Tensor]) -> None:
    n_kept, n_moved = (len(range(n_features)[half]) for half in halves(n_features, layer.kept))
    if weights[0].shape[-1] != n_kept:
        raise ValueError(
            f"{name} keeps {n_kept} features (kept={layer.kept!r}), weights[0] reads "
            f"{weights[0].shape[-1]}"
        )
    for index, (weight, following) in enumerate(pairwise(weights)):
        if not weight.shape[-2]:
            raise ValueError(f"weights[{index}] gives no features, a hidden layer needs one")
        if weight.shape[-2] != following.shape[-1]:
            raise ValueError(
                f"weights[{index}] gives {weight.shape[-2]} features, weights[{index + 1}] reads "
                f"{following.shape[-1]}"
            )
    n_outputs = n_moved if weights[-1].ndim == 3 else 2 * n_moved
    if weights[-1].shape[-2] != n_outputs:
        raise ValueError(
            f"the last weights give {weights[-1].shape[-2]} features, {name} moves {n_moved} "
            f"(kept={layer.kept!r}) and needs {n_outputs}"
        )
