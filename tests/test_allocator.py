"""Memory that is freed goes back to the system while a command reads, not while it trains."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about malloc of glibc")

PROGRAM = """
import contextlib, ctypes, os, resource
from fastinn._allocator import give_back_large_buffers, reused_buffers

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20

def held(n_bytes):
    place = libc.malloc(n_bytes)
    ctypes.memset(place, 1, n_bytes)
    return place

def free_large_between_small():
    large, small = zip(*[(held(4 * 2**20), held(2**17)) for _ in range(32)])
    for place in large:
        libc.free(place)

def faults_of_again_and_again():
    libc.free(held(2**22))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        libc.free(held(2**22))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

libc.free(held(32 * 2**20 - 2**16))
"""


def printed(*lines):
    """Return the number that a process prints at the end of these lines."""
    program = PROGRAM + "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return int(done.stdout)


def kept(begin, context="contextlib.nullcontext()"):
    """Return the megabytes of 128 that a process still holds after it freed them."""
    return printed(
        begin,
        "before = resident()",
        f"with {context}: free_large_between_small()",
        "print(resident() - before)",
    )


def test_large_buffers_are_given_back():
    assert kept("give_back_large_buffers()") < 16
    assert kept("") > 64, "glibc gives them back by itself: give_back_large_buffers can go"


def test_large_buffers_are_given_back_after_they_were_reused():
    assert kept("give_back_large_buffers()", "reused_buffers()") < 16


def test_a_buffer_that_recurs_is_not_asked_for_again():
    count = "print(faults_of_again_and_again())"
    given_back = printed("give_back_large_buffers()", count)
    reused = printed("give_back_large_buffers()", f"with reused_buffers(): {count}")
    assert reused < given_back / 10
