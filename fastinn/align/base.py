"""What every aligner does: fit on paired rows, transform, score, save and load."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from inspect import isabstract
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, ParamSpec, Self, TypeVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

import fastinn
from fastinn import _checks
from fastinn._arrays import like
from fastinn._saved import load_tensors, save_tensors, write_whole
from fastinn._types import Array

P = ParamSpec("P")
R = TypeVar("R")

_RECORD, _TENSORS = "aligner.json", "aligner.safetensors"

# What comes of a record that does not fit the class or the tensors beside it.
_UNFIT = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)


def whole_or_not(method: Callable[P, R]) -> Callable[P, R]:
    """Make a method that fits leave its estimator as it was if it fails.

    Half of a fit beside half of the one before would map rows wrongly. What was fitted before is
    held until the new fit is whole.
    """

    @wraps(method)
    def fit(*args: P.args, **options: P.kwargs) -> R:
        estimator, before = args[0], dict(vars(args[0]))
        try:
            return method(*args, **options)
        except BaseException:
            estimator.__dict__.clear()
            estimator.__dict__.update(before)
            raise

    return fit


class Estimator(BaseEstimator, ABC):
    """What is fitted, written to a folder and read back by :func:`load_aligner`."""

    # Fitted attributes without which what is read back could not be used.
    _always: ClassVar[tuple[str, ...]] = ()

    def save(self, path: str | PathLike[str]) -> None:
        """Write the fitted estimator to the folder ``path`` as JSON and safetensors.

        An estimator that was saved there before is replaced.

        Raises:
            NotFittedError: If the estimator is not fitted.
            NotADirectoryError: If ``path`` is a file.
        """
        check_is_fitted(self)
        tensors, attributes = self._state()
        record = {
            "class": type(self).__name__,
            "fastinn": fastinn.__version__,
            "params": self._saved_params(),
            "attributes": attributes,
        }
        text = json.dumps(plain(record), indent=1).encode()
        folder = Path(path)
        if folder.is_file():
            raise NotADirectoryError(f"{folder} is a file; give a folder, or remove it")
        folder.mkdir(parents=True, exist_ok=True)
        # The tensors' file vouches for the record, so a mixture of two saves is noticed.
        save_tensors(folder / _TENSORS, tensors, {_RECORD: _sha256(text)})
        write_whole(folder / _RECORD, text)

    def _saved_params(self) -> dict[str, Any]:
        """Return the parameters of the constructor as JSON can hold them."""
        return self.get_params(deep=False)

    @classmethod
    def _with_params(cls, params: dict[str, Any]) -> Self:
        """Return an unfitted estimator of these :meth:`_saved_params`."""
        return cls(**params)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the fitted tensors and the other fitted attributes, which JSON can hold."""
        fitted = {name: value for name, value in vars(self).items() if name.endswith("_")}
        tensors = {name: value for name, value in fitted.items() if isinstance(value, Tensor)}
        return tensors, {name: fitted[name] for name in fitted.keys() - tensors.keys()}

    def _restore(self, tensors: dict[str, Tensor], attributes: dict[str, Any]) -> None:
        """Become the estimator whose :meth:`_state` this is."""
        for name, value in {**attributes, **tensors}.items():
            if name.startswith("_") or not name.endswith("_"):
                raise ValueError(f"{name!r} is no fitted attribute; save it again")
            setattr(self, name, value)
        if missing := [name for name in self._always if not hasattr(self, name)]:
            raise ValueError(f"the fitted attribute {missing[0]!r} is missing")


class Aligner(Estimator):
    """A map from a source space into a target space, learned from paired rows.

    Attributes:
        n_features_in_: Width of the source space.
        n_features_out_: Width of the target space.
    """

    n_features_in_: int
    n_features_out_: int
    _always: ClassVar[tuple[str, ...]] = ("n_features_in_", "n_features_out_")

    @abstractmethod
    def fit(self, X: Array, Y: Array) -> Self:
        """Learn the map from rows ``X`` to rows ``Y``; row ``i`` is the same token in both."""

    @abstractmethod
    def _transform(self, x: Tensor) -> Tensor:
        """Map checked rows; the result may have any floating-point dtype."""

    def transform(self, X: Array) -> Array:
        """Map rows into the target space, on the device of the rows: what is fitted follows them.

        Args:
            X: Source rows, shape ``(n, n_features_in_)``.

        Returns:
            Target rows, shape ``(n, n_features_out_)``, in the kind, dtype and device of ``X``.

        Raises:
            NotFittedError: If the aligner is not fitted.
            ValueError: If ``X`` has another width, or holds NaN or infinity.
        """
        x = self._checked(X, "X", "n_features_in_")
        return returned(self._transform(x), x, X)

    def score(self, X: Array, Y: Array) -> float:
        """Return the variance-weighted R2 of ``transform(X)`` against ``Y``.

        Raises:
            NotFittedError: If the aligner is not fitted.
            ValueError: If numbers of rows or widths differ, a row holds NaN or infinity, or the
                rows of ``Y`` are all equal.
        """
        x, y = self._checked_pair(X, Y)
        return r2(y, self.transform(x))

    def _checked_pair(self, X: Array, Y: Array) -> tuple[Tensor, Tensor]:
        """Return paired rows as tensors, each checked against the width it was fitted on."""
        x, y = self._checked(X, "X", "n_features_in_"), self._checked(Y, "Y", "n_features_out_")
        _checks.same_rows(x, y, ("X", "Y"))
        return x, y

    def _checked(self, rows: Array, name: str, width: str) -> Tensor:
        """Return ``rows`` as a tensor, checked against the fitted attribute ``width``."""
        check_is_fitted(self)
        checked = _checks.rows(rows, name)
        _checks.n_features(checked, getattr(self, width), name)
        return checked


class Bijection(Aligner):
    """An aligner that also maps target rows back into the source space."""

    @abstractmethod
    def _inverse_transform(self, y: Tensor) -> Tensor:
        """Map checked target rows back; the result may have any floating-point dtype."""

    def inverse_transform(self, Y: Array) -> Array:
        """Map target rows, shape ``(n, n_features_out_)``, back into the source space.

        Returns:
            Source rows, shape ``(n, n_features_in_)``, in the kind, dtype and device of ``Y``.

        Raises:
            NotFittedError: If the aligner is not fitted.
            ValueError: If ``Y`` has another width, or holds NaN or infinity.
        """
        y = self._checked(Y, "Y", "n_features_out_")
        return returned(self._inverse_transform(y), y, Y)

    def score_inverse(self, X: Array, Y: Array) -> float:
        """Return the variance-weighted R2 of ``inverse_transform(Y)`` against ``X``.

        Raises:
            NotFittedError: If the aligner is not fitted.
            ValueError: As in :meth:`score`, of the rows of ``X``.
        """
        x, y = self._checked_pair(X, Y)
        return r2(x, self.inverse_transform(y))


def r2(true: Tensor, predicted: Tensor) -> float:
    """Return the variance-weighted R2 of paired rows, accumulated in float64.

    Raises:
        ValueError: If the true rows are all equal, which leaves R2 undefined.
    """
    true, predicted = true.double(), predicted.double()
    variation = float((true - true.mean(dim=0)).square().sum())
    _checks.varying(variation, "the true rows")
    return 1 - float((true - predicted).square().sum()) / variation


def load_aligner(path: str | PathLike[str]) -> Any:
    """Read an aligner, a hub or a consensus that its ``save`` wrote.

    Args:
        path: The folder.

    Raises:
        FileNotFoundError: If the folder or one of its two files is missing.
        ValueError: If a file is damaged, the two are of different saves or do not fit, or the
            class is unknown.
    """
    folder = Path(path)
    text = _read(folder / _RECORD)
    tensors, metadata = load_tensors(folder / _TENSORS)
    if metadata.get(_RECORD) != _sha256(text):
        raise ValueError(
            f"{folder / _RECORD} is damaged or of another save than {_TENSORS}; save it again"
        )
    try:
        record = json.loads(text)
        aligner = estimator_class(record["class"])._with_params(record["params"])
        aligner._restore(tensors, record["attributes"])
    except _UNFIT as error:
        raise ValueError(
            f"{folder / _RECORD} does not describe what {_TENSORS} holds "
            f"({type(error).__name__}: {error}); save it again"
        ) from error
    return aligner


def estimator_class(name: str) -> type[Estimator]:
    """Return the public class of :mod:`fastinn.align` of this name."""
    from fastinn import align  # here because the package imports this module first

    found = getattr(align, name) if name in align.__all__ else None
    if not (isinstance(found, type) and issubclass(found, Estimator)) or isabstract(found):
        raise ValueError(
            f"class {name!r} is not an aligner of fastinn {fastinn.__version__}; "
            "load it with the version that saved it"
        )
    return found


def plain(value: Any) -> Any:
    """Return what may hold NumPy numbers and arrays as JSON can hold it."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return {k: plain(part) for k, part in value.items()} if isinstance(value, dict) else value


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: {path.parent} is not a saved aligner")
    return path.read_bytes()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class OverflowedRowsError(ValueError):
    """Rows went where their dtype does not reach, as by the inverse of a map trained one way."""


def returned(result: Tensor, rows: Tensor, kind: Array) -> Array:
    """Give ``result`` back as the caller's kind and dtype.

    Raises:
        OverflowedRowsError: If a row of it holds NaN or infinity.
    """
    converted = result.to(rows.dtype)
    try:
        _checks.finite(converted, f"the result in {rows.dtype}")
    except ValueError as error:
        raise OverflowedRowsError(str(error)) from None
    return like(converted, kind)
