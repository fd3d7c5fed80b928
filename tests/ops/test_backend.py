"""Which backend is chosen, and what is said when it is not there."""

import subprocess
import sys
import warnings

import pytest
import torch

import fastinn
from fastinn.ops import BackendUnavailableError, _backend, affine_coupling, backends, use_backend

OP = "affine_coupling"


@pytest.fixture
def machine(monkeypatch):
    """Pretend that other modules are installed and that there is, or is not, a GPU."""

    def pretend(*installed, gpu=False, interpret=False, capability=(9, 0)):
        monkeypatch.setattr(_backend, "_is_installed", lambda module: module in installed)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
        monkeypatch.setenv("TRITON_INTERPRET", str(int(interpret)))
        _backend._warn_if_cuda_was_not_built.cache_clear()

    yield pretend
    _backend._warn_if_cuda_was_not_built.cache_clear()


@pytest.mark.parametrize("backend", ["cpu", "triton", "cuda"])
def test_every_kernel_is_tested_here(backend):
    """Shows what the tests of the ops leave out on this machine, and why."""
    if (available := backends()[OP][backend]) is not True:
        pytest.skip(available)


def test_names_are_public():
    assert fastinn.backends is backends
    assert fastinn.use_backend is use_backend
    assert fastinn.BackendUnavailableError is BackendUnavailableError


@pytest.mark.parametrize(
    ("installed", "gpu", "device", "chosen"),
    [
        (["fastinn._cpu", "fastinn._cuda", "triton"], True, "cuda", "cuda"),
        (["fastinn._cpu", "triton"], True, "cuda", "triton"),
        (["fastinn._cpu"], True, "cuda", "reference"),
        (["fastinn._cpu", "fastinn._cuda", "triton"], True, "cpu", "cpu"),
        ([], False, "cpu", "reference"),
        (["fastinn._cpu"], False, "mps", "reference"),
    ],
    ids=["cuda", "triton", "bare GPU", "CPU tensor", "nothing built", "other device"],
)
@pytest.mark.filterwarnings("ignore:a CUDA device is there")
def test_the_fastest_is_chosen(machine, installed, gpu, device, chosen):
    machine(*installed, gpu=gpu)
    assert _backend.resolve(OP, None, device) == chosen


@pytest.mark.parametrize(
    ("backend", "installed", "gpu", "reason"),
    [
        ("cpu", [], False, "fastinn._cpu is not built.* C\\+\\+ compiler"),
        ("cuda", ["fastinn._cpu"], True, "fastinn._cuda is not built.* FASTINN_CUDA=ON"),
        ("cuda", ["fastinn._cuda"], False, "no CUDA device is visible"),
        ("cuda", ["fastinn._cuda"], True, "move them to cuda"),
        ("triton", [], True, "triton is not installed, pip install"),
        ("triton", ["triton"], False, "no CUDA device is visible .*TRITON_INTERPRET=1"),
        ("triton", ["triton"], True, "move them to cuda"),
    ],
)
def test_a_named_backend_that_is_missing_raises(machine, backend, installed, gpu, reason):
    machine(*installed, gpu=gpu)
    with pytest.raises(BackendUnavailableError, match=f"{backend}.*cpu tensors: {reason}.*refer"):
        affine_coupling(*[torch.ones(2, 2)] * 3, backend=backend)


def test_a_gpu_that_kernels_are_not_compiled_for_gets_none(machine):
    machine("fastinn._cuda", "triton", gpu=True, capability=(7, 5))
    assert _backend.resolve(OP, None, "cuda") == "triton"
    with pytest.raises(BackendUnavailableError, match=r"need compute capability 8.0, .* has 7.5"):
        _backend.resolve(OP, "cuda", "cuda")


def test_interpreted_triton_takes_cpu_tensors(machine):
    machine("triton", interpret=True)
    assert _backend.resolve(OP, "triton", "cpu") == "triton"


def test_reasons_are_listed(machine):
    machine("fastinn._cpu")
    table = backends()[OP]
    assert table["reference"] is True
    assert table["cpu"] is True
    assert "FASTINN_CUDA=ON" in table["cuda"]
    assert "pip install" in table["triton"]


def test_op_without_a_kernel_says_so(monkeypatch):
    monkeypatch.setattr(_backend, "_kernels", {"new_op": ()})
    assert backends()["new_op"]["cpu"] == "new_op has no cpu kernel"
    assert _backend.resolve("new_op", None, "cpu") == "reference"


def test_missing_cuda_module_is_said_once(machine):
    machine("fastinn._cpu", gpu=True)
    with pytest.warns(RuntimeWarning, match="fastinn._cuda is not built"):
        _backend.resolve(OP, None, "cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _backend.resolve(OP, None, "cuda")


def test_use_backend_holds_inside_the_block_only():
    with use_backend("reference"):
        assert _backend.resolve(OP, None, "cpu") == "reference"
        assert _backend.resolve(OP, "cpu", "cpu") == "cpu"
    assert _backend.resolve(OP, None, "cpu") == "cpu"


def test_use_backend_is_undone_by_errors():
    with pytest.raises(ZeroDivisionError), use_backend("reference"):
        raise ZeroDivisionError
    assert _backend.resolve(OP, None, "cpu") == "cpu"


def test_backward_keeps_the_backend_of_forward():
    x = torch.ones(2, 2, requires_grad=True)
    y, _ = affine_coupling(x, x, x, backend="cpu")
    with use_backend("reference"):
        y.sum().backward()
    assert "affine_coupling" in type(y.grad_fn).__name__
    torch.testing.assert_close(x.grad, torch.full((2, 2), 2 * torch.e + 1))


UNKNOWN = pytest.raises(ValueError, match="backend is 'gpu', expected one of 'reference', 'cpu'")


def test_unknown_name_is_refused():
    with UNKNOWN:
        _backend.resolve(OP, "gpu", "cpu")


def test_unknown_name_is_refused_before_the_block_runs():
    with UNKNOWN, use_backend("gpu"):
        pytest.fail("the block ran")


@pytest.fixture
def narrow_op(monkeypatch):
    """An op whose CUDA kernel knows float32 only."""
    for table in ("_kernels", "_float32_only"):
        monkeypatch.setattr(_backend, table, dict(getattr(_backend, table)))
    _backend.declare("narrow", "cpu", "cuda", float32_only=("cuda",))


@pytest.mark.usefixtures("narrow_op")
def test_float64_falls_back_where_there_is_no_kernel_for_it(machine):
    machine("fastinn._cpu", "fastinn._cuda", gpu=True)
    assert _backend.resolve("narrow", None, "cuda", torch.float32) == "cuda"
    assert _backend.resolve("narrow", None, "cuda", torch.float64) == "reference"
    assert _backend.resolve("narrow", None, "cpu", torch.float64) == "cpu"
    with pytest.raises(BackendUnavailableError, match="no float64 kernel, convert them to float32"):
        _backend.resolve("narrow", "cuda", "cuda", torch.float64)


def test_the_choice_is_marked_as_torch_marks_constants():
    marked = torch.compiler.assume_constant_result(lambda: None)
    assert vars(marked)
    for choice in (_backend.named_backend, _backend.resolve):
        assert vars(choice).items() >= vars(marked).items()


def test_the_compiler_is_not_imported_before_it_is_used():
    code = "import sys, fastinn.ops; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
