"""Experiments on representation spaces."""

from fastinn.study.sanity import Recovery, sanity_check

__all__ = ["Recovery", "sanity_check"]
