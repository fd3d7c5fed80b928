"""The CUDA kernels of second moments compiled for GPUs that need not be there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.gate
triton = pytest.importorskip("triton", reason="cuobjdump comes with triton")

NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
CSRC = Path(__file__).parents[2] / "csrc"
ARCHITECTURES = {80: "80", 90: "90a"}


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=lambda arch: f"sm_{arch}")
def compiled(request, tmp_path_factory):
    """Architecture, what the assembler said, and machine code."""
    if NVCC is None:
        pytest.skip("nvcc is not installed")
    arch = ARCHITECTURES[request.param]
    cubin = tmp_path_factory.mktemp("nvcc") / "second_moments.cubin"
    target = f"-gencode=arch=compute_{arch},code=sm_{arch}"
    options = ["-O3", "-std=c++17", "-Xptxas=-v,-warn-spills", target, "-I", CSRC, "-cubin"]
    source = CSRC / "second_moments/second_moments_cuda.cu"
    messages = subprocess.run(
        [NVCC, *options, source, "-o", cubin], capture_output=True, text=True, check=True
    ).stderr
    code = subprocess.run([CUOBJDUMP, "-sass", cubin], capture_output=True, text=True, check=True)
    return request.param, messages, code.stdout


def test_stays_in_registers(compiled):
    _, messages, code = compiled
    assert re.findall(r"(\d+) bytes stack frame", messages)
    assert not re.findall(r"[1-9]\d* bytes (?:stack frame|spill)", messages)
    assert not re.search(r"\b(STL|LDL)\b", code)
    assert "warning" not in messages


def test_multiplies_with_the_matrix_units(compiled):
    arch, messages, code = compiled
    assert "C75" not in messages  # wgmma serialised
    if arch == 90:
        assert "HGMMA.64x192x16.F32" in code
        assert "UBLKCP" in code
    else:
        assert "HMMA.16816.F32" in code
