"""Peak memory of a call."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

_PROCESSES = Path("/proc")


def peak_memory(call: Callable[[], object], device: str = "cpu") -> int:
    """Return the most bytes held during ``call`` beyond those held before it.

    On the CPU this is the process's peak resident memory, so that buffers of every library count,
    not torch's alone.
    """
    return _peak_of_device(call) if device == "cuda" else _peak_of_process(call)


def resident_peak(process: str = "self") -> int:
    """Return the most bytes that a process, this one or one by its number, ever had resident."""
    return _status("VmHWM", process)


def _peak_of_device(call: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _peak_of_process(call: Callable[[], object]) -> int:
    # Freed memory that malloc holds on to would be used again unseen.
    ctypes.CDLL(None).malloc_trim(0)
    (_PROCESSES / "self" / "clear_refs").write_text("5")  # sets VmHWM to what is resident now
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before)


def _status(field: str, process: str = "self") -> int:
    for line in (_PROCESSES / process / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise ValueError(f"/proc/{process}/status has no field {field}")
