"""The GPU's way to second moments, judged in float64: Triton's kernels and, on a GPU, CUDA's.

Without a GPU Triton's interpreter runs them. It adds in IEEE float32: how tensor cores truncate
is not seen there.
"""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tolerances import SECOND_MOMENTS

pytest.importorskip("triton", reason="triton is not installed")

from fastinn.ops import backends, second_moments
from fastinn.ops.second_moments import _cuda, _panels, _triton
from fastinn.ops.second_moments._panels import Tile
from fastinn.ops.second_moments._triton import Configuration

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# As small as tiles go: the interpreter takes a millisecond a step.
SMALL = {tma: Configuration(tma, Tile(128, 64), 32, 4, 2) for tma in (False, True)}


KERNELS = {"cuda": _cuda, "triton": _triton}


@pytest.fixture(params=["pointers", "tma"] if DEVICE == "cpu" else list(KERNELS))
def small_tiles(request, monkeypatch):
    """Kernels with small tiles: Triton's with loads of either kind, or on a GPU CUDA's, too."""
    backend = "triton" if DEVICE == "cpu" else request.param
    if backend == "cuda" and backends()["second_moments"]["cuda"] is not True:
        pytest.skip(str(backends()["second_moments"]["cuda"]))
    monkeypatch.setattr(Tested, "backend", backend)
    monkeypatch.setattr(_triton, "STAGE_ROWS", 128)
    monkeypatch.setattr(_triton, "STAGE_COLUMNS", 64)
    if DEVICE == "cpu":
        tiles = SMALL[request.param == "tma"]
        monkeypatch.setattr(_triton, "configuration", lambda *_: tiles)


class Tested:
    """Which kernels :func:`computed` runs."""

    backend = "triton"


def randn(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(dtype).to(DEVICE)


def computed(x, y=None, *, weight=None, shift_x=None, shift_y=None, precision="high"):
    shape = (len(x), x.shape[2], (x if y is None else y).shape[2])
    out = torch.full(shape, math.nan, dtype=torch.float64, device=DEVICE)
    KERNELS[Tested.backend].accumulate(x, y, weight, shift_x, shift_y, precision, out)
    return out


def prepared(rows, weight, shift):
    wide = rows.double() if shift is None else rows.double() - shift.double()[:, None]
    return wide if weight is None else wide * weight.double().sqrt()[:, None]


def error(x, y=None, *, weight=None, shift_x=None, shift_y=None, precision="high"):
    """Largest error relative to the norms of both columns: that of an uncentred correlation."""
    options = {"weight": weight, "shift_x": shift_x, "shift_y": shift_y, "precision": precision}
    out = computed(x, y, **options)
    a = prepared(x, weight, shift_x)
    b = a if y is None else prepared(y, weight, shift_y)
    norms = a.norm(dim=1)[:, :, None] * b.norm(dim=1)[:, None, :]
    relative = (out - a.mT @ b).abs() / norms
    return relative.where(norms > 0, out.abs()).max().item() if out.numel() else 0.0


@pytest.mark.campaign("R12")
@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    layers=st.integers(1, 2),
    n=st.integers(0, 140),
    d_x=st.integers(0, 70),
    d_y=st.none() | st.integers(0, 70),
    weighted=st.booleans(),
    shifted=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    precision=st.sampled_from(["exact", "high", "fast"]),
)
def test_any_shape(small_tiles, layers, n, d_x, d_y, weighted, shifted, dtype, precision):
    x = randn(layers, n, d_x, dtype=dtype)
    y = None if d_y is None else randn(layers, n, d_y, seed=1)
    options = {"weight": randn(n, seed=2).abs() if weighted else None}
    if shifted:
        options["shift_x"] = randn(layers, d_x, seed=3, dtype=torch.float64)
    assert error(x, y, precision=precision, **options) <= SECOND_MOMENTS[precision]


@pytest.mark.parametrize("capability", [(0, 0), (9, 0)], ids=["pointers", "tma"])
@pytest.mark.parametrize("form", ["split", "single", "double"])
def test_configurations_of_real_launches(monkeypatch, capability, form):
    if DEVICE == "cpu":
        monkeypatch.setattr(_triton, "_capability", lambda _: capability)
    precision = {"split": "high", "single": "fast", "double": "exact"}[form]
    assert error(randn(1, 200, 130), precision=precision) <= SECOND_MOMENTS[precision]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_rows_take_one_exact_product(small_tiles, dtype):
    x = randn(1, 300, 20, dtype=dtype)
    assert torch.equal(computed(x, precision="high"), computed(x, precision="fast"))
    assert error(x) <= SECOND_MOMENTS["high"]


def test_outliers_do_not_spoil_their_neighbours(small_tiles):
    x = randn(1, 700, 12)
    x[..., 1] *= 1e-30
    x[..., 2] *= 1e30
    x[..., 3] = 0.0
    x[..., 4] = 17.3
    x[..., 5] = 1e-42  # subnormal
    x[:, 13, 6] = 3e4  # one entry far above its column
    x[..., 7] *= torch.logspace(-12, 12, 700, device=DEVICE)
    assert error(x) <= SECOND_MOMENTS["high"]


@pytest.mark.parametrize("size", [1e-33, 1e-19, 1e19, 3e38], ids=str)
def test_bfloat16_rows_of_any_size(small_tiles, size):
    # No subnormal numbers: the interpreter misreads those of bfloat16.
    x = (randn(1, 40, 5).clamp(-1, 1) * size).bfloat16()
    assert error(x) <= SECOND_MOMENTS["high"]


def test_correlations_of_columns_with_large_means(small_tiles):
    offset = 1000 * randn(1, 6, seed=1)
    x = randn(1, 600, 6) + offset[:, None]
    out = computed(x, shift_x=offset)[0]
    centred = (x.double() - offset.double()[:, None])[0]
    scale = out.diagonal().sqrt()
    expected = centred.T @ centred / (centred.norm(dim=0)[:, None] * centred.norm(dim=0))
    actual = out / (scale[:, None] * scale)
    assert (actual - expected).abs().max() <= SECOND_MOMENTS["high"]


def test_rows_of_weight_zero_count_for_nothing(small_tiles):
    x = randn(2, 90, 7)
    weight = (torch.arange(90, device=DEVICE) % 3 > 0).float()
    torch.testing.assert_close(
        computed(x, weight=weight, precision="exact"),
        computed(x[:, weight > 0], precision="exact"),
        rtol=0,
        atol=1e-10,
    )


@pytest.mark.parametrize("precision", ["exact", "high", "fast"])
def test_symmetric_and_the_same_every_time(small_tiles, precision):
    x = randn(1, 140, 131)
    first = computed(x, precision=precision)
    assert torch.equal(first, first.mT)
    assert torch.equal(first, computed(x, precision=precision))


def test_layers_do_not_see_each_other(small_tiles):
    x, y = randn(3, 140, 9), randn(3, 140, 70, seed=1)
    together = computed(x, y)
    alone = [computed(x[k : k + 1], y[k : k + 1])[0] for k in range(3)]
    assert torch.equal(together, torch.stack(alone))


@pytest.mark.parametrize("precision", ["exact", "high", "fast"])
def test_is_a_backend_of_the_op(small_tiles, precision):
    x, y, shift = randn(60, 9), randn(60, 5, seed=1), randn(9, seed=2)
    mask = torch.arange(60, device=DEVICE) % 2 > 0
    options = {"weight": mask, "shift": shift, "precision": precision}
    actual = second_moments(x, y, **options, backend=Tested.backend)
    defined = second_moments(x, y, **options | {"precision": "exact"}, backend="reference")
    assert (actual - defined).abs().max() <= SECOND_MOMENTS[precision] * 60


LAYOUTS = {
    "columns": lambda t: t.repeat_interleave(2, dim=2)[..., ::2],
    "rows": lambda t: torch.cat([t, t], dim=1)[:, ::2],
    "transposed": lambda t: t.mT.contiguous().mT,
    "expanded": lambda t: t[:, :1].expand(t.shape),
    "layers": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strided_rows(small_tiles, layout):
    x, y = (LAYOUTS[layout](randn(2, 70, d, seed=d)) for d in (5, 9))
    assert error(x, y) <= SECOND_MOMENTS["high"]
    assert error(x) <= SECOND_MOMENTS["high"]


@pytest.mark.parametrize("d_y", [None, 70], ids=["symmetric", "cross"])
def test_panels_launches_and_groups_of_layers_are_merged(monkeypatch, small_tiles, d_y):
    monkeypatch.setattr(_panels, "_PANEL_ROWS", (128, 128))
    monkeypatch.setattr(_panels, "_STAGED_ROWS", 256)
    monkeypatch.setattr(_panels, "_FULL_GPU", 1)
    # The second panel has columns a thousand times as large, thus another scale.
    x = randn(2, 600, 9)
    x[:, 130:250] *= 1000
    y = None if d_y is None else randn(2, 600, d_y, seed=1)
    assert error(x, y) <= SECOND_MOMENTS["high"]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_not_finite_is_not_hidden(small_tiles, value):
    x = randn(1, 50, 4)
    x[0, 7, 2] = value
    out = computed(x)[0]
    assert not out[2].isfinite().any()
    assert out[[0, 1, 3]][:, [0, 1, 3]].isfinite().all()


@pytest.mark.parametrize("tile", [Tile(128, 128), Tile(64, 64), Tile(128, 192), Tile(128, 64)])
@pytest.mark.parametrize("d", [1, 64, 769, 5000])
def test_every_entry_of_the_lower_triangle_is_in_one_tile(tile, d):
    covered = torch.zeros(d, d, dtype=torch.int32)
    for i, j in _panels._tiles(d, d, tile, True, torch.device("cpu")).tolist():
        rows = slice(i * tile.height, (i + 1) * tile.height)
        covered[rows, j * tile.width : (j + 1) * tile.width] += 1
    assert covered.max() == 1
    assert covered.tril().sum() == d * (d + 1) // 2
