"""Packages that only some corpora take."""

from importlib import import_module
from typing import Any


def extra(module: str, use: str) -> Any:
    """Import a module of the extra ``datasets``.

    Args:
        module: Its full name.
        use: What takes it, for the error.

    Raises:
        ImportError: If it is not installed; says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{use} takes {module.split('.')[0]}, which cannot be imported ({error}): "
            "pip install 'fastinn[datasets]'"
        ) from None
