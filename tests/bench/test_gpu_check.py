"""The GPU script where there is no GPU: every step says what it lacks."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from machine import ROOT

SCRIPT = ROOT / "bench" / "gpu_check.sh"
TOOLS = ("bash", "dirname", "mkdir", "tr")


@pytest.fixture
def bare(tmp_path):
    """A path with a few tools: no nvcc, no sanitizer, and no Python that has torch."""
    for tool in TOOLS:
        (tmp_path / tool).symlink_to(shutil.which(tool))
    return {"PATH": str(tmp_path), "OUT": str(tmp_path / "out"), "PYTHON": "no-such-python"}


def test_without_a_gpu_every_step_names_what_is_missing(bare):
    run = subprocess.run([shutil.which("bash"), SCRIPT], env=bare, capture_output=True, text=True)
    summary = run.stdout.partition("== summary")[2].splitlines()
    steps = [line for line in summary if line.startswith(("PASS", "FAIL", "MISSING"))]
    assert run.returncode == 1
    assert len(steps) == SCRIPT.read_text().count('\nstep "')
    assert all(line.startswith("MISSING") for line in steps)
    assert any("no CUDA device" in line for line in steps)


def test_limits_add_up_to_less_than_nine_minutes():
    lines = [line for line in SCRIPT.read_text().splitlines() if line.startswith('step "')]
    limits = [int(line.split('"')[2].split()[0]) for line in lines]
    # The rest is for starting Python and printing.
    assert len(limits) > 5
    assert sum(limits) <= 8.6 * 60


def test_script_is_executable():
    assert os.access(Path(SCRIPT), os.X_OK)
