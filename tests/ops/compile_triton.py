"""Compiles Triton kernels for GPUs that need not be there; cases in, reports out, as JSON.

A case is a call of an op. The kernels it would launch are compiled as they would be launched: with
the types, alignments and constants of that call. A program of its own: with TRITON_INTERPRET=1, as
in the tests, kernels never become device code.
"""

import itertools
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from fastinn.ops.affine_coupling import _triton as affine_coupling
from fastinn.ops.coupling_mlp import _op as coupling_mlp
from fastinn.ops.coupling_mlp._triton import _launch
from fastinn.ops.second_moments import _triton as second_moments

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
TYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int32: "i32",
}
# The name of an instruction in a listing, after its address and the predicate that it may have.
INSTRUCTION = re.compile(r"^\s+/\*\w+\*/\s+(?:@!?U?P\w+ )?(\w+)", re.MULTILINE)
# A product of the warpgroup's unit whose left operand does not lie in shared memory.
PRODUCT_OF_REGISTERS = re.compile(r"warp_group_dot .*: tensor<[^*]*dot_op<\{opIdx = 0")
LAUNCH_OPTIONS = ("num_warps", "num_stages")


def call_affine_coupling(dtype, inverse, n_features):
    """Both kernels of one layer."""
    rows, out = (torch.zeros(64, n_features, dtype=getattr(torch, dtype)) for _ in range(2))
    sums = rows[:, 0].clone()
    shift = out if inverse else None
    affine_coupling.transform(inverse, rows, rows, rows, 1.0, 1e-8, out, sums)
    affine_coupling.differentiate(
        inverse, rows, sums, rows, rows, 1.0, 1e-8, out, out.clone(), shift
    )


def call_coupling_mlp(precision, hidden, networks, kept, activation, inverse, store):
    """All kernels of one layer for 768 features."""
    stack = (2,) if networks == 2 else ()
    widths = [384, *hidden, 384 * (3 - networks)]
    shapes = [(*stack, out, into) for into, out in itertools.pairwise(widths)]
    weights = [torch.zeros(shape) for shape in shapes]
    biases = [torch.zeros(shape[:-1]) for shape in shapes]
    rows = torch.zeros(4096, 768)
    options = (inverse, kept, activation, 1.0, 1e-8, precision)
    out, log_det, saved = coupling_mlp.forward(rows, weights, biases, *options, store, "triton")
    coupling_mlp.backward(out, log_det, rows, weights, biases, saved, *options, "triton")


def call_second_moments(precision, dtype, symmetric):
    """The kernels of a product; of so many rows that those staged last are added to the others."""
    rows, other = (torch.zeros(1, 16_400, d, dtype=getattr(torch, dtype)) for d in (130, 70))
    shift = torch.zeros(1, 130) if precision == "high" and dtype == "float32" else None
    weight = None if shift is None else torch.zeros(16_400)
    out = torch.zeros(1, 130, 130 if symmetric else 70, dtype=torch.float64)
    y = None if symmetric else other
    second_moments.accumulate(rows, y, weight, shift, None, precision, out)


CALLS = {
    "affine_coupling": call_affine_coupling,
    "coupling_mlp": call_coupling_mlp,
    "second_moments": call_second_moments,
}


def launches(arch, op, **case):
    """What a call on a GPU of this architecture launches: kernel, arguments and options."""
    found = []

    def record(kernel, *arguments, grid, warmup, **options):
        found.append((kernel, dict(zip(kernel.arg_names, arguments, strict=False)), options))

    with (
        mock.patch.object(JITFunction, "run", record),
        mock.patch.object(_launch, "arch", return_value=arch),
        mock.patch.object(second_moments, "_capability", return_value=divmod(arch, 10)),
    ):
        CALLS[op](**case)
    return found


def source(kernel, arguments, options):
    """The kernel with its arguments specialised as the launcher would; see the key of the cache."""
    arguments = arguments | {k: v for k, v in options.items() if k not in LAUNCH_OPTIONS}
    constants = {param.name for param in kernel.params if param.is_constexpr}
    kinds = {name: _kind(arguments[name], name in constants) for name in kernel.arg_names}
    position = kernel.arg_names.index
    return ASTSource(
        fn=kernel,
        signature={name: kind for name, (kind, _) in kinds.items()},
        constexprs={
            (position(name),): arguments[name]
            for name, (kind, _) in kinds.items()
            if kind == "constexpr"
        },
        attrs={
            (position(name),): [["tt.divisibility", 16]]
            for name, (_, aligned) in kinds.items()
            if aligned
        },
    )


def _kind(value, is_constant):
    """The type in a signature, and whether 16 divides the address or the number."""
    if is_constant or value is None or (isinstance(value, int) and value == 1):
        return "constexpr", False
    if isinstance(value, TensorDescriptor):
        return f"tensordesc<{TYPES[value.base.dtype]}{list(value.block_shape)}>", False
    if isinstance(value, torch.Tensor):
        return f"*{TYPES[value.dtype]}", value.data_ptr() % 16 == 0
    return "i32", value % 16 == 0


def compiled(kernel, arguments, options, arch):
    """What the compiler made of one launch."""
    binary = triton.compile(
        source(kernel, arguments, options),
        target=GPUTarget("cuda", arch, 32),
        options={name: options[name] for name in LAUNCH_OPTIONS if name in options},
    )
    usage, code = _dump(binary.asm["cubin"])
    return {
        "kernel": kernel.__name__,
        "shared": binary.metadata.shared,
        "registers": int(re.search(r"\bREG:(\d+)", usage)[1]),
        "products_of_registers": len(PRODUCT_OF_REGISTERS.findall(binary.asm["ttgir"])),
        "stack": int(re.search(r"\bSTACK:(\d+)", usage)[1]),
        "instructions": sorted(
            set(re.findall(r"^\s+/\*\w+\*/\s+(?:@!?U?P\w+ )?(\w+)", code, re.M))
        ),
    }


def _dump(cubin):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return [
            subprocess.run(
                [CUOBJDUMP, option, file.name], capture_output=True, text=True, check=True
            ).stdout
            for option in ("--dump-resource-usage", "-sass")
        ]


def reports(case):
    """What became of each launch of a case."""
    distinct = {repr(_key(*launch)): launch for launch in launches(**case)}
    return [compiled(*launch, case["arch"]) for launch in distinct.values()]


def _key(kernel, arguments, options):
    made = source(kernel, arguments, options)
    return kernel.__name__, made.signature, made.constants, made.attrs, options


if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        json.dump(pool.map(reports, json.load(sys.stdin), chunksize=1), sys.stdout)
