"""Ways to build: what the configuration says and does with a good, a broken and no nvcc."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastinn

pytestmark = [
    pytest.mark.campaign("R15", full=True),
    pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("g++")), reason="needs both"),
]
ROOT = Path(fastinn.__file__).parents[1]
NOWHERE = {"CUDA_HOME": "", "CUDA_PATH": ""}

BUILDS = {
    "off": ({"FASTINN_CUDA": "OFF"}, True, ""),
    "auto without nvcc": ({"FASTINN_CUDA": "AUTO"}, True, "CPU"),
    "auto by default": ({}, True, "CPU"),
    "on without nvcc": ({"FASTINN_CUDA": "ON"}, False, "nvcc"),
    "auto with a broken nvcc": ({"CUDACXX": "/bin/false"}, False, "/bin/false"),
    "on with a broken nvcc": ({"FASTINN_CUDA": "ON", "CUDACXX": "/bin/false"}, False, "/bin/false"),
    "off with a broken nvcc": ({"FASTINN_CUDA": "OFF", "CUDACXX": "/bin/false"}, True, ""),
    "nonsense": ({"FASTINN_CUDA": "MAYBE"}, False, "expected AUTO, ON or OFF"),
}


@pytest.mark.parametrize(("variables", "works", "said"), BUILDS.values(), ids=BUILDS)
def test_configuration(tmp_path, variables, works, said):
    done = configured(tmp_path, variables)
    assert (done.returncode == 0) == works, done.stdout + done.stderr
    assert said in done.stdout + done.stderr


def configured(folder, variables, *options):
    """Configure in ``folder`` with these variables, where no nvcc is found by itself."""
    pybind11 = pytest.importorskip("pybind11")
    tools = folder / "tools"
    tools.mkdir()
    for name in ("cmake", "g++", "gcc", "cc", "c++", "ld", "as", "ar", "ranlib", "make", "ninja"):
        if found := shutil.which(name):
            (tools / name).symlink_to(Path(found).resolve())
    environment = {k: v for k, v in os.environ.items() if k not in ("CUDACXX", "FASTINN_CUDA")}
    return subprocess.run(
        [
            *("cmake", "-S", str(ROOT), "-B", str(folder / "build")),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DFASTINN_CUDA_PREFIX={folder / 'none'}",
            *options,
        ],
        env={**environment, **NOWHERE, "PATH": str(tools), **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
