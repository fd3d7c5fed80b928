"""One bijection a seed: pairs by composition, cycles, both common spaces, files."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from tolerances import CYCLE, MOMENTS

from fastinn.align import CCA, GCCA, INN, Factors, Hub, LinearMap, Procrustes, load_aligner
from fastinn.align._consensus import COMMON, Consensus, WithConsensus
from fastinn.align._together import Together
from fastinn.metrics import evaluate
from fastinn.moments import Moments
from fastinn.nn import AffineCoupling

QUICK = INN(progress=False, max_steps=30, n_couplings=2, batch_size=64)
NAMES = ("a", "b", "c")
N, D = 1500, 6


def seeds(n=N, d=D, noise=0.2, seed=0):
    """Spaces that hold the same variables, each bent and turned its own way."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, d))
    rows = {}
    for name in NAMES:
        seen = shared + noise * rng.normal(size=(n, d))
        bent = seen + 0.5 * np.sin(seen @ np.linalg.qr(rng.normal(size=(d, d)))[0])
        rows[name] = bent @ rng.normal(size=(d, d)) + 3 * rng.normal(size=d)
    return rows


def centred(rows):
    """Rows as LayerNorm leaves them: without their mean, so on a hyperplane."""
    return {name: x - x.mean(axis=1, keepdims=True) for name, x in rows.items()}


def part(rows, chosen):
    return {name: x[chosen] for name, x in rows.items()}


def moments_of(rows):
    widths = {name: x.shape[1] for name, x in rows.items()}
    return Moments(widths, precision="exact").update(rows)


ROWS = seeds()
TRAIN, TEST = part(ROWS, slice(0, 1200)), part(ROWS, slice(1200, None))

COMMON_SPACES = pytest.mark.parametrize("pivot", [None, "b"], ids=["consensus", "pivot"])
TEMPLATES = pytest.mark.parametrize("template", [QUICK, CCA()], ids=["inn", "cca"])


@pytest.fixture(scope="module", params=[None, "b"], ids=["consensus", "pivot"])
def trained(request):
    return Hub(QUICK, pivot=request.param).fit(TRAIN)


def test_a_map_goes_through_the_common_space(trained):
    x = TEST["a"]
    common = trained.maps_["a"].transform(x)
    expected = trained.maps_["c"].inverse_transform(common)
    np.testing.assert_allclose(trained.transform(x, "a", "c"), expected, atol=CYCLE)


def test_any_cycle_leads_back(trained):
    x = torch.tensor(TEST["a"])
    moved = x
    for source, target in (("a", "b"), ("b", "c"), ("c", "a")):
        moved = trained.transform(moved, source, target)
    assert (moved - x).abs().max() <= CYCLE * x.std()


def test_a_detour_changes_nothing(trained):
    x = TEST["a"]
    detour = trained.transform(trained.transform(x, "a", "b"), "b", "c")
    np.testing.assert_allclose(detour, trained.transform(x, "a", "c"), atol=CYCLE * x.std())


def test_a_map_of_the_hub_is_evaluated_as_any_bijection(trained):
    there, back = trained.aligner("a", "c"), trained.aligner("c", "a")
    scores = evaluate(there, TEST["a"], TEST["c"])
    assert scores["r2"] == pytest.approx(there.score(TEST["a"], TEST["c"]))
    assert scores["inverse_r2"] == pytest.approx(back.score(TEST["c"], TEST["a"]))
    assert scores["round_trip"] <= CYCLE


def test_every_directed_pair_beats_its_null(trained):
    for s in NAMES:
        for t in NAMES:
            if s != t:
                fitted = trained.aligner(s, t)
                assert fitted.score(TEST[s], TEST[t]) > 0.5
                assert fitted.score(TEST[s], np.roll(TEST[t], 1, axis=0)) < 0


def test_score_is_the_mean_over_directed_pairs(trained):
    scores = [trained.aligner(s, t).score(TEST[s], TEST[t]) for s in NAMES for t in NAMES if s != t]
    assert trained.score(TEST) == pytest.approx(np.mean(scores))


def test_the_pivot_has_no_map(trained):
    assert list(trained.maps_) == [name for name in NAMES if name != trained.pivot]


def test_a_pivots_own_maps_are_the_direct_ones():
    hub = Hub(CCA(), pivot="b").fit(TRAIN)
    direct = CCA().fit(TRAIN["a"], TRAIN["b"])
    np.testing.assert_allclose(
        hub.transform(TEST["a"], "a", "b"), direct.transform(TEST["a"]), atol=MOMENTS
    )
    np.testing.assert_allclose(
        hub.transform(TEST["b"], "b", "a"), direct.inverse_transform(TEST["b"]), atol=MOMENTS
    )


@COMMON_SPACES
@TEMPLATES
def test_an_exact_linear_bijection_is_found(template, pivot):
    rng = np.random.default_rng(1)
    x = centred({"x": rng.normal(size=(400, D))})["x"]
    rows = {name: x @ np.linalg.qr(rng.normal(size=(D, D)))[0] + 1 for name in NAMES}
    hub = Hub(template, pivot=pivot).fit(part(rows, slice(0, 300)))
    assert hub.score(part(rows, slice(300, None))) > 1 - 1e-6


@COMMON_SPACES
def test_training_improves_on_its_start(pivot):
    rows = seeds(noise=0.0)
    train, test = part(rows, slice(0, 1200)), part(rows, slice(1200, None))
    longer = clone(QUICK).set_params(max_steps=150, n_couplings=8)
    start = Hub(CCA(), pivot=pivot).fit(train).score(test)
    assert Hub(longer, pivot=pivot).fit(train).score(test) > start + 0.001


@COMMON_SPACES
def test_null_directions_are_no_harm(pivot):
    rows = centred(seeds())
    hub = Hub(QUICK, pivot=pivot).fit(part(rows, slice(0, 1200)))
    assert hub.score(part(rows, slice(1200, None))) > 0.5


@COMMON_SPACES
@TEMPLATES
def test_a_stream_of_blocks(template, pivot):
    blocks = [(part(TRAIN, slice(i, i + 300)), np.arange(i, i + 300)) for i in range(0, 1200, 300)]
    streamed = Hub(template, pivot=pivot).fit_stream(blocks)
    if isinstance(template, CCA):
        whole = Hub(template, pivot=pivot).fit(TRAIN)
        for source, target in (("a", "c"), ("b", "a")):
            found = streamed.transform(TEST[source], source, target)
            expected = whole.transform(TEST[source], source, target)
            np.testing.assert_allclose(found, expected, atol=1e-7)
    else:
        assert streamed.score(TEST) > 0.5


@COMMON_SPACES
def test_the_start_is_the_closed_form(pivot):
    start = clone(QUICK).set_params(max_steps=0)
    found = Hub(start, pivot=pivot).fit(TRAIN, validation=TEST).transform(TEST["a"], "a", "c")
    expected = Hub(CCA(), pivot=pivot).fit(TRAIN).transform(TEST["a"], "a", "c")
    np.testing.assert_allclose(found, expected, atol=1e-3)


@COMMON_SPACES
@TEMPLATES
@pytest.mark.parametrize("layer", [None, 3, (3, 1)], ids=["names", "layers", "heads"])
def test_save_and_load(template, pivot, layer, tmp_path):
    def view(name):
        return name if layer is None else (name, layer)

    rows = {view(name): x for name, x in TRAIN.items()}
    hub = Hub(template, pivot=pivot and view(pivot)).fit(rows)
    hub.save(tmp_path)
    loaded = load_aligner(tmp_path)
    assert loaded.get_params(deep=False).keys() == hub.get_params(deep=False).keys()
    assert loaded.pivot == hub.pivot
    assert vars(loaded).get("history_") == vars(hub).get("history_")
    assert loaded.seeds_ == hub.seeds_
    for s, t in (("a", "b"), ("c", "a")):
        expected = hub.transform(TEST[s], view(s), view(t))
        np.testing.assert_array_equal(loaded.transform(TEST[s], view(s), view(t)), expected)


def test_a_saved_hub_outlives_another_default_width(tmp_path, monkeypatch):
    hub = Hub(clone(QUICK).set_params(hidden=None)).fit(TRAIN)
    hub.save(tmp_path)
    monkeypatch.setattr(INN, "_width", lambda self, d: self.hidden or 16)
    found = load_aligner(tmp_path).transform(TEST["a"], "a", "b")
    np.testing.assert_array_equal(found, hub.transform(TEST["a"], "a", "b"))


def test_a_failed_fit_leaves_the_hub_before_it_whole():
    hub = Hub(CCA()).fit(TRAIN)
    expected = hub.transform(TEST["a"], "a", "c")
    few = {name: x[:4] for name, x in zip("abz", TRAIN.values(), strict=True)}
    with pytest.raises(ValueError, match="rows are too few"):
        hub.fit(few)
    assert hub.seeds_ == ["a", "b", "c"]
    np.testing.assert_array_equal(hub.transform(TEST["a"], "a", "c"), expected)


def test_steps_are_counted_and_saved(trained, tmp_path):
    trained.save(tmp_path)
    for hub in (trained, load_aligner(tmp_path)):
        assert (hub.n_steps_, hub.skipped_steps_) == (QUICK.max_steps, 0)


def test_validation_rows_pick_the_checkpoint():
    """Where they are paired wrongly, nothing that is learned helps."""
    wrong = {name: np.roll(x, 7 * i, axis=0) for i, (name, x) in enumerate(TEST.items())}
    kept = Hub(QUICK).fit(TRAIN, validation=wrong)
    assert len(kept.history_["forward_r2"]) > 2
    assert kept.history_["forward_r2"][0] < 0
    best = np.argmax(kept.history_["forward_r2"])
    assert kept.best_step_ == kept.history_["steps"][best]


def test_validation_may_be_a_share_of_the_documents():
    assert Hub(QUICK).fit(TRAIN, documents=np.arange(1200) // 10).score(TEST) > 0.5


def test_steps_round_and_scores_do_not(monkeypatch):
    seen = {"loss": set(), "validate": set()}
    for name, found in seen.items():
        method = getattr(Together, name)

        def watching(together, *rows, method=method, found=found):
            found.update(m.precision for m in together.modules() if isinstance(m, AffineCoupling))
            return method(together, *rows)

        monkeypatch.setattr(Together, name, watching)
    Hub(QUICK).fit(TRAIN)
    assert seen == {"loss": {"fast"}, "validate": {"exact"}}


def test_ctrl_c_keeps_the_best_checkpoint(monkeypatch):
    def interrupted(self, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Together, "loss", interrupted)
    with pytest.warns(UserWarning, match="interrupted"):
        hub = Hub(QUICK).fit(TRAIN)
    assert hub.interrupted_
    assert (hub.best_step_, hub.score(TEST) > 0.5) == (0, True)


def test_partners_are_all_others():
    """Each pair is trained: the gradient of a batch of one seed reaches every other map."""
    hub = Hub(QUICK).fit(TRAIN)
    networks = [fitted.network_ for fitted in hub.maps_.values()]
    together = Together(networks, random_state=0)
    rows = torch.cat([torch.tensor(x[:64]) for x in TRAIN.values()], dim=1)
    losses = {round(together.loss(rows, rows[:, :1]).item(), 6) for _ in range(20)}
    assert len(losses) == 2  # one a shift
    together.loss(rows, rows[:, :1]).backward()
    assert all(p.grad is not None for p in together.parameters())


def test_consensus_is_a_turned_and_scaled_gcca():
    factors = Factors(moments_of(ROWS))
    found = Consensus(factors, NAMES)({name: torch.tensor(x) for name, x in ROWS.items()}).numpy()
    components = GCCA().from_moments(factors).consensus(ROWS)
    back = np.linalg.lstsq(components, found, rcond=None)[0]
    np.testing.assert_allclose(components @ back, found, atol=1e-7)


def test_errors_in_the_consensus_count_as_they_do_in_the_seeds():
    """Its square is the mean over seeds of the relative error that it makes in their rows."""
    factors = Factors(moments_of(ROWS))
    common = Consensus(factors, NAMES)({name: torch.tensor(x) for name, x in ROWS.items()}).numpy()
    error = np.random.default_rng(2).normal(size=(5, D))
    shares = []
    for x in ROWS.values():
        decoder = LinearMap().fit(common, x).weight_.numpy()
        shares.append(((error @ decoder) ** 2).sum(axis=1) / x.var(axis=0).sum())
    unit = np.mean([x.var(axis=0).sum() for x in ROWS.values()])
    np.testing.assert_allclose((error**2).sum(axis=1) / unit, np.mean(shares, axis=0), rtol=1e-7)


def test_moments_of_the_consensus_are_those_of_its_rows():
    factors = Factors(moments_of(ROWS))
    consensus = Consensus(factors, NAMES)
    rows = consensus({name: torch.tensor(x) for name, x in ROWS.items()}).numpy()
    found, expected = WithConsensus(factors, consensus), moments_of({**ROWS, COMMON: rows})
    for a, b in ((COMMON, COMMON), (COMMON, "b"), ("c", COMMON), ("a", "b")):
        np.testing.assert_allclose(found.cov(a, b), expected.cov(a, b), atol=1e-7)
    np.testing.assert_allclose(found.mean(COMMON), expected.mean(COMMON), atol=1e-7)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: Hub(QUICK).fit({"a": ROWS["a"]}),
            ValueError,
            r"two seeds or more, these are \['a'",
        ),
        (lambda: Hub(QUICK, pivot="z").fit(ROWS), ValueError, "pivot is 'z', expected one of"),
        (lambda: Hub(LinearMap()).fit(ROWS), TypeError, "LinearMap, which has no inverse"),
        (
            lambda: Hub(QUICK).fit({**ROWS, "c": ROWS["c"][:, :5]}),
            ValueError,
            "seed 'a' has 6 features and 'c' has 5",
        ),
        (
            lambda: Hub(QUICK).fit({**ROWS, "c": ROWS["c"][1:]}),
            ValueError,
            "seed 'b' has 1500 rows and seed 'c' has 1499",
        ),
        (lambda: Hub(CCA()).fit({**ROWS, "c": ROWS["c"] / 0}), ValueError, "seed 'c' holds NaN"),
        (lambda: Hub(QUICK).from_moments(moments_of(ROWS)), TypeError, "INN is trained on rows"),
        (lambda: Hub(QUICK).fit_stream([]), ValueError, "there are no rows to learn from"),
        (lambda: Hub(QUICK).fit_stream(iter([])), ValueError, "blocks is an iterator, which is"),
        (lambda: Hub(QUICK).transform(ROWS["a"], "a", "b"), NotFittedError, "Hub"),
        (
            lambda: Hub(CCA()).fit(ROWS).transform(ROWS["a"], "a", "z"),
            ValueError,
            "unknown seed 'z', the hub connects 'a', 'b', 'c'",
        ),
        (
            lambda: Hub(CCA()).fit(ROWS).transform(ROWS["a"][:, :5], "a", "b"),
            ValueError,
            "X has 5 features, the aligner was fitted on 6",
        ),
        (lambda: Hub(CCA()).fit(ROWS).score({"a": ROWS["a"]}), ValueError, "directed pairs"),
        (
            lambda: Hub(Procrustes()).fit(ROWS).aligner("a", "b").fit(ROWS["a"], ROWS["b"]),
            TypeError,
            "call fit of the Hub",
        ),
        (
            lambda: Hub(CCA()).fit(ROWS).aligner("a", "b").save("nowhere"),
            TypeError,
            "call save of the Hub",
        ),
    ],
    ids=[
        "one seed",
        "pivot",
        "no bijection",
        "widths",
        "rows",
        "nan",
        "moments",
        "empty stream",
        "iterator",
        "not fitted",
        "unknown seed",
        "width",
        "one to score",
        "fit of a map",
        "save of a map",
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_seeds_that_numpy_numbers_are_saved(tmp_path):
    rows = {np.int64(place): x for place, x in enumerate(TRAIN.values())}
    hub = Hub(CCA(), pivot=np.int64(1)).fit(rows)
    hub.save(tmp_path)
    expected = hub.transform(TEST["a"], 0, 2)
    np.testing.assert_array_equal(load_aligner(tmp_path).transform(TEST["a"], 0, 2), expected)
