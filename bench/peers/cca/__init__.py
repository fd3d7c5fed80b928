"""Canonical correlation analyses; see :mod:`peers`."""
