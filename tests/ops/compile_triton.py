"""Compiles Triton kernels for GPUs that need not be there; cases in, reports out, as JSON.

A program of its own: with TRITON_INTERPRET=1, as in the tests, kernels never become device code.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastinn.ops.affine_coupling import _triton

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
ELEMENT_SIZE = {"fp32": 4, "fp64": 8}


def coupling_source(name, dtype, inverse, n_features):
    """The kernel with the types and constants of one call."""
    kernel = getattr(_triton, name)
    block_n, block_d, tiles = _triton.blocking(n_features, ELEMENT_SIZE[dtype])
    constants = {"INVERSE": inverse, "CLAMP": 1.0, "EPS": 1e-8}
    constants |= {"TILES": tiles, "BLOCK_N": block_n, "BLOCK_D": block_d}
    if not inverse:
        constants["grad_shift_ptr"] = None
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    signature = {name: _kind(name, dtype, constants) for name in kernel.arg_names}
    pointers = [i for i, kind in enumerate(signature.values()) if kind.startswith("*")]
    return ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in pointers},
    )


def _kind(argument, dtype, constants):
    if argument in constants:
        return "constexpr"
    return f"*{dtype}" if argument.endswith("_ptr") else "i32"


def report(source, arch):
    """Shared memory in bytes, resource usage and machine code."""
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32))
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, code = (_dump(option, file.name) for option in ("--dump-resource-usage", "-sass"))
    return {"shared": compiled.metadata.shared, "usage": usage, "code": code}


def _dump(option, cubin):
    done = subprocess.run([CUOBJDUMP, option, cubin], capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    cases = json.load(sys.stdin)
    json.dump([report(coupling_source(*case), arch) for arch, *case in cases], sys.stdout)
