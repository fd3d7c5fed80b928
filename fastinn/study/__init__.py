"""Experiments on representation spaces."""

from fastinn.study.layers import Comparison, compare
from fastinn.study.sanity import Recovery, sanity_check

__all__ = ["Comparison", "Recovery", "compare", "sanity_check"]
