"""Several processes that share one piece of work: their ranks, and what they tell each other.

``torchrun`` starts the processes, here or on many machines; nothing in here does anything in a
single process. Messages are tensors of numbers or JSON, never pickle.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from fastinn._heartbeats import Heartbeats

T = TypeVar("T")

TIMEOUT = "FASTINN_TIMEOUT"
"""Environment variable: seconds that a rank waits for the others; half an hour without it."""

_SECONDS = 1800.0

_n_meetings = 0


def rank() -> int:
    """Return the number of this process, counted from 0."""
    return dist.get_rank() if _is_started() else 0


def world_size() -> int:
    """Return the number of processes that work together."""
    return dist.get_world_size() if _is_started() else 1


def is_main() -> bool:
    """Whether this is the process that prints and writes reports: rank 0."""
    return rank() == 0


@contextmanager
def started() -> Iterator[None]:
    """Join the processes that ``torchrun`` started, for as long as the block lasts.

    Tensors on the CPU are exchanged by gloo, on CUDA by nccl; each process takes the GPU of its
    local rank. Does nothing where ``torchrun`` started a single process or none.

    Raises:
        ConnectionError: If the others are not there in time.
        ValueError: If a process has no GPU of its own, or a group that was started before cannot
            exchange tensors on the CPU.
    """
    if _is_started() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        _check_group()
        yield
        return
    on_cuda = torch.cuda.is_available()
    if on_cuda:
        torch.cuda.set_device(_own_gpu())
    with meeting("joining the other ranks"):
        _join("cpu:gloo,cuda:nccl" if on_cuda else "gloo", timedelta(seconds=_timeout()))
    try:
        yield
    except SystemExit:  # of all ranks alike: one that is left in the group may be aborted
        dist.destroy_process_group()
        raise
    # Not after an error: peers that do not answer would hold it up, and the process ends anyway.
    dist.destroy_process_group()


def _check_group() -> None:
    if _is_started() and "cpu:" not in (found := dist.get_backend_config()):
        raise ValueError(
            f"the process group is {found}, and what is told from rank to rank is on the CPU; "
            "start it with the backend cpu:gloo,cuda:nccl"
        )


def _own_gpu() -> int:
    own, n = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if own >= n:
        raise ValueError(
            f"LOCAL_RANK is {own} and this process sees {n} GPUs; start as many ranks as there are "
            "GPUs, each of which sees all of them"
        )
    return own


@contextmanager
def meeting(what: str) -> Iterator[None]:
    """Name the rank and ``what`` it was doing if the other ranks do not take part.

    Raises:
        ConnectionError: Instead of the error of ``torch.distributed``.
    """
    try:
        yield
    except RuntimeError as error:
        here, n = os.environ.get("RANK", rank()), os.environ.get("WORLD_SIZE", world_size())
        reason = str(error).strip().splitlines()[0]
        raise ConnectionError(
            f"rank {here} of {n}: {what} failed, a rank has ended or did not answer in "
            f"{_timeout():.0f} s ({reason}); start all ranks again, checkpoints go on"
        ) from error


def broadcast(value: Any) -> Any:
    """Return on every rank what rank 0 passes.

    Args:
        value: Anything that JSON can hold; only that of rank 0 matters.
    """
    if world_size() == 1:
        return value
    with meeting("broadcasting from rank 0"):
        text = _bytes(value) if is_main() else torch.empty(0, dtype=torch.uint8)
        length = torch.tensor(len(text))
        dist.broadcast(length, src=0)
        text = text if is_main() else torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(text, src=0)
    return _value(text)


def gather(value: Any) -> list[Any]:
    """Return what each rank passes, by rank, on every rank.

    Args:
        value: Anything that JSON can hold.
    """
    return [_value(text) for text in gather_rows(_bytes(value))]


def gather_rows(rows: Tensor) -> list[Tensor]:
    """Return the rows of each rank, by rank, on every rank.

    Args:
        rows: Of the same shape but for their number, which may be zero, and the same dtype.
    """
    if world_size() == 1:
        return [rows]
    with meeting("gathering rows"):
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
        dist.all_gather(lengths, torch.tensor([len(rows)]))
        longest = max(int(length) for length in lengths)
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(gathered, padded)
    return [part[: int(length)] for part, length in zip(gathered, lengths, strict=True)]


def total(numbers: Tensor, what: str) -> Tensor:
    """Return the sum over all ranks of ``numbers``, which it overwrites, the same on every rank.

    Args:
        numbers: Of the same shape and dtype on every rank.
        what: What is being done, for the error message.
    """
    if world_size() > 1:
        with meeting(what):
            dist.all_reduce(numbers)
    return numbers


def same_parameters(module: nn.Module) -> None:
    """Give the parameters and buffers of every rank the values of rank 0."""
    if world_size() > 1:
        with meeting("sending parameters from rank 0"):
            for tensor in module.state_dict().values():
                whole = tensor.contiguous()  # nccl takes no other; a rotation comes transposed
                dist.broadcast(whole, src=0)
                tensor.copy_(whole)


def average_gradients(
    parameters: Iterable[nn.Parameter], n_rows: int, told: list[float]
) -> list[float]:
    """Average the gradients over the rows of all ranks, in one exchange.

    Args:
        parameters: In the same order on every rank.
        n_rows: Rows that the gradients of this rank are a mean over.
        told: Numbers that rank 0 tells the others, in the precision of the gradients.

    Returns:
        What rank 0 told, on every rank.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    tail = flat.new_tensor([n_rows, *(told if is_main() else [0.0] * len(told))])
    summed = total(torch.cat([flat * n_rows, tail]), "averaging gradients")
    averaged, (n_all, *heard) = summed[: len(flat)], summed[len(flat) :].tolist()
    averaged /= n_all
    for gradient, part in zip(
        gradients, averaged.split([g.numel() for g in gradients]), strict=True
    ):
        gradient.copy_(part.view_as(gradient))
    return heard


def all_equal(value: Any, what: str) -> None:
    """Check that all ranks pass the same.

    Args:
        value: Anything that JSON can hold.
        what: What to call it.

    Raises:
        ValueError: On every rank, if one differs from rank 0; it is named, and of a dictionary
            the first entry that differs.
    """
    first, *others = gather(value)
    for number, other in enumerate(others, start=1):
        if other != first:
            entry, one, another = _first_difference(first, other)
            raise ValueError(
                f"{what}{entry} is {one!r} on rank 0 and {another!r} on rank {number}; "
                "start all ranks with the same arguments"
            )


@contextmanager
def together() -> Iterator[None]:
    """Let every rank refuse what one refuses, in place of waiting for it.

    Raises:
        ValueError: On every rank, if one has raised it in the block.
    """
    refused: ValueError | None = None
    try:
        yield
    except ValueError as error:
        refused = error
    reasons = gather(None if refused is None else str(refused))
    if refused is not None:
        raise refused
    for number, reason in enumerate(reasons):
        if reason is not None:
            raise ValueError(f"rank {number}: {reason}")


@contextmanager
def patient() -> Iterator[None]:
    """Wait at the end of the block until all ranks are there, however much longer one works.

    While it works, a rank shows from a thread of its own that it is alive. One that does not for
    as long as ranks wait otherwise is given up.

    Raises:
        ConnectionError: If a rank has ended or does not answer.
    """
    if world_size() == 1:
        yield
        return
    with Heartbeats(_meeting_place(), rank(), world_size(), _timeout()) as heartbeats:
        yield
        with meeting("waiting for the other ranks"):
            heartbeats.wait()
            dist.barrier()  # the first to go may hold the store that the others still read


def share_of(n: int) -> int:
    """Return how many of ``n`` things fall to this rank: equally many but for the remainder."""
    return n // world_size() + (rank() < n % world_size())


def _first_difference(one: Any, another: Any) -> tuple[str, Any, Any]:
    """Return the name of the first entry in which two differ, if they have entries, and both."""
    if isinstance(one, dict) and isinstance(another, dict):
        for name in one | another:
            if one.get(name) != another.get(name):
                return f" ({name})", one.get(name), another.get(name)
    return "", one, another


def _join(backend: str, timeout: timedelta) -> None:
    store, own_rank, n_ranks = next(rendezvous("env://", timeout=timeout))
    # The launcher's store outlives a restart: addresses of ranks that are gone must not be found.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"fastinn-{attempt}", store)
    dist.init_process_group(
        backend, store=store, rank=own_rank, world_size=n_ranks, timeout=timeout
    )


def _meeting_place() -> dist.Store:
    """Return a store with names of its own, for the ranks are there at the same call."""
    global _n_meetings
    _n_meetings += 1
    store = dist.distributed_c10d._get_default_store()
    return dist.PrefixStore(f"patient-{_n_meetings}", store)


def _is_started() -> bool:
    return dist.is_available() and dist.is_initialized()


def _timeout() -> float:
    return float(os.environ.get(TIMEOUT, _SECONDS))


def _bytes(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _value(text: Tensor) -> Any:
    return json.loads(text.numpy().tobytes())
