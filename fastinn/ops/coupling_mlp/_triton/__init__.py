"""The Triton kernels: linear layers with the rest of the coupling in their epilogues."""

from fastinn.ops.coupling_mlp._triton._differentiate import differentiate
from fastinn.ops.coupling_mlp._triton._transform import transform

__all__ = ["differentiate", "transform"]
