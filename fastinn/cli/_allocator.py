"""How the C library keeps the memory that a command has freed."""

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt

_LARGE = 1 << 20
"""Bytes from which a buffer is given back to the system as soon as it is freed."""


def give_back_large_buffers() -> None:
    """Keep a process from growing with the number of blocks it reads, where malloc is glibc's.

    By itself glibc takes each large buffer that is freed as a sign to keep larger ones, up to 32
    MB. Rows and batches are of ever other sizes, so that what is kept fits the next one badly.
    """
    with contextlib.suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_TRIM_THRESHOLD, _LARGE)
