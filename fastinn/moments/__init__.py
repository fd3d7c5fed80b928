"""Means and covariances of many views of the same tokens, from one pass over the rows."""

from fastinn.moments._checkpoint import load_checkpoint, save_checkpoint
from fastinn.moments._mispaired import Mispaired
from fastinn.moments._moments import Moments
from fastinn.moments._products import Pairs
from fastinn.moments._storage import MomentsSize

__all__ = ["Mispaired", "Moments", "MomentsSize", "Pairs", "load_checkpoint", "save_checkpoint"]
