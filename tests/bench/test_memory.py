"""Peak memory of calls and of the process."""

import torch
from memory import peak_memory, resident_peak

MIB = 2**20


def test_peak_counts_what_is_freed_again():
    def call():
        for _ in range(3):
            torch.ones(16 * MIB)  # 64 MiB, freed at once

    assert 60 * MIB < peak_memory(call) < 100 * MIB


def test_peak_leaves_out_what_was_there_before():
    held = torch.ones(32 * MIB)
    assert peak_memory(lambda: held[:1].clone()) < 16 * MIB


def test_peak_of_the_process_is_at_least_what_it_holds():
    held = torch.ones(16 * MIB)
    assert resident_peak() >= held.nbytes
