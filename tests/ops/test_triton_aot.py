"""Triton kernels compiled for GPUs that need not be there: no spills, nothing in local memory."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gate
pytest.importorskip("triton", reason="triton is not installed")

# Bytes of shared memory that one block may have; code of 8.0 also runs on 8.6 and 8.9, with less.
SHARED_MEMORY = {80: 101_376, 90: 232_448}
LOCAL_MEMORY = {"STL", "LDL"}

AFFINE = {
    # Narrow, whole rows in a tile, several tiles a row.
    f"affine-{arch}-{dtype}-{'inverse' if inverse else 'forward'}-{n_features}": {
        "op": "affine_coupling",
        "arch": arch,
        "dtype": dtype,
        "inverse": inverse,
        "n_features": n_features,
    }
    for arch, dtype, inverse, n_features in itertools.product(
        SHARED_MEMORY, ("float32", "float64"), (False, True), (3, 384, 1536)
    )
}


def layer(arch, precision, hidden, networks=1, kept="first", inverse=False, store=True):
    return {
        "op": "coupling_mlp",
        "arch": arch,
        "precision": precision,
        "hidden": hidden,
        "networks": networks,
        "kept": kept,
        "activation": "selu" if inverse else "gelu",
        "inverse": inverse,
        "store": store,
    }


# Every tile size that `blocking` returns, with one accumulator of shift and log-scale and with two.
LAYERS = {
    "layer-90-fast": layer(90, "fast", [768, 128]),
    "layer-90-fast-published": layer(90, "fast", [3072, 3072], 2, "even", True, store=False),
    "layer-90-high": layer(90, "high", [768]),
    "layer-80-fast": layer(80, "fast", [768, 128], kept="odd"),
    "layer-80-high": layer(80, "high", [768]),
    "layer-80-exact": layer(80, "exact", [768], kept="odd"),
}
# Rows staged as two float16, as one, and as float64.
MOMENTS = {
    f"moments-{arch}-{precision}-{dtype}": {
        "op": "second_moments",
        "arch": arch,
        "precision": precision,
        "dtype": dtype,
        "symmetric": precision != "fast",
    }
    for arch, (precision, dtype) in itertools.product(
        SHARED_MEMORY, (("high", "float32"), ("fast", "bfloat16"), ("exact", "float32"))
    )
}
CASES = AFFINE | LAYERS | MOMENTS


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What the compiler made of each case; one program, as imports take longer than kernels."""
    cache = str(tmp_path_factory.mktemp("triton"))
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("compile_triton.py")],
        input=json.dumps(list(CASES.values())),
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_stays_in_registers(reports, case):
    for report in reports[case]:
        assert report["shared"] <= SHARED_MEMORY[CASES[case]["arch"]], report
        assert report["stack"] == 0, report
        assert not LOCAL_MEMORY & set(report["instructions"]), report


@pytest.mark.parametrize("case", [name for name in LAYERS if "-90-fast" in name])
def test_hopper_multiplies_from_shared_memory(reports, case):
    """Tiles come through the tensor memory accelerator, products from the warpgroup's unit."""
    products = [r for r in reports[case] if r["kernel"] != "coupling_gradient_kernel"]
    assert len(products) >= 5
    for report in products:
        assert {"HGMMA", "UTMALDG"} <= set(report["instructions"]), report
        # Such products are used before they are complete by Triton 3.6 (triton-lang/triton 8964).
        assert report["products_of_registers"] == 0, report


@pytest.mark.parametrize("case", [name for name in LAYERS if "-80-" not in name or "fast" in name])
def test_tensor_cores_multiply(reports, case):
    products = [r for r in reports[case] if r["kernel"] != "coupling_gradient_kernel"]
    for report in products:
        assert {"HGMMA", "HMMA"} & set(report["instructions"]), report


@pytest.mark.parametrize("case", MOMENTS)
def test_second_moments_multiply_with_the_matrix_units_and_promote(reports, case):
    products = [set(r["instructions"]) for r in reports[case] if r["kernel"] == "product_kernel"]
    assert products
    if "exact" in case:
        assert all("DMMA" in product for product in products)
        return
    wanted = {"HGMMA", "UTMALDG"} if "-90-" in case else {"HMMA", "LDGSTS"}
    # Folded into the products, the promotion would be gone (FADD), and with it the digits.
    assert all(wanted | {"FADD"} <= product for product in products)
