"""Which machine, versions and commit a measurement is of; no names of hosts or paths."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fastinn import _cpu

ROOT = Path(__file__).parents[1]
_LIBRARIES = ("fastinn", "torch", "triton", "numpy", "scikit-learn")
_PEERS = ("FrEIA", "normflows", "zuko", "cca-zoo")


def description(device: str) -> dict[str, Any]:
    """Return what identifies a run: commit, processor or GPU, versions."""
    return {
        "commit": commit(),
        "device": device,
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "instructions": _cpu.build_info()["isa"],
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "cuda": torch.version.cuda if device == "cuda" else None,
        "versions": {"python": platform.python_version(), **_versions(_LIBRARIES + _PEERS)},
    }


def commit() -> str:
    """Return the commit, with ``-dirty`` if the tree differs from it.

    ``FASTINN_COMMIT`` names it where the tree was copied without its repository.
    """
    if named := os.environ.get("FASTINN_COMMIT"):
        return named
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _versions(names: tuple[str, ...]) -> dict[str, str | None]:
    return {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
