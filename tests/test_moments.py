from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from gloo_ranks import reduce_and_save
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import MOMENTS

from fastinn import Moments
from fastinn.ops import whiten

WIDTHS = {"a": 3, "b": 5, "c": 2}


def block(n, seed=0, offset=0.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(n, 6))
    return {
        view: (base @ rng.normal(size=(6, d)) + offset).astype(dtype) for view, d in WIDTHS.items()
    }


def direct_cov(x, y):
    return (x - x.mean(0)).T @ (y - y.mean(0)) / len(x)


def assert_same(first, second, tolerance=1e-12):
    assert first.count == second.count
    for a in first.views:
        scale = np.sqrt(np.diag(first.cov(a)).max())
        assert (
            np.abs(np.asarray(first.mean(a)) - np.asarray(second.mean(a))).max()
            <= tolerance * scale
        )
        difference = np.asarray(first.cov(a)) - np.asarray(second.cov(a))
        assert np.abs(difference).max() <= tolerance * scale**2


@pytest.mark.parametrize("n", [1, 7, 20_000])
@pytest.mark.parametrize("offset", [0.0, 1e6], ids=["centred", "offset"])
def test_equals_direct_computation(n, offset):
    rows = block(n, offset=offset)
    moments = Moments(WIDTHS).update(rows)
    assert moments.count == n
    for a in WIDTHS:
        np.testing.assert_allclose(moments.mean(a), rows[a].mean(0), rtol=MOMENTS, atol=MOMENTS)
        for b in WIDTHS:
            np.testing.assert_allclose(
                moments.cov(a, b), direct_cov(rows[a], rows[b]), rtol=0, atol=MOMENTS
            )


def test_outlier_columns_in_float32():
    """A mean of 1000 deviations would cost six digits unshifted."""
    rows = {view: x.astype(np.float32) for view, x in block(30_000, offset=1000.0).items()}
    rows["a"][:, 1] = rows["a"][:, 1] * 1e4 + 1000
    moments = Moments(WIDTHS).update(rows)
    expected = direct_cov(rows["a"].astype(float), rows["b"].astype(float))
    scale = np.sqrt(np.outer(np.diag(moments.cov("a")), np.diag(moments.cov("b"))))
    np.testing.assert_allclose(moments.cov("a", "b") / scale, expected / scale, rtol=0, atol=1e-6)


def test_constant_column_has_no_variance():
    rows = block(50, offset=0.1)
    rows["b"][:, 2] = 0.1
    moments = Moments(WIDTHS).update(rows).update(rows)
    assert not moments.cov("b")[2].any()
    assert not moments.cov("a", "b")[:, 2].any()


@given(cuts=st.lists(st.integers(1, 99), max_size=4, unique=True), data=st.data())
@settings(max_examples=25, deadline=None)
def test_blocks_merge_in_any_grouping(cuts, data):
    rows = block(100, offset=3.0)
    edges = [0, *sorted(cuts), 100]
    parts = [
        Moments(WIDTHS).update({view: x[i:j] for view, x in rows.items()})
        for i, j in pairwise(edges)
    ]
    while len(parts) > 1:
        place = data.draw(st.integers(0, len(parts) - 2))
        parts[place : place + 2] = [parts[place].merge(parts[place + 1])]
    assert_same(parts[0], Moments(WIDTHS).update(rows))


def test_merge_into_empty_shares_nothing():
    other = Moments(WIDTHS).update(block(20))
    before = other.cov("a").copy()
    merged = Moments(WIDTHS).merge(other).update(block(20, seed=1))
    np.testing.assert_array_equal(other.cov("a"), before)
    assert merged.count == 40
    assert isinstance(merged.mean("a"), np.ndarray)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30).filter(any))
@settings(max_examples=25, deadline=None)
def test_weights_are_repeats(repeats):
    rows = block(len(repeats), offset=2.0)
    weighted = Moments(WIDTHS).update(rows, weight=np.array(repeats))
    repeated = Moments(WIDTHS).update({v: np.repeat(x, repeats, 0) for v, x in rows.items()})
    assert weighted.count == repeated.count
    np.testing.assert_allclose(weighted.cov("a", "b"), repeated.cov("a", "b"), atol=1e-12)


def test_pairing_is_kept():
    rows = block(200)
    shuffled = {**rows, "b": rows["b"][::-1]}
    paired = Moments(WIDTHS).update(rows).cov("a", "b")
    unpaired = Moments(WIDTHS).update(shuffled).cov("a", "b")
    assert np.abs(paired - unpaired).max() > 0.5


@pytest.mark.parametrize("precision", ["exact", "high", "fast"])
def test_symmetry_is_exact(precision):
    rows = block(9000, dtype=np.float32)
    moments = Moments(WIDTHS, precision=precision).update(rows).update(rows)
    np.testing.assert_array_equal(moments.cov("a"), moments.cov("a").T)
    np.testing.assert_array_equal(moments.cov("a", "b"), moments.cov("b", "a").T)


def test_within_layer_pairs():
    x = block(30)
    views = {("s0", 1): "a", ("s1", 1): "b", ("s0", 2): "c"}
    moments = Moments({v: WIDTHS[name] for v, name in views.items()}, pairs="within-layer")
    moments.update({view: x[name] for view, name in views.items()})
    expected = direct_cov(x["a"], x["b"])
    np.testing.assert_allclose(moments.cov(("s0", 1), ("s1", 1)), expected, atol=1e-12)
    with pytest.raises(ValueError, match=r"\('s0', 1\) and \('s0', 2\) was not accumulated"):
        moments.cov(("s0", 1), ("s0", 2))


def test_listed_pairs():
    x = block(30)
    moments = Moments(WIDTHS, pairs=[("a", "b"), ("b", "a"), ("c", "c")]).update(x)
    np.testing.assert_allclose(moments.cov("b", "a"), direct_cov(x["b"], x["a"]), atol=1e-12)
    np.testing.assert_allclose(moments.cov("c"), direct_cov(x["c"], x["c"]), atol=1e-12)
    with pytest.raises(ValueError, match="'a' and 'c' was not accumulated"):
        moments.cov("a", "c")


@pytest.mark.parametrize(
    ("dtype", "precision", "expected"),
    [
        (torch.float64, "fast", 1e-10),
        (torch.float32, "exact", 1e-10),
        (torch.float32, "high", 1e-6),
        (torch.float16, "exact", 2.0**-17),
        (torch.bfloat16, "high", 2.0**-11),
        (torch.float32, "fast", 2.0**-11),
    ],
    ids=str,
)
def test_resolution_follows_the_coarsest_rounding(dtype, precision, expected):
    rows = {view: torch.tensor(x).to(dtype) for view, x in block(10).items()}
    assert Moments(WIDTHS, precision=precision).update(rows).resolution == expected


@pytest.mark.parametrize("precision", ["exact", "high", "fast"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_resolution_tells_null_directions_from_rounding(dtype, precision):
    x = torch.randn(5000, 48, generator=torch.Generator().manual_seed(0))
    x[:, 3] = 20 * x[:, 3] + 30
    x = (x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True)
    moments = Moments({"a": 48}, precision=precision).update({"a": x.to(dtype)})
    assert whiten(moments.cov("a"), threshold=moments.resolution).rank == 47


@pytest.mark.parametrize(
    "convert",
    [torch.tensor, lambda x: x, lambda x: np.repeat(x, 2, axis=1)[:, ::2], lambda x: x[::-1][::-1]],
    ids=["torch", "numpy", "strided", "negative-strides"],
)
def test_kinds_of_array(convert):
    rows = {view: convert(x) for view, x in block(40).items()}
    moments = Moments(WIDTHS).update(rows)
    assert type(moments.cov("a")) is type(rows["a"])
    np.testing.assert_allclose(moments.cov("a"), Moments(WIDTHS).update(block(40)).cov("a"))


@pytest.mark.parametrize("pairs", ["all", [("a", "b")]], ids=["all", "list"])
def test_save_and_load(tmp_path, pairs):
    moments = Moments(WIDTHS, pairs=pairs, precision="exact").update(block(40, offset=5.0))
    moments.save(tmp_path / "m.safetensors")
    loaded = Moments.load(tmp_path / "m.safetensors")
    assert_same(moments, loaded, tolerance=0)
    assert_same(moments.update(block(9)), loaded.update(block(9)), tolerance=0)
    assert loaded.views == moments.views
    assert loaded.resolution == moments.resolution


def test_save_and_load_seed_layer_views(tmp_path):
    moments = Moments({("s", 0): 3, ("t", 0): 3}, pairs="within-layer")
    moments.update({view: np.eye(3) for view in moments.views}).save(tmp_path / "m")
    assert Moments.load(tmp_path / "m").views == (("s", 0), ("t", 0))


@pytest.mark.parametrize("place", [0.05, 0.3, 0.7, 0.99])
def test_damaged_file(tmp_path, place):
    path = tmp_path / "m.safetensors"
    Moments(WIDTHS).update(block(40)).save(path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"m.safetensors is damaged"):
        Moments.load(path)


def test_truncated_and_missing_file(tmp_path):
    path = tmp_path / "m.safetensors"
    Moments(WIDTHS).update(block(40)).save(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"m.safetensors is damaged"):
        Moments.load(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        Moments.load(tmp_path / "other")


def _with(**changed):
    return {**block(4), **changed}


BAD_ROW = np.vstack([np.ones((2, 5)), np.full((1, 5), np.nan), np.ones((1, 5))])


@pytest.mark.parametrize(
    ("rows", "weight", "message"),
    [
        (_with(b=np.ones((3, 5))), None, "view 'a' has 4 rows and view 'b' has 3"),
        (_with(b=BAD_ROW), None, "view 'b' holds NaN or infinity in 1 of 4 rows, first in row 2"),
        (_with(b=np.ones((4, 6))), None, "view 'b' has 6 features, expected 5"),
        (_with(z=np.ones((4, 6))), None, "unknown view 'z', the views are 'a', 'b', 'c'"),
        ({"a": np.ones((4, 3))}, None, "rows of views 'b', 'c' are missing"),
        (_with(b=np.ones((0, 5))), None, "there is nothing in it"),
        (_with(), np.ones(3), r"weight has shape \(3,\), expected \(4,\)"),
        (_with(), -np.ones(4), "weight holds negative"),
    ],
    ids=["rows", "nan", "width", "unknown", "missing", "empty", "weights", "negative"],
)
def test_bad_rows_are_named_and_nothing_is_added(rows, weight, message):
    moments = Moments(WIDTHS)
    with pytest.raises(ValueError, match=message):
        moments.update(rows, weight)
    assert moments.count == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Moments({}), "n_features is empty"),
        (lambda: Moments({"a": 0}), "view 'a' has width 0"),
        (lambda: Moments(WIDTHS, pairs="some"), "pairs is 'some', expected one of 'all'"),
        (lambda: Moments(WIDTHS, pairs=[("a", "z")]), "pairs names unknown view 'z'"),
        (lambda: Moments(WIDTHS, pairs="within-layer"), r"needs \(seed, layer\) views, not 'a'"),
        (lambda: Moments(WIDTHS, precision="half"), "precision is 'half'"),
        (lambda: Moments(WIDTHS).mean("a"), "hold no rows yet"),
        (lambda: Moments(WIDTHS).update(block(4)).cov("a", "z"), "unknown view 'z'"),
        (lambda: Moments(WIDTHS).merge(Moments({"a": 3})), "views, widths and pairs must be"),
    ],
    ids=["none", "width", "pairs", "pair", "layer", "precision", "empty", "view", "merge"],
)
def test_bad_use(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_all_reduce_in_a_single_process():
    moments = Moments(WIDTHS).update(block(10))
    assert moments.all_reduce() is moments
    assert moments.count == 10


def test_all_reduce_over_ranks(tmp_path):
    blocks = [None, block(10, 1, 1.0), block(20, 2, 2.0)]  # rank 0 has seen nothing
    mp.spawn(reduce_and_save, (str(tmp_path), WIDTHS, blocks), nprocs=3)
    expected = Moments(WIDTHS).update(blocks[1]).update(blocks[2])
    for rank in range(3):
        assert_same(expected, Moments.load(tmp_path / f"{rank}.safetensors"))
