"""CUDA kernels compiled for GPUs that need not be there: no spills, nothing in local memory."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.gate
triton = pytest.importorskip("triton", reason="cuobjdump comes with triton")

CSRC = Path(__file__).parents[2] / "csrc"
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
SOURCES = sorted(CSRC.glob("*/*.cu"))
FUSED = CSRC / "coupling_mlp/fused_sm90.cu"
MOMENTS = CSRC / "second_moments/second_moments_cuda.cu"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """What ptxas says about a source and the machine code, compiled once for each architecture."""
    if NVCC is None:
        pytest.skip("there is no nvcc, and nothing to compile for")
    done = {}

    def compile_for(source, arch):
        if (source, arch) not in done:
            cubin = tmp_path_factory.mktemp("cubin") / f"{source.stem}.cubin"
            done[source, arch] = _compile(source, arch, cubin)
        return done[source, arch]

    return compile_for


def _compile(source, arch, cubin):
    options = ["-O3", "-std=c++17", "-Xptxas=-v,-warn-spills", "-I", CSRC]
    target = f"-gencode=arch=compute_{arch},code=sm_{arch}"
    command = [NVCC, *options, target, "-cubin", source, "-o", cubin]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    dump = subprocess.run([CUOBJDUMP, "-sass", cubin], capture_output=True, text=True, check=True)
    return report, dump.stdout


@pytest.mark.parametrize("arch", ["80", "90a"])
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_stays_in_registers(compiled, source, arch):
    report, code = compiled(source, arch)
    stacks = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", report)
    assert stacks
    assert set(stacks) == {("0", "0")}
    assert not re.search(r"\b(STL|LDL)\b", code)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_nothing_is_serialised(compiled, source):
    """ptxas neither ignores setmaxnreg (C7508) nor waits after every product (C7510 and others)."""
    report, _ = compiled(source, "90a")
    assert not re.search(r"C75\d\d|Potential Performance Loss", report), report


@pytest.mark.parametrize("instruction", ["HGMMA", "UBLKCP", "USETMAXREG", "STSM"])
def test_fused_kernel_is_made_of_hopper_instructions(compiled, instruction):
    _, code = compiled(FUSED, "90a")
    kernels = [part for part in code.split("Function :") if "couple_rows" in part]
    assert len(kernels) == 6  # three widths, two directions
    assert all(instruction in kernel for kernel in kernels)


@pytest.mark.parametrize(
    ("arch", "kernel", "instructions"),
    [
        ("90a", "multiply_tiles", {"HGMMA", "UBLKCP", "USETMAXREG"}),
        ("80", "portable8multiplyIL", {"HMMA"}),
    ],
    ids=["sm_90a", "sm_80"],
)
def test_second_moments_use_the_matrix_units(compiled, arch, kernel, instructions):
    _, code = compiled(MOMENTS, arch)
    kernels = [part for part in code.split("Function :") if kernel in part]
    assert len(kernels) == 2  # split and single
    assert all(name in part for name in instructions for part in kernels)
