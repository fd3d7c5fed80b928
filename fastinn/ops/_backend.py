"""Which backends there are, why not, and which one computes a call."""

import functools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Literal, get_args

import torch

from fastinn._checks import one_of
from fastinn._types import Backend

_BACKENDS: tuple[Backend, ...] = get_args(Backend)

# What a call that names no backend tries on each kind of device, fastest first.
_FASTEST: dict[str, tuple[Backend, ...]] = {"cpu": ("cpu",), "cuda": ("cuda", "triton")}

# Compute capability of the oldest GPU that CMakeLists.txt compiles CUDA kernels for.
_OLDEST_GPU = (8, 0)

_kernels: dict[str, tuple[Backend, ...]] = {}
_float32_only: dict[str, tuple[Backend, ...]] = {}
_forced: ContextVar[Backend | None] = ContextVar("fastinn_backend", default=None)


class BackendUnavailableError(RuntimeError):
    """A backend was asked for by name and cannot compute the call."""


def declare(op: str, *kernels: Backend, float32_only: tuple[Backend, ...] = ()) -> None:
    """Enter ``op`` in the table of :func:`backends`, with what it has besides the reference.

    Args:
        op: Name of the op.
        kernels: Its backends.
        float32_only: Those of them that do not compute in float64.
    """
    _kernels[op], _float32_only[op] = kernels, float32_only


def backends() -> dict[str, dict[Backend, Literal[True] | str]]:
    """Say what can compute each op on this machine.

    Returns:
        ``{op: {backend: True}}``, with the reason why not in the place of ``True``.
    """
    return {op: {name: _obstacle(op, name) or True for name in _BACKENDS} for op in _kernels}


@contextmanager
def use_backend(name: Backend) -> Iterator[None]:
    """Let ``name`` compute the ops that are called in the ``with`` block and name no backend.

    Args:
        name: ``"reference"``, ``"cpu"``, ``"triton"`` or ``"cuda"``. An op that it cannot compute
            raises :class:`BackendUnavailableError`.

    Raises:
        ValueError: If there is no backend of that name.
    """
    one_of(name, _BACKENDS, "backend")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def named_backend() -> Backend | None:
    """Return what :func:`use_backend` has named for the calls that name no backend."""
    return _forced.get()


def resolve(
    op: str, backend: Backend | None, device: str, dtype: torch.dtype = torch.float32
) -> Backend:
    """Choose who computes ``op``.

    Args:
        op: Name of a declared op.
        backend: Backend asked for; ``None`` takes that of :func:`use_backend`, else the fastest.
        device: Where the tensors are, ``"cpu"`` or ``"cuda"``.
        dtype: What the tensors hold.

    Raises:
        ValueError: If there is no backend of that name.
        BackendUnavailableError: If a named backend cannot compute this call.
    """
    named = backend or named_backend()
    if named is None:
        return _fastest(op, device, dtype)
    one_of(named, _BACKENDS, "backend")
    if reason := _obstacle(op, named) or _misfit(op, named, device, dtype):
        raise BackendUnavailableError(
            f"backend {named!r} cannot compute {op} on {device} tensors: {reason}; "
            f"available here: {', '.join(_available(op))}"
        )
    return named


# Constant under torch.compile: they depend on what is installed and asked for, not on any values.
# This is what torch.compiler.assume_constant_result does, but that imports the compiler, which
# takes nearly as long as all the rest that fastinn.ops imports.
named_backend._dynamo_marked_constant = True  # type: ignore[attr-defined]
resolve._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _fastest(op: str, device: str, dtype: torch.dtype) -> Backend:
    if device == "cuda" and "cuda" in _kernels[op]:
        _warn_if_cuda_was_not_built()
    for name in _FASTEST.get(device, ()):
        if (_obstacle(op, name) or _misfit(op, name, device, dtype)) is None:
            return name
    return "reference"


def _available(op: str) -> list[Backend]:
    return [name for name in _BACKENDS if _obstacle(op, name) is None]


def _obstacle(op: str, backend: Backend) -> str | None:
    """Return why ``backend`` cannot compute ``op`` on this machine, with the remedy."""
    if backend == "reference":
        return None
    if backend not in _kernels[op]:
        return f"{op} has no {backend} kernel"
    return _OBSTACLES[backend]()


def _misfit(op: str, backend: Backend, device: str, dtype: torch.dtype) -> str | None:
    """Return why ``backend`` cannot compute ``op`` on tensors of this kind."""
    if dtype == torch.float64 and backend in _float32_only[op]:
        return "it has no float64 kernel, convert them to float32"
    home = {"reference": device, "cpu": "cpu", "cuda": "cuda", "triton": "cuda"}[backend]
    if device == home or (backend == "triton" and _interpreted()):
        return None
    return f"move them to {home}"


def _cpu_obstacle() -> str | None:
    if _is_installed("fastinn._cpu"):
        return None
    return "fastinn._cpu is not built, reinstall fastinn where there is a C++ compiler"


def _cuda_obstacle() -> str | None:
    if not _is_installed("fastinn._cuda"):
        return "fastinn._cuda is not built, reinstall fastinn with FASTINN_CUDA=ON and nvcc"
    if not torch.cuda.is_available():
        return "no CUDA device is visible"
    if (found := torch.cuda.get_device_capability()) < _OLDEST_GPU:
        oldest, here = (f"{major}.{minor}" for major, minor in (_OLDEST_GPU, found))
        return f"its kernels need compute capability {oldest}, this GPU has {here}"
    return None


def _triton_obstacle() -> str | None:
    if not _is_installed("triton"):
        return "triton is not installed, pip install 'fastinn[triton]'"
    if torch.cuda.is_available() or _interpreted():
        return None
    return "no CUDA device is visible (TRITON_INTERPRET=1 runs it on the CPU, for tests)"


_OBSTACLES: dict[Backend, Callable[[], str | None]] = {
    "cpu": _cpu_obstacle,
    "cuda": _cuda_obstacle,
    "triton": _triton_obstacle,
}


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _is_installed(module: str) -> bool:
    return find_spec(module) is not None


@functools.cache
def _warn_if_cuda_was_not_built() -> None:
    if not _is_installed("fastinn._cuda"):
        warnings.warn(
            "a CUDA device is there but fastinn._cuda is not built, so slower kernels are used; "
            "reinstall fastinn with FASTINN_CUDA=ON and nvcc",
            RuntimeWarning,
            stacklevel=2,
        )
