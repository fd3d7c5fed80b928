"""Packages that only some corpora take."""

from importlib import import_module
from typing import Any

_EXTRA = {"datasets": "datasets", "pyarrow": "arrow"}
"""Extra of the package that brings a library."""


def extra(module: str, use: str) -> Any:
    """Import a module of a library that only an extra brings.

    Args:
        module: Its full name.
        use: What takes it, for the error.

    Raises:
        ImportError: If it is not installed; says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        library = module.split(".")[0]
        raise ImportError(
            f"{use} takes {library}, which cannot be imported ({error}): "
            f"pip install 'fastinn[{_EXTRA[library]}]'"
        ) from None
