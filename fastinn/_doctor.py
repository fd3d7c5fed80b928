"""What was built, found and chosen on this machine."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch

from fastinn import ops
from fastinn._products import multiplies_bfloat16

_LIBRARIES = ("fastinn", "torch", "transformers", "numpy", "triton", "cupy-cuda13x")


def findings() -> dict[str, Any]:
    """Collect the versions, the devices, the compiled modules and the backends of each op."""
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _LIBRARIES},
        "processor": f"{torch.get_num_threads()} threads of {os.cpu_count()} processors",
        "16-bit products": _rounding(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none visible",
        "compiled": {name: _build(name) for name in ("_cpu", "_cuda")},
        **{f"op {op}": kernels for op, kernels in ops.backends().items()},
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _rounding() -> str:
    if multiplies_bfloat16(torch.device("cpu")):
        return "with precision 'fast'"
    return "none on this processor, which has no AVX512_BF16 or AMX: 'fast' rounds on GPUs only"


def _build(module: str) -> str:
    if find_spec(f"fastinn.{module}") is None:
        return "not built"
    compiled = __import__(f"fastinn.{module}", fromlist=[module])
    return ", ".join(f"{name} {value}" for name, value in compiled.build_info().items())
