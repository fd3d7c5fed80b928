"""What is kept for each view, in a file: views by their place in a list."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fastinn._types import View


def view_to_json(view: View) -> Any:
    """Return a view as JSON holds it: a ``(seed, layer)`` pair, or a head of it, as a list."""
    return list(map(view_to_json, view)) if isinstance(view, tuple) else view


def view_from_json(saved: Any) -> View:
    """Undo :func:`view_to_json`."""
    return tuple(map(view_from_json, saved)) if isinstance(saved, list) else saved


def numbered(name: str, tensors: Mapping[View, Tensor]) -> dict[str, Tensor]:
    """Name the tensor of each view by its place."""
    return {f"{name}.{place}": tensor for place, tensor in enumerate(tensors.values())}


def of_views(name: str, tensors: Mapping[str, Tensor], views: Sequence[View]) -> dict[View, Tensor]:
    """Undo :func:`numbered`."""
    return {view: tensors[f"{name}.{place}"] for place, view in enumerate(views)}
