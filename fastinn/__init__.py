"""Align the representation spaces of Transformers at corpus scale."""

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("fastinn")

# Public name -> module that defines it. Loaded on first use, so that `import fastinn` stays
# cheap: transformers and scikit-learn alone cost seconds.
_HOMES = {
    "BackendUnavailableError": "fastinn.ops",
    "Corpus": "fastinn.embed",
    "EmbeddingStore": "fastinn.embed",
    "Encoder": "fastinn.embed",
    "Moments": "fastinn.moments",
    "backends": "fastinn.ops",
    "load_aligner": "fastinn.align",
    "stream": "fastinn.embed",
    "use_backend": "fastinn.ops",
}
_MODULES = ("align", "distributed", "embed", "metrics", "moments", "nn", "ops", "report", "study")

__all__ = ["__version__", *sorted(_HOMES), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"fastinn.{name}")
    raise AttributeError(f"module 'fastinn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
