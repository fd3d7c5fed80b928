"""Run every GPU kernel once on small odd shapes, for compute-sanitizer to watch.

Run: ``PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python
bench/small_shapes.py cuda``; ``triton`` compiles 150 kernels, for minutes. Without the caching
allocator every tensor is an allocation of its own, so that a write past its end is seen.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from fastinn import ops

SHAPES = ((1, 2), (7, 33), (130, 258))


def main() -> int:
    if not torch.cuda.is_available():
        print("no CUDA device")
        return 1
    for backend in sys.argv[1:] or ("cuda", "triton"):
        for op, run in OPS.items():
            if ops.backends().get(op, {}).get(backend) is True:
                _run(op, backend, run)
    return 0


def _run(op: str, backend: str, run: Callable[[int, int], object]) -> None:
    with ops.use_backend(backend):  # type: ignore[arg-type]
        for n, d in SHAPES:
            run(n, d)
    torch.cuda.synchronize()
    print(f"{op} on {backend}: ran {len(SHAPES)} shapes", flush=True)


def _rows(*shape: int) -> Tensor:
    return torch.randn(*shape, device="cuda", requires_grad=True)


def _affine_coupling(n: int, d: int) -> None:
    for op in (ops.affine_coupling, ops.affine_coupling_inverse):
        _backward(op(_rows(n, d), _rows(n, d), _rows(n, d), clamp=1.0))


def _coupling_mlp(n: int, d: int) -> None:
    widths = [d // 2, 17, 40, 2 * (d - d // 2)]
    shapes = list(zip(widths[1:], widths, strict=False))
    weights, biases = [_rows(*s) for s in shapes], [_rows(s[0]) for s in shapes]
    for op in (ops.coupling_mlp, ops.coupling_mlp_inverse):
        for memory in ("store", "recompute"):
            for precision in ("exact", "high", "fast"):
                options = {"memory": memory, "precision": precision, "clamp": 1.0}
                _backward(op(_rows(n, d), weights, biases, **options))


def _second_moments(n: int, d: int) -> None:
    x, y, weight = _rows(n, d).detach(), _rows(n, d + 3).detach(), _rows(n).detach().abs()
    for precision in ("exact", "high", "fast"):
        ops.second_moments(x, precision=precision)
        ops.second_moments(x, y, weight=weight, shift=x[0], shift_y=y[0], precision=precision)


def _backward(outputs: tuple[Tensor, Tensor]) -> None:
    rows, log_det = outputs
    (rows.sum() + log_det.sum()).backward()


OPS = {
    "affine_coupling": _affine_coupling,
    "coupling_mlp": _coupling_mlp,
    "second_moments": _second_moments,
}

if __name__ == "__main__":
    sys.exit(main())
