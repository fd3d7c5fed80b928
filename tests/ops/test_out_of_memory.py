"""Memory that runs out in a thread of a kernel is an error, and not the end of Python."""

import subprocess
import sys

PROGRAM = """
import resource
import sys

import torch

from fastinn.ops import second_moments

WIDTH = 12_000
torch.set_num_threads(2)
second_moments(torch.randn(600, 1500), precision="exact", backend="cpu")  # starts the threads
rows = torch.randn(64, WIDTH)
with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * resource.getpagesize()
spare = WIDTH * WIDTH * 8 + int(float(sys.argv[1]) * 2**20)  # the result, and little else
resource.setrlimit(resource.RLIMIT_AS, (taken + spare, -1))
try:
    second_moments(rows, precision="exact", backend="cpu")
except MemoryError:
    print("MemoryError")
else:
    print("fine")
"""


def test_memory_that_runs_out_is_an_error():
    """Between too little for the operands and enough lies what threads ask for themselves."""
    command = [sys.executable, "-P", "-c", PROGRAM]  # what is installed, not what lies here
    tried = [
        subprocess.Popen([*command, str(spare)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for spare in (2, 5, 6, 7)
    ]
    outcomes = []
    for process in tried:
        said, complaint = process.communicate()
        assert process.returncode == 0, complaint.decode()
        outcomes.append(said.decode().strip())
    assert outcomes[0] == "MemoryError"
    assert set(outcomes) <= {"MemoryError", "fine"}
