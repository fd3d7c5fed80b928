"""Options and fixtures of the benches.

``pytest bench`` measures and prints; ``--results NAME`` also writes ``bench/results/NAME.json``.
"""

from collections.abc import Callable

import machine
import pytest
import torch
from comparison import Comparison
from results import Results, location

from fastinn.ops import backends

# On the CPU "high" has the arithmetic of "exact".
_PRECISIONS = {"cpu": ["exact", "fast"], "cuda": ["fast", "high", "exact"]}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastinn benches")
    group.addoption("--results", metavar="NAME", help="write bench/results/NAME.json, or a path")
    group.addoption("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    group.addoption("--rounds", type=int, default=5, help="rounds of interleaved timing")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a bench what it asks for: backends of its module's op, precisions, widths."""
    device = _device(metafunc.config)
    for width in {"hidden", "width"}.intersection(metafunc.fixturenames):
        metafunc.parametrize(width, metafunc.module.TOKENS[device])
    if "precision" in metafunc.fixturenames:
        precisions = getattr(metafunc.module, "PRECISIONS", _PRECISIONS)
        metafunc.parametrize("precision", precisions[device])
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", _backends(metafunc.module.OP, device))


def _device(config: pytest.Config) -> str:
    return config.getoption("--device") or ("cuda" if torch.cuda.is_available() else "cpu")


def _backends(op: str, device: str) -> list[str]:
    """Return the compiled backends of ``op``; an op without any is measured as the reference."""
    wanted = {"cpu": ["cpu"], "cuda": ["cuda", "triton"]}[device]
    there = backends().get(op, {})
    return [name for name in wanted if there.get(name) is True] or ["reference"]


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    return _device(request.config)


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest, device: str) -> Results:
    name = request.config.getoption("--results")
    return Results(location(name) if name else None, machine.description(device))


@pytest.fixture
def comparison(
    request: pytest.FixtureRequest,
    benchmark: Callable,
    capsys: pytest.CaptureFixture,
    results: Results,
    device: str,
) -> Comparison:
    """Times one of our ops beside its peers and its ceiling, prints and records the figure."""

    def report(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}", end="")

    rounds = request.config.getoption("--rounds")
    bench = request.path.stem.removeprefix("bench_")
    return Comparison(bench, device, rounds, benchmark, results, report)


class _Benchmark:
    """Stands in for the fixture of pytest-benchmark: runs, and keeps no statistics."""

    def __init__(self) -> None:
        self.extra_info: dict[str, object] = {}

    def pedantic(self, call: Callable[[], object], *, rounds: int) -> None:
        for _ in range(rounds):
            call()


class _WithoutPlugin:
    """Gives the fixture where pytest-benchmark is not installed."""

    @pytest.fixture
    def benchmark(self) -> _Benchmark:
        return _Benchmark()


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("benchmark"):
        config.pluginmanager.register(_WithoutPlugin(), "benchmark-fallback")
