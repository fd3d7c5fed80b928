"""Triton kernels compiled for GPUs that need not be there: no spills, nothing in local memory."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gate
pytest.importorskip("triton", reason="triton is not installed")

# Bytes of shared memory that one block may have.
SHARED_MEMORY = {80: 166_912, 90: 232_448}
KERNELS = ("transform_kernel", "differentiate_kernel")
# arch, kernel, dtype, inverse, features: narrow, whole rows in a tile, several tiles a row
CASES = list(
    itertools.product(SHARED_MEMORY, KERNELS, ("fp32", "fp64"), (False, True), (3, 384, 1536))
)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What the compiler made of each case; one process, as imports take longer than kernels."""
    cache = str(tmp_path_factory.mktemp("triton"))
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("compile_triton.py")],
        input=json.dumps(CASES),
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_stays_in_registers(reports, case):
    report = reports[case]
    assert report["shared"] <= SHARED_MEMORY[case[0]]
    assert "STACK:0 " in report["usage"], report["usage"]
    assert not re.search(r"\b(STL|LDL)\b", report["code"])
