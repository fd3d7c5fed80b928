"""Differentiable functions on tensors, each with a plain reference and compiled kernels."""

from fastinn.ops._backend import BackendUnavailableError, backends, use_backend
from fastinn.ops.affine_coupling import affine_coupling, affine_coupling_inverse
from fastinn.ops.coupling_mlp import (
    CouplingGradients,
    coupling_mlp,
    coupling_mlp_inverse,
    coupling_mlp_vjp,
)
from fastinn.ops.second_moments import second_moments
from fastinn.ops.whiten import Whitening, principal_whiten, whiten

__all__ = [
    "BackendUnavailableError",
    "CouplingGradients",
    "Whitening",
    "affine_coupling",
    "affine_coupling_inverse",
    "backends",
    "coupling_mlp",
    "coupling_mlp_inverse",
    "coupling_mlp_vjp",
    "principal_whiten",
    "second_moments",
    "use_backend",
    "whiten",
]
