"""How much memory is free for this process: of the machine, and of the groups it runs in."""

import os
from collections.abc import Iterator
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def free_bytes() -> int:
    """Return the bytes of host memory that can be had without pushing anything out.

    The least of what the machine has left and what each control group (version 2) that holds this
    process has: batch systems and containers limit those, and kill what takes more.
    """
    return min([_free_on_machine(), *_free_in_groups()])


def _free_on_machine() -> int:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:  # not Linux: count on half of what is built in
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    named = dict(line.split(":", 1) for line in lines)
    return int(named["MemAvailable"].split()[0]) * 1024


def _free_in_groups() -> Iterator[int]:
    for group in _groups():
        try:
            most = (group / "memory.max").read_text().strip()
            taken = int((group / "memory.current").read_text())
            statistics = dict(
                line.split() for line in (group / "memory.stat").read_text().splitlines()
            )
        except OSError:  # the root has no limit, and version 1 has other files
            continue
        if most != "max":
            # Pages of files that nobody used lately are given up before anything is killed.
            yield max(0, int(most) - taken + int(statistics.get("inactive_file", 0)))


def _groups() -> Iterator[Path]:
    """Yield the control group of this process and all that it is part of."""
    try:
        lines = _GROUP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if line.startswith("0::"):
            path = _GROUPS / line.removeprefix("0::").strip().lstrip("/")
            yield path
            yield from (parent for parent in path.parents if parent.is_relative_to(_GROUPS))
