import copy
from itertools import pairwise, product, zip_longest

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from gloo_ranks import reduce_and_save
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import MOMENTS

from fastinn import Moments
from fastinn.moments import _products
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


@pytest.mark.campaign("R10")
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


@pytest.mark.campaign("R10")
def test_outlier_columns_in_float32():
    """A mean of 1000 deviations would cost six digits unshifted."""
    rows = {view: x.astype(np.float32) for view, x in block(30_000, offset=1000.0).items()}
    rows["a"][:, 1] = rows["a"][:, 1] * 1e4 + 1000
    moments = Moments(WIDTHS).update(rows)
    expected = direct_cov(rows["a"].astype(float), rows["b"].astype(float))
    scale = np.sqrt(np.outer(np.diag(moments.cov("a")), np.diag(moments.cov("b"))))
    np.testing.assert_allclose(moments.cov("a", "b") / scale, expected / scale, rtol=0, atol=1e-6)


@pytest.mark.campaign("R10")
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


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_merging_is_associative_on_outlier_columns(data):
    """Means that move by many deviations from part to part, scales over 1e5, any order."""
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    rows = {v: x * 10.0 ** rng.uniform(-3, 2, x.shape[1]) for v, x in block(240).items()}
    drift = np.arange(240)[:, None] / 20
    rows = {view: x + drift * x.std(0) + 1000 * x.std(0) for view, x in rows.items()}
    owner = rng.integers(0, data.draw(st.integers(2, 6)), 240)
    parts = [
        Moments(WIDTHS, mispaired=True).update({v: x[owner == k] for v, x in rows.items()})
        for k in rng.permutation(np.unique(owner))
    ]
    one_by_one, in_pairs = (list(map(copy.deepcopy, parts)) for _ in range(2))
    while len(one_by_one) > 1:
        one_by_one[:2] = [one_by_one[0].merge(one_by_one[1])]
    while len(in_pairs) > 1:
        in_pairs = [a.merge(b) if b else a for a, b in zip_longest(in_pairs[::2], in_pairs[1::2])]
    whole = Moments(WIDTHS).update(rows)
    for a in WIDTHS:
        scale = np.sqrt(np.diag(whole.cov(a)))
        for b in WIDTHS:
            unit = np.outer(scale, np.sqrt(np.diag(whole.cov(b))))
            for one, other in (
                (one_by_one[0].cov(a, b), in_pairs[0].cov(a, b)),
                (one_by_one[0].cov(a, b), whole.cov(a, b)),
                (one_by_one[0].mispaired.cov(a, b), in_pairs[0].mispaired.cov(a, b)),
            ):
                assert (np.abs(one - other) / unit).max() <= 1e-12


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


SEEDS = {(seed, layer): 4 + layer for seed in ("s", "t", "u") for layer in (0, 1)}


def seed_rows(n, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(n, 5)) + 3
    return {view: base @ rng.normal(size=(5, d)) for view, d in SEEDS.items()}


@pytest.mark.parametrize("width", [4096, 9, 1], ids=["one piece", "pieces", "one view a piece"])
@pytest.mark.parametrize("pairs", ["all", "within-layer", "across-seeds"])
def test_every_wanted_pair_and_no_other(monkeypatch, pairs, width):
    monkeypatch.setattr(_products, "_WIDTH", width)
    x = seed_rows(50)
    moments = Moments(SEEDS, pairs=pairs, mispaired=True).update(x)
    wanted = {
        "all": lambda a, b: True,
        "within-layer": lambda a, b: a[1] == b[1],
        "across-seeds": lambda a, b: a[0] != b[0] or a == b,
    }[pairs]
    for a, b in product(SEEDS, SEEDS):
        if wanted(a, b):
            np.testing.assert_allclose(moments.cov(a, b), direct_cov(x[a], x[b]), atol=1e-11)
            assert moments.mispaired.cov(a, b).shape == (SEEDS[a], SEEDS[b])
        else:
            with pytest.raises(ValueError, match="was not accumulated"):
                moments.cov(a, b)
            with pytest.raises(ValueError, match="was not accumulated"):
                moments.mispaired.cov(a, b)


def test_mispaired_rows_are_moved_by_thirds_of_the_block():
    """Three seeds: all pairs across them move by a third of the block or two."""
    x = seed_rows(90)
    mispaired = Moments(SEEDS, pairs="across-seeds", mispaired=True).update(x).mispaired
    distance = {"s": 0, "t": 30, "u": 60}
    for a, b in product(SEEDS, SEEDS):
        if a[0] != b[0]:
            rolled = [np.roll(x[view], distance[view[0]], axis=0) for view in (a, b)]
            np.testing.assert_allclose(mispaired.cov(a, b), direct_cov(*rolled), atol=1e-11)
    for view in SEEDS:  # they know no pairing
        np.testing.assert_allclose(mispaired.cov(view), direct_cov(x[view], x[view]), atol=1e-11)
        np.testing.assert_allclose(mispaired.mean(view), x[view].mean(0), atol=1e-11)


@pytest.mark.parametrize("n", [3, 16_387, 32_769])
def test_no_row_meets_its_own_token(n):
    """Not in the last block of a long update either, which would be one row long."""
    x = np.zeros((n, 1))
    x[-1] = n**0.5  # only this row meeting itself makes a product of n
    moments = Moments({"a": 1, "b": 1}, mispaired=True).update({"a": x, "b": x})
    assert moments.cov("a", "b") > 0.6
    assert moments.mispaired.cov("a", "b") < 0


@pytest.mark.parametrize("n", [60, 16_384, 16_400, 40_000])
def test_rows_that_meet_their_label_are_counted_as_they_are_moved(n):
    labels = torch.arange(n) // (n // 4)
    rows = torch.nn.functional.one_hot(labels).double()
    n_labels = rows.shape[1]
    moments = Moments({"a": n_labels, "b": n_labels}, mispaired=True).update({"a": rows, "b": rows})
    null = moments.mispaired
    joint = null.cov("a", "b") + torch.outer(null.mean("a"), null.mean("b"))
    assert moments.n_meeting_themselves(labels) == round(float(joint.trace()) * n)


def test_mispaired_rows_have_to_be_asked_for_and_bear_no_weights():
    with pytest.raises(ValueError, match=r"make Moments\(mispaired=True\)"):
        _ = Moments(WIDTHS).mispaired
    with pytest.raises(ValueError, match="leave weight or mispaired out"):
        Moments(WIDTHS, mispaired=True).update(block(4), weight=np.ones(4))


# Mean canonical correlation of independent Gaussian rows at d = 768 and n = 1600, 10 000 and
# 100 000: it depends on d / n alone, so smaller problems of the same ratio show it too.
BIAS = {
    "d=768, n=1600": (768, 1600, 0.62, 0.01),
    "d / n = 768 / 10 000": (96, 1250, 0.24, 0.01),
    "d / n = 768 / 100 000": (48, 6250, 0.07, 0.01),
}


@pytest.mark.parametrize(("d", "n", "expected", "within"), BIAS.values(), ids=BIAS)
def test_null_band_shows_the_small_sample_bias(d, n, expected, within):
    """Rows that share everything: mispaired, what is left is the bias of independent rows."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    null = Moments({"a": d, "b": d}, mispaired=True).update({"a": x, "b": x}).mispaired
    own = whiten(null.cov("a")).whitener
    correlations = torch.linalg.svdvals(own.T @ null.cov("a", "b") @ own)
    assert correlations.mean() == pytest.approx(expected, abs=within)


def test_estimate_is_what_is_allocated():
    for pairs, mispaired in product(["all", "across-seeds", [(*SEEDS,)[:2]]], [False, True]):
        moments = Moments(SEEDS, pairs=pairs, mispaired=mispaired).update(seed_rows(9))
        size = Moments.estimate(SEEDS, pairs=pairs, mispaired=mispaired)
        assert size.n_bytes == 8 * moments._total.comoments.numel()


def test_multiberts_fit_into_64_gb():
    """25 seeds, 13 layers, 768 wide; the null bands included, the training and a held-out split."""
    views = {(seed, layer): 768 for seed in range(25) for layer in range(13)}
    size = Moments.estimate(views, pairs="within-layer")
    assert size.n_covariances == 13 * 25 * 26 // 2
    assert size.n_bytes == size.n_covariances * 768**2 * 8 < 20e9
    both = Moments.estimate(views, pairs="within-layer", mispaired=True)
    assert both.n_covariances == 13 * (25 * 26 // 2 + 25 * 24 // 2)
    assert size.n_bytes + both.n_bytes < 64e9
    assert str(size) == "4,225 covariances, 19.9 GB"


def test_what_does_not_fit_is_refused_first(tmp_path):
    views = {(seed, 0): 100_000 for seed in range(100)}
    with pytest.raises(ValueError, match=r"need 404,000\.0 GB and this machine has .* storage"):
        Moments(views)
    with pytest.raises(ValueError, match=r"need 404,000\.0 GB and .* has .* another folder"):
        Moments(views, storage=tmp_path)


@pytest.mark.parametrize("there", [True, False], ids=["file", "nothing"])
def test_storage_that_is_no_folder_is_named(tmp_path, there):
    place, saved = tmp_path / "place", tmp_path / "m"
    if there:
        place.touch()
    Moments(WIDTHS).update(block(40)).save(saved)
    message = r"^storage .*place is no folder; make it, or give"
    with pytest.raises(ValueError, match=message):
        Moments(WIDTHS, storage=place)
    with pytest.raises(ValueError, match=message):
        Moments.load(saved, storage=place)


def test_on_disk_is_the_same_and_leaves_nothing(tmp_path):
    kept, in_memory = (
        Moments(WIDTHS, mispaired=True, storage=storage).update(block(40)).update(block(30, 1))
        for storage in (tmp_path, None)
    )
    assert_same(kept, in_memory, tolerance=0)
    assert not list(tmp_path.iterdir())  # the file has no name: even a crash leaves none
    assert_same(Moments(WIDTHS, mispaired=True).merge(kept), in_memory, tolerance=0)
    kept.save(tmp_path / "m")
    loaded = Moments.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.mispaired.cov("a", "b"), in_memory.mispaired.cov("a", "b"))


def test_totals_are_updated_in_place():
    moments = Moments(WIDTHS).update(block(10))
    before = moments._total.comoments.data_ptr()
    moments.update(block(10, 1)).merge(Moments(WIDTHS).update(block(5, 2)))
    assert moments._total.comoments.data_ptr() == before


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


@pytest.mark.campaign("R10")
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
        (_with(b=torch.ones(4, 5, requires_grad=True)), None, r"view 'b' requires .* x.detach\(\)"),
    ],
    ids=["rows", "nan", "width", "unknown", "missing", "empty", "weights", "negative", "gradient"],
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
