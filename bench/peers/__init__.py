"""Other ways to compute the same, called through their public functions.

A module of ``peers.couplings`` has ``build(network, d)``, which returns a coupling layer of ``d``
features around ``network`` (from ``d // 2`` features to a shift and a log-scale of the others)
with ``forward(x) -> (y, log_det)`` and ``inverse(y) -> (x, log_det)``.

A module of ``peers.cca`` has ``directions(x, y)``, which returns the canonical directions of both
views of NumPy rows, one a column, by descending correlation.

``peers.padded_loop`` reads hidden states as tutorials do.
"""

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType

COUPLINGS = {
    "torch eager": "couplings.eager",
    "torch.compile": "couplings.compiled",
    "FrEIA": "couplings.freia",
    "normflows": "couplings.normflows",
    "zuko": "couplings.zuko",
}
CCA = {
    "numpy Cholesky + SVD": "cca.numpy_cholesky",
    "numpy pinv + SVD": "cca.numpy_pinv",
    "cca-zoo": "cca.cca_zoo",
    "scikit-learn": "cca.scikit_learn",
}


def load(modules: Mapping[str, str]) -> tuple[dict[str, ModuleType], dict[str, str]]:
    """Import peers; return those that are there, and of the others why not."""
    found, absent = {}, {}
    for name, module in modules.items():
        try:
            found[name] = import_module(f"peers.{module}")
        except ModuleNotFoundError as error:
            if str(error.name).startswith("peers"):
                raise
            absent[name] = f"{error.name} is not installed"
    return found, absent
