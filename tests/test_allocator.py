"""Memory that is freed between buffers that stay goes back to the system."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, os
from fastinn.cli._allocator import give_back_large_buffers

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20

{call}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def held(n_bytes):
    place = libc.malloc(n_bytes)
    ctypes.memset(place, 1, n_bytes)
    return place

libc.free(held(32 * 2**20 - 2**16))
before = resident()
large, small = zip(*[(held(4 * 2**20), held(2**17)) for _ in range(32)])
for place in large:
    libc.free(place)
print(resident() - before)
"""


def kept(call):
    """Return the megabytes of 128 that a process still holds after it freed them."""
    program = PROGRAM.format(call=call)
    return int(
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about malloc of glibc")
def test_large_buffers_are_given_back():
    assert kept("give_back_large_buffers()") < 16
    assert kept("") > 64, "glibc gives them back by itself: give_back_large_buffers can go"
