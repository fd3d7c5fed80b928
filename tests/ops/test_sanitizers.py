"""The CPU module built with the address and undefined-behaviour sanitizers, over its tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastinn

pytestmark = [
    pytest.mark.campaign("R13", full=True),
    pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("g++")), reason="needs both"),
]
ROOT = Path(fastinn.__file__).parents[1]
FLAGS = "-fsanitize=address,undefined -fno-omit-frame-pointer -g1"
TESTS = ["test_affine_coupling.py", "test_coupling_mlp.py", "test_second_moments.py"]
# Python leaves memory to the system, and torch's allocations are not its sanitizer's matter.
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:halt_on_error=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """A folder like this repository whose package holds the module with sanitizers.

    ``FASTINN_SANITIZED`` names a folder of such a module that was built before.
    """
    folder = tmp_path_factory.mktemp("sanitized")
    build = Path(os.environ.get("FASTINN_SANITIZED") or built(folder / "build"))
    shutil.copytree(
        ROOT / "fastinn", folder / "fastinn", ignore=shutil.ignore_patterns("*.so", "assets")
    )
    (module,) = build.glob("_cpu*.so")
    shutil.copy(module, folder / "fastinn")
    for name in ("tests", "bench", "pyproject.toml", "csrc"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def built(folder):
    pybind11 = pytest.importorskip("pybind11")
    configure = [
        *("cmake", "-S", str(ROOT), "-B", str(folder), "-DFASTINN_CUDA=OFF"),
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DCMAKE_CXX_FLAGS={FLAGS}",
    ]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(folder)], check=True, capture_output=True)
    return folder


def library(name):
    command = ["g++", f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", TESTS)
def test_no_report(sanitized, name):
    preloaded = " ".join(map(library, ("libasan.so", "libubsan.so")))
    environment = {
        **os.environ,
        **OPTIONS,
        "PYTHONPATH": str(sanitized),
        "LD_PRELOAD": preloaded,
        "OMP_NUM_THREADS": "2",
    }
    command = [sys.executable, "-m", "pytest", "-s", "-n", "0", "-p", "no:cacheprovider"]
    command += [f"tests/ops/{name}", "-k", "not triton and not compile"]
    done = subprocess.run(
        command, cwd=sanitized, env=environment, capture_output=True, text=True, timeout=3000
    )
    said = done.stdout + done.stderr
    assert "Sanitizer" not in said, said[-4000:]
    assert "runtime error" not in said, said[-4000:]
    assert done.returncode == 0, said[-4000:]
