"""Kernels recorded once and launched again at once: CUDA graphs."""

from collections.abc import Callable
from typing import Self, TypeAlias

import torch
from torch import Tensor

Function: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def recordable(rows: Tensor) -> bool:
    """Say whether what is computed from ``rows`` now can be recorded and replayed."""
    return (
        rows.is_cuda
        and rows.numel() > 0
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.cuda.is_current_stream_capturing()
    )


class Recording:
    """What a function launches on a GPU, for inputs of the shapes it was recorded on.

    Calls copy their inputs in and the results out, so that nothing returned is ever overwritten,
    and may come from any stream, but from one thread at a time.

    Args:
        function: Launches kernels on the current stream and never waits for their results.
        rows: What it is recorded on.
        log_det: Its second argument, on the same device.
        beside: A recording whose memory this one can use as well, as they never run at once.
    """

    _stream: torch.cuda.Stream
    _idle: torch.cuda.Event

    def __init__(
        self, function: Function, rows: Tensor, log_det: Tensor, beside: Self | None = None
    ) -> None:
        # Tensors made in inference mode could not be written outside of it.
        with torch.cuda.device(rows.device), torch.inference_mode(False), torch.no_grad():
            self._stream = beside._stream if beside else torch.cuda.Stream()
            self._idle = beside._idle if beside else torch.cuda.Event()
            self._inputs = tuple(
                tensor.clone(memory_format=torch.contiguous_format) for tensor in (rows, log_det)
            )
            self._warm_up(function)
            self._graph = torch.cuda.CUDAGraph()
            # The pool of a graph that is still there: torch refuses one that has lost its last.
            pool = beside._graph.pool() if beside else None
            # "thread_local": what other threads allocate or pin meanwhile is no part of this.
            with torch.cuda.graph(
                self._graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                self._outputs = function(*self._inputs)

    def __call__(self, rows: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the function of ``rows`` and ``log_det``, which are only read."""
        stream = torch.cuda.current_stream(rows.device)
        stream.wait_event(self._idle)
        for own, given in zip(self._inputs, (rows, log_det), strict=True):
            own.record_stream(stream)
            own.copy_(given)
        self._graph.replay()
        out, total = self._outputs
        copies = out.clone(), total.clone()
        self._idle.record(stream)
        return copies

    def _warm_up(self, function: Function) -> None:
        """Let libraries and compilers do what they do at a first call, on the same addresses.

        Triton compiles for the alignment of addresses, and the products' workspace belongs to the
        stream.
        """
        caller = torch.cuda.current_stream()
        self._stream.wait_stream(caller)
        with torch.cuda.stream(self._stream):
            function(*self._inputs)
        caller.wait_stream(self._stream)
