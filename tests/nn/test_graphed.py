"""Graphed flows: what is recorded when, and on a GPU that replays are the flow bit for bit."""

import copy

import pytest
import torch
from torch import nn

from fastinn.nn import AffineCoupling, Flow, GraphedFlow, InvertibleLinear, _recording
from fastinn.ops import use_backend

D = 6
DIRECTIONS = [False, True]
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Replayed:
    """A recording that runs on the CPU: it computes from the memory that it was recorded on."""

    def __init__(self, function, rows, log_det, beside=None):
        (layers,) = function.args
        tensors = [t for layer in layers for t in (*layer.parameters(), *layer.buffers())]
        self.function = copy.deepcopy(function, {id(t): t.detach() for t in tensors})
        self.layers, self.shape, self.beside = layers, rows.shape, beside
        self.made.append(self)

    def __deepcopy__(self, memo):
        raise TypeError("a graph cannot be copied")

    def __call__(self, rows, log_det):
        assert rows.shape == self.shape
        return self.function(rows, log_det)


@pytest.fixture
def recordings(monkeypatch):
    """The recordings that are made from here on, on a CPU that plays the GPU."""
    monkeypatch.setattr(Replayed, "made", [], raising=False)
    monkeypatch.setattr(_recording, "Recording", Replayed)
    monkeypatch.setattr(_recording, "recordable", lambda _: not torch.is_grad_enabled())
    return Replayed.made


def flow_of(*, learned=True, d=D, **options):
    torch.manual_seed(0)
    flow = Flow(
        *([InvertibleLinear(d)] if learned else []),
        AffineCoupling(d, 8, **options),
        InvertibleLinear(d, orthogonal=True),
        AffineCoupling(d, 8, **options),
    )
    return disturb(flow)


def disturb(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return module


def run(flow, rows, inverse=False):
    with torch.no_grad():
        return flow.inverse(rows) if inverse else flow(rows)


def assert_same(graphed, rows, inverse=False):
    expected = run(graphed.flow, rows, inverse)
    torch.testing.assert_close(run(graphed, rows, inverse), expected, rtol=0, atol=0)


@pytest.mark.parametrize("inverse", DIRECTIONS)
def test_replays_are_the_flow(recordings, inverse):
    graphed = GraphedFlow(flow_of())
    for _ in range(3):
        assert_same(graphed, torch.randn(5, D), inverse)
    assert len(recordings) == 1


def test_learned_matrices_run_between_the_graphs(recordings):
    flow = Flow(flow_of(learned=False), Flow(InvertibleLinear(D)), flow_of(learned=False))
    assert_same(GraphedFlow(flow), torch.randn(5, D))
    assert [list(recording.layers) for recording in recordings] == [
        [flow.layers[0]],
        [flow.layers[2]],
    ]
    first, second = recordings
    assert first.beside is None
    assert second.beside is first


def test_one_recording_a_direction_shape_dtype_and_backend(recordings):
    graphed = GraphedFlow(Flow(InvertibleLinear(D, orthogonal=True)), max_graphs=9)
    x = torch.randn(5, D)
    for _ in range(2):
        run(graphed, x)
        run(graphed, x, inverse=True)
        run(graphed, x[:4])
        run(graphed, x.double())
        run(graphed, x.T.contiguous().T)
        with use_backend("reference"):
            run(graphed, x)
    assert len(recordings) == 5


def test_parameters_changed_in_place_are_read_anew(recordings):
    graphed, x = GraphedFlow(flow_of()), torch.randn(5, D)
    before, _ = run(graphed, x)
    disturb(graphed.flow)
    assert_same(graphed, x)
    assert not torch.equal(run(graphed, x)[0], before)
    assert len(recordings) == 1


def replace_data(coupling):
    coupling.biases[0].data = torch.randn_like(coupling.biases[0])


def replace_parameter(coupling):
    coupling.biases[0] = nn.Parameter(torch.randn_like(coupling.biases[0]))


def transpose_in_place(coupling):
    coupling.weights[1].data = coupling.weights[1].data.T


def test_rotations_elsewhere_are_recorded_again(recordings):
    graphed, x = GraphedFlow(flow_of()), torch.randn(5, D)
    run(graphed, x)
    graphed.flow.layers[2].weight = InvertibleLinear(D, orthogonal=True).weight
    assert_same(graphed, x)
    assert len(recordings) == 2


@pytest.mark.parametrize("move", [replace_data, replace_parameter, transpose_in_place])
def test_parameters_elsewhere_are_recorded_again(recordings, move):
    graphed, x = GraphedFlow(flow_of()), torch.randn(5, D)
    run(graphed, x)
    run(graphed, x, inverse=True)
    move(graphed.flow.layers[1])
    assert_same(graphed, x)
    assert len(recordings) == 3
    # The memory of graphs that are gone cannot be shared.
    assert recordings[-1].beside is None


def test_the_graph_unused_for_longest_is_dropped(recordings):
    graphed = GraphedFlow(flow_of(learned=False), max_graphs=2)
    x = torch.randn(9, D)
    for n, n_recordings in [(4, 1), (5, 2), (4, 2), (6, 3), (4, 3), (5, 4)]:
        run(graphed, x[:n])
        assert len(recordings) == n_recordings


def test_max_graphs_is_checked():
    with pytest.raises(ValueError, match="max_graphs is 0"):
        GraphedFlow(flow_of(), max_graphs=0)


@pytest.mark.parametrize("inverse", DIRECTIONS)
def test_gradients_are_those_of_the_flow(recordings, inverse):
    graphed, x = GraphedFlow(flow_of()), torch.randn(5, D)
    out, log_det = graphed.inverse(x) if inverse else graphed(x)
    (out.sum() + log_det.sum()).backward()
    assert all(parameter.grad is not None for parameter in graphed.parameters())
    assert not recordings


def test_the_cpu_has_no_graphs():
    # Where there is no GPU, to record anything is an error.
    assert_same(GraphedFlow(flow_of()), torch.randn(5, D))


def test_copies_record_their_own(recordings):
    graphed, x = GraphedFlow(flow_of()), torch.randn(5, D)
    run(graphed, x)
    twin = copy.deepcopy(graphed)
    disturb(twin.flow)
    assert_same(twin, x)
    assert len(recordings) == 2
    assert recordings[-1].beside is None


@pytest.fixture
def counted(monkeypatch):
    """The true recordings that are made from here on."""
    made = []

    class Counted(_recording.Recording):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(_recording, "Recording", Counted)
    return made


@on_gpu
@pytest.mark.parametrize("backend", ["reference", None])
@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("inverse", DIRECTIONS)
def test_replays_on_a_gpu(counted, inverse, precision, backend):
    flow = flow_of(d=64, precision=precision, backend=backend).cuda()
    graphed = GraphedFlow(flow)
    x = torch.randn(300, 64, device="cuda")
    first = run(graphed, x, inverse)
    kept = [tensor.clone() for tensor in first]
    assert_same(graphed, torch.randn_like(x), inverse)
    disturb(flow)
    assert_same(graphed, x, inverse)
    assert_same(graphed, x[:7], inverse)
    # Later calls have not written to what an earlier one returned.
    torch.testing.assert_close(list(first), kept, rtol=0, atol=0)
    assert len(counted) == 2


@on_gpu
def test_streams_and_inference_mode_on_a_gpu(counted):
    graphed = GraphedFlow(flow_of(d=64).cuda())
    x = torch.randn(300, 64, device="cuda")
    expected = run(graphed.flow, x)
    with torch.inference_mode():
        torch.testing.assert_close(graphed(x * 1), expected, rtol=0, atol=0)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        replayed = run(graphed, x)
    torch.cuda.current_stream().wait_stream(side)
    torch.testing.assert_close(replayed, expected, rtol=0, atol=0)
    assert len(counted) == 1


@on_gpu
def test_dropped_graphs_on_a_gpu(counted):
    graphed = GraphedFlow(flow_of(d=64).cuda(), max_graphs=1)
    x = torch.randn(300, 64, device="cuda")
    for n in (300, 200, 300):
        assert_same(graphed, x[:n])
    replace_data(graphed.flow.layers[1])
    assert_same(graphed, x)
    assert len(counted) == 4
