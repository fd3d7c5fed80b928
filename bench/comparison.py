"""One figure: an op of ours beside its peers and the machine's ceiling, all timed in turns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from ceilings import Ceiling
from memory import peak_memory
from results import Results
from timing import Call, Timings, interleaved

_OURS, _CEILING = "fastinn", "ceiling"


@dataclass
class Case:
    """What is measured.

    Attributes:
        name: The case within its bench, such as ``"forward, h = 768"``.
        tokens: Rows that one call processes.
        ceiling: Work at whose speed the op would be perfect.
        work: Bytes or FLOP, in the ceiling's unit, that one call cannot do without.
        precision: That of the op, ``"exact"``, ``"high"`` or ``"fast"``.
        backend: Who computes ours.
        absent: Peers that are not there, with the reason.
    """

    name: str
    tokens: int
    ceiling: Ceiling
    work: float
    precision: str
    backend: str
    absent: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Comparison:
    """Times, prints and records; made by the fixture ``comparison``."""

    bench: str
    device: str
    rounds: int
    benchmark: Any
    results: Results
    report: Callable[[str], None]

    def __call__(self, case: Case, ours: Call, peers: Mapping[str, Call], error: float) -> None:
        """Measure ``ours`` against ``peers``.

        Args:
            case: What is measured.
            ours: Our op.
            peers: Calls that do the same, by name.
            error: Largest relative error of our output, measured against float64.
        """
        candidates = {_OURS: ours, _CEILING: case.ceiling.call, **peers}
        timings = interleaved(candidates, device=self.device, rounds=self.rounds)
        peaks = {name: peak_memory(candidates[name], self.device) for name in (_OURS, *peers)}
        figure = self._figure(case, timings, peaks, error)
        self._hand_to_plugin(ours, figure)
        self.report(summary(figure))
        self.results.add(figure)

    def _figure(
        self, case: Case, timings: Timings, peaks: Mapping[str, int], error: float
    ) -> dict[str, Any]:
        speed = case.ceiling.work / timings.seconds(_CEILING)
        # By rounds, as for peers: the ceiling moves with the machine too.
        rate = timings.ratio(_CEILING, _OURS).median * case.work / case.ceiling.work
        peers = [name for name in timings.rounds if name not in (_OURS, _CEILING)]
        return {
            "bench": self.bench,
            "case": case.name,
            "precision": case.precision,
            "backend": case.backend,
            "tokens": case.tokens,
            "ns_per_token": timings.seconds(_OURS) / case.tokens * 1e9,
            "ceiling": {"name": case.ceiling.name, f"{case.ceiling.unit}/s": speed},
            "share_of_ceiling": rate,
            "peak_memory": peaks[_OURS],
            "error": error,
            "peers": {
                name: {**timings.ratio(name, _OURS)._asdict(), "peak_memory": peaks[name]}
                for name in peers
            },
            "absent": dict(case.absent),
        }

    def _hand_to_plugin(self, ours: Call, figure: dict[str, Any]) -> None:
        """Let pytest-benchmark time ours too: it keeps the history (``--benchmark-autosave``)."""

        def finished() -> None:
            ours()
            if self.device == "cuda":
                torch.cuda.synchronize()

        self.benchmark.pedantic(finished, rounds=3)
        self.benchmark.extra_info.update(figure)


def summary(figure: Mapping[str, Any]) -> str:
    """Return the line that a bench prints."""
    what = f"{figure['bench']}: {figure['case']}, {figure['precision']}, {figure['backend']}"
    found = [
        f"{figure['ns_per_token']:,.2f} ns/token",
        f"{figure['share_of_ceiling']:.0%} of {figure['ceiling']['name']}",
        f"peak {figure['peak_memory'] / 2**20:,.0f} MiB",
        f"error {figure['error']:.0e}",
    ]
    ratios = [
        f"{peer['median']:.2f}x {name} ({peer['low']:.2f} to {peer['high']:.2f})"
        for name, peer in figure["peers"].items()
    ]
    absent = [f"{name}: {reason}" for name, reason in figure["absent"].items()]
    return f"{what} | {', '.join(found)} | {', '.join([*ratios, *absent]) or 'no peers'}"
