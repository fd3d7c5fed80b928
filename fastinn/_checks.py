"""One place for shape, dtype and finiteness errors."""

import torch
from torch import Tensor

from fastinn._arrays import as_tensor
from fastinn._types import Array


def rows(array: Array, name: str = "x") -> Tensor:
    """Check that ``array`` is a non-empty, finite matrix of samples by features.

    Args:
        array: Candidate of shape ``(n_samples, n_features)``.
        name: What to call it in an error.

    Returns:
        A floating-point tensor; integers become float64.

    Raises:
        ValueError: If it is not 2-D, is empty, holds anything but real numbers, or NaN or infinity
            (the row is named).
    """
    x = matrix(array, name)
    finite(x, name)
    return x


def matrix(array: Array, name: str = "x") -> Tensor:
    """Check what :func:`rows` does, but not that entries are finite."""
    x = _numbers(array, name)
    if x.ndim != 2:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}, expected (n_samples, n_features); "
            "flatten the leading dimensions first"
        )
    if 0 in x.shape:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: there is nothing in it to align")
    return x if x.is_floating_point() else x.double()


def _numbers(array: Array, name: str) -> Tensor:
    try:
        x = as_tensor(array)
    except (TypeError, ValueError, RuntimeError, LookupError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{name} is no matrix of numbers: {reason}; pass a tensor or an array (of a DataFrame "
            "x.to_numpy())"
        ) from error
    if x.is_complex():
        raise ValueError(f"{name} holds complex numbers; pass real rows, such as x.real")
    return x


def finite(x: Tensor, name: str = "x") -> None:
    """Raise ``ValueError`` that names the first row of ``x`` with NaN or infinity."""
    # The sum is finite unless a row is bad (or overflows), and costs a tenth of the full check.
    if torch.isfinite(x.sum(dtype=torch.promote_types(x.dtype, torch.float32))):
        return
    bad = (~torch.isfinite(x)).any(dim=1).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"{name} holds NaN or infinity in {len(bad)} of {len(x)} rows, first in row "
            f"{int(bad[0])}; drop those rows or mend what produced them"
        )


def varying(variation: float, what: str, score: str = "R2") -> None:
    """Raise ``ValueError`` if ``what``, in the plural, has no ``variation`` to score by."""
    if variation <= 0:  # NaN is no lack of it
        raise ValueError(
            f"{score} is undefined: {what} are all equal, or only one; pass rows that vary"
        )


def finite_matrices(x: Tensor, name: str) -> None:
    """Raise ``ValueError`` that names the first matrix of a batch with NaN or infinity."""
    bad = ~torch.isfinite(x).all(dim=-1).all(dim=-1)
    if bad.any():
        raise ValueError(
            f"{in_batch(name, bad)} holds NaN or infinity; mend or drop the rows it came from"
        )


def in_batch(name: str, found: Tensor) -> str:
    """Return what to call the first matrix of a batch for which ``found`` is true."""
    if found.ndim == 0:
        return name
    index = [int(i) for i in found.nonzero()[0]]
    return f"{name}[{', '.join(map(str, index))}]"


def paired(x: Array, y: Array, names: tuple[str, str] = ("x", "y")) -> tuple[Tensor, Tensor]:
    """Check two matrices whose row ``i`` is the same sample; see :func:`rows`."""
    a, b = rows(x, names[0]), rows(y, names[1])
    same_rows(a, b, names)
    return a, b


def same_rows(x: Tensor, y: Tensor, names: tuple[str, str] = ("x", "y")) -> None:
    """Raise ``ValueError`` unless ``x`` and ``y`` have as many rows."""
    if len(x) != len(y):
        raise ValueError(
            f"{names[0]} has {len(x)} rows and {names[1]} has {len(y)}: row i must be the same "
            "token in both; extract both from the same corpus with the same tokenizer"
        )


def n_features(
    x: Tensor, expected: int, name: str, fitted_on: str = "the aligner was fitted on"
) -> None:
    """Raise ``ValueError`` unless ``x`` has ``expected`` columns."""
    if x.shape[1] != expected:
        raise ValueError(f"{name} has {x.shape[1]} features, {fitted_on} {expected}")


def one_of(value: object, allowed: tuple[object, ...], name: str) -> None:
    """Raise ``ValueError`` that lists what is allowed unless ``value`` is one of it."""
    if value not in allowed:
        listed = ", ".join(repr(item) for item in allowed)
        raise ValueError(f"{name} is {value!r}, expected one of {listed}")


def at_least(value: float, minimum: float, name: str) -> None:
    """Raise ``ValueError`` unless ``value`` is at least ``minimum``."""
    if not value >= minimum:
        raise ValueError(f"{name} is {value}, expected at least {minimum}")
