"""Compiles the Triton kernels of second_moments for GPUs that need not be there.

Cases in, reports out, as JSON. A program of its own: with TRITON_INTERPRET=1, as in the tests,
kernels never become device code.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastinn.ops.second_moments import _triton
from fastinn.ops.second_moments._panels import MERGED_TILE

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
ELEMENTS = {"double": "fp64", "split": "fp16", "single": "fp16"}
TOTALS = {"double": "fp64", "split": "fp32", "single": "fp32"}


def source(kernel, pointers, constants):
    """The kernel with the types of one call; sizes and strides are as in a launch, 16-divisible."""
    signature = {name: _kind(name, pointers, constants) for name in kernel.arg_names}
    place = kernel.arg_names.index
    aligned = [name for name in signature if name not in constants]
    return ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(place(name),): value for name, value in constants.items()},
        attrs={(place(name),): [["tt.divisibility", 16]] for name in aligned},
    )


def _kind(argument, pointers, constants):
    if argument in constants:
        return "constexpr"
    return pointers.get(argument, "i32")


def stage(form, rows):
    element = ELEMENTS[form]
    pointers = {"x_ptr": f"*{rows}", "shift_ptr": "*fp64", "root_ptr": "*fp64"}
    pointers |= {"high_ptr": f"*{element}", "low_ptr": f"*{element}", "scale_ptr": "*fp64"}
    constants = {} if form == "split" else {"low_ptr": None}
    constants |= {"SCALED": form != "double"}
    constants |= {"ROWS": _triton.STAGE_ROWS, "COLUMNS": _triton.STAGE_COLUMNS}
    return source(_triton.stage_kernel, pointers, constants), {}


def product(form, arch):
    how = _triton.configuration(form, divmod(arch, 10))
    element = ELEMENTS[form]
    height, width = how.tile
    pointers = {"tiles_ptr": "*i32", "sums_ptr": f"*{TOTALS[form]}"}
    for name, columns in (("x", height), ("y", width)):
        kind = f"tensordesc<{element}[{how.rows}, {columns}]>" if how.tma else f"*{element}"
        pointers |= {f"{name}_high": kind, f"{name}_low": kind}
    constants = {} if form == "split" else {"x_low": None, "y_low": None}
    constants |= {"SPLIT": form == "split", "TMA": how.tma}
    constants |= {"HEIGHT": height, "WIDTH": width, "ROWS": how.rows}
    return source(_triton.product_kernel, pointers, constants), {
        "num_warps": how.num_warps,
        "num_stages": how.num_stages,
    }


def merge(form, arch, symmetric):
    height, width = _triton.configuration(form, divmod(arch, 10)).tile
    pointers = {"x_scale_ptr": "*fp64", "y_scale_ptr": "*fp64", "tiles_ptr": "*i32"}
    pointers |= {"sums_ptr": f"*{TOTALS[form]}", "out_ptr": "*fp64"}
    constants = {"SYMMETRIC": symmetric, "ADD": True}
    constants |= {"HEIGHT": height, "WIDTH": width, "SIDE": MERGED_TILE}
    return source(_triton.merge_kernel, pointers, constants), {}


def report(source, options, arch):
    """Shared memory in bytes, resource usage and machine code."""
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, code = (_dump(option, file.name) for option in ("--dump-resource-usage", "-sass"))
    return {"shared": compiled.metadata.shared, "usage": usage, "code": code}


def _dump(option, cubin):
    done = subprocess.run([CUOBJDUMP, option, cubin], capture_output=True, text=True, check=True)
    return done.stdout


def compiled(arch, kernel, form, detail):
    """One case; ``detail`` is the dtype of the rows, or which entries are merged."""
    if kernel == "stage":
        return report(*stage(form, detail), arch)
    if kernel == "product":
        return report(*product(form, arch), arch)
    return report(*merge(form, arch, detail == "symmetric"), arch)


if __name__ == "__main__":
    json.dump([compiled(*case) for case in json.load(sys.stdin)], sys.stdout)
