"""The Triton kernels of second moments compiled for GPUs that need not be there."""

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
SHARED_MEMORY = {80: 166_912, 86: 101_376, 90: 232_448}
FORMS = ("split", "single", "double")
# arch, kernel, form, detail: see compile_second_moments
CASES = [
    (arch, kernel, form, detail)
    for arch in SHARED_MEMORY
    for form in FORMS
    for kernel, detail in [
        ("stage", "fp64" if form == "double" else "bf16" if form == "single" else "fp32"),
        ("product", ""),
        ("merge", "cross" if form == "single" else "symmetric"),
    ]
]
MATRIX_UNITS = {80: "HMMA", 86: "HMMA", 90: "HGMMA"}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What the compiler made of each case; one process, as imports take longer than kernels."""
    cache = str(tmp_path_factory.mktemp("triton"))
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("compile_second_moments.py")],
        input=json.dumps(CASES),
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)).strip("-"))
def test_stays_in_registers(reports, case):
    report = reports[case]
    assert report["shared"] <= SHARED_MEMORY[case[0]]
    assert "STACK:0 " in report["usage"], report["usage"]
    assert not re.search(r"\b(STL|LDL)\b", report["code"])


@pytest.mark.parametrize("form", ["split", "single"])
@pytest.mark.parametrize("arch", SHARED_MEMORY)
def test_multiplies_with_the_matrix_units_and_promotes(reports, arch, form):
    code = reports[(arch, "product", form, "")]["code"]
    assert MATRIX_UNITS[arch] in code
    # Folded into the products, the promotion would be gone, and with it the digits.
    assert len(re.findall(r"\bFADD\b", code)) >= 64
    assert ("UTMALDG" if arch == 90 else "LDGSTS") in code


@pytest.mark.parametrize("arch", [80, 90])
def test_float64_rows_use_the_matrix_units(reports, arch):
    assert "DMMA" in reports[(arch, "product", "double", "")]["code"]
