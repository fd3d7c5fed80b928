"""Experiments on representation spaces."""

from fastinn.study.attention import compare_attention
from fastinn.study.comparison import Comparison
from fastinn.study.layers import compare
from fastinn.study.sanity import Recovery, sanity_check
from fastinn.study.significance import Interval, bootstrap
from fastinn.study.stitching import Stitching, stitch

__all__ = [
    "Comparison",
    "Interval",
    "Recovery",
    "Stitching",
    "bootstrap",
    "compare",
    "compare_attention",
    "sanity_check",
    "stitch",
]
