"""Free memory is what the machine and the control groups of this process have left."""

import pytest

from fastinn import _memory


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8000 MiB free and the groups of a batch job; returns the function to limit."""
    (tmp_path / "meminfo").write_text("MemTotal: 16384000 kB\nMemAvailable: 8192000 kB\n")
    (tmp_path / "cgroup").write_text("1:cpu:/\n0::/slurm/job\n")
    groups = tmp_path / "groups"
    (groups / "slurm" / "job").mkdir(parents=True)
    monkeypatch.setattr(_memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(_memory, "_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(_memory, "_GROUPS", groups)

    def limit(group, most, taken, given_up=0):
        (groups / group / "memory.max").write_text(f"{most}\n")
        (groups / group / "memory.current").write_text(f"{taken}\n")
        (groups / group / "memory.stat").write_text(f"anon 5\ninactive_file {given_up}\n")

    return limit


def test_without_limits_it_is_what_the_machine_has(machine):
    assert _memory.free_bytes() == 8192000 * 1024
    machine("slurm/job", "max", 10**9)
    assert _memory.free_bytes() == 8192000 * 1024


def test_the_tightest_group_decides(machine):
    machine("slurm/job", 4 * 10**9, 10**9)
    assert _memory.free_bytes() == 3 * 10**9
    machine("slurm", 5 * 10**9, 4 * 10**9)
    assert _memory.free_bytes() == 10**9


def test_files_that_nobody_uses_are_given_up_first(machine):
    machine("slurm/job", 4 * 10**9, 4 * 10**9, given_up=10**9)
    assert _memory.free_bytes() == 10**9
    machine("slurm/job", 4 * 10**9, 5 * 10**9)
    assert _memory.free_bytes() == 0


def test_here_there_is_some():
    assert _memory.free_bytes() > 0
