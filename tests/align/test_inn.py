"""The trained bijection: its start, its training, its checkpoints and what it saves."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from fastinn.align import CCA, INN, LinearMap, MLPMap, Procrustes, load_aligner
from fastinn.nn import AffineCoupling, GraphedFlow, bert_inn

QUICK = {"progress": False, "max_steps": 40, "n_couplings": 2, "batch_size": 64}
N, D = 3000, 6


def nonlinear_pair(n=N, d=D) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator)
    a, b = x.chunk(2, dim=1)
    y = torch.cat([a, b * torch.exp(0.8 * torch.tanh(a)) + a.square()], dim=1)
    return x, y @ torch.randn(d, d, generator=generator)


@pytest.fixture(scope="module")
def pair():
    return nonlinear_pair()


@pytest.fixture(scope="module")
def fitted(pair):
    return INN(**QUICK).fit(*pair)


@pytest.mark.parametrize(
    ("start", "closed_form"),
    [("cca", CCA()), ("linear", LinearMap()), ("procrustes", Procrustes())],
    ids=["cca", "linear", "procrustes"],
)
def test_step_0_is_the_closed_form(pair, start, closed_form):
    inn = INN(start=start, max_steps=0, progress=False, validation=0.5)
    inn.fit(*pair, validation=pair)
    expected = closed_form.fit(*pair).transform(pair[0])
    torch.testing.assert_close(inn.transform(pair[0]), expected, rtol=1e-4, atol=1e-4)
    assert (inn.best_step_, inn.n_steps_) == (0, 0)


def test_the_identity_start_only_moves_the_mean(pair):
    x, y = pair
    inn = INN(start="identity", max_steps=0, progress=False).fit(x, y, validation=pair)
    torch.testing.assert_close(inn.transform(x), x - x.mean(0) + y.mean(0), rtol=1e-4, atol=1e-4)


def test_beats_the_linear_map_both_ways_on_held_out_rows(pair):
    (x, y), (x_test, y_test) = ((r[:2400] for r in pair), (r[2400:] for r in pair))
    inn = INN(max_steps=200, progress=False, batch_size=128).fit(x, y)
    assert inn.score(x_test, y_test) > LinearMap().fit(x, y).score(x_test, y_test) + 0.1
    assert inn.score_inverse(x_test, y_test) > LinearMap().fit(y, x).score(y_test, x_test) + 0.05


def test_is_a_bijection(pair, fitted):
    x, y = pair
    torch.testing.assert_close(fitted.inverse_transform(fitted.transform(x)), x, rtol=0, atol=1e-4)
    torch.testing.assert_close(fitted.transform(fitted.inverse_transform(y)), y, rtol=0, atol=1e-3)
    assert 0 < fitted.round_trip_ < 1e-4


@pytest.mark.parametrize(
    ("n_couplings", "expected"),
    [(0, "-"), (1, "-f-"), (2, "-fl-"), (5, "-fl-fl-f-")],
    ids=["none", "one", "pair", "odd"],
)
def test_two_couplings_between_rotations_move_one_half_each(pair, n_couplings, expected):
    inn = INN(n_couplings=n_couplings, max_steps=0, progress=False).fit(*pair)
    layers = inn.network_.core.layers
    order = [v.options["kept"][0] if isinstance(v, AffineCoupling) else "-" for v in layers]
    assert "".join(order) == expected


def test_sub_networks_are_wider_than_the_space():
    def width(d, hidden=None):
        x = torch.randn(200, d, generator=torch.Generator().manual_seed(0))
        inn = INN(max_steps=0, hidden=hidden, progress=False).fit(x, x)
        return len(inn.network_.core.layers[1].weights[0])

    assert (width(4), width(6), width(130), width(30, hidden=10)) == (64, 72, 1544, 10)


def rank_deficient(n, d, seed):
    """Rows as LayerNorm leaves them: on a hyperplane, some features large."""
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    rows = torch.nn.functional.layer_norm(rows, (d,))
    return rows * torch.logspace(-1, 3, d) + 50


@pytest.mark.parametrize("start", ["cca", "linear", "procrustes", "identity"])
@pytest.mark.parametrize("objective", ["two-way", "forward"])
def test_null_directions_do_not_break_a_start(start, objective):
    x, y = rank_deficient(500, 8, seed=0), rank_deficient(500, 8, seed=1)
    inn = INN(start=start, objective=objective, **QUICK).fit(x, y)
    assert inn.round_trip_ < 1e-3
    assert inn.skipped_steps_ == 0


def test_the_null_direction_of_x_goes_to_that_of_y():
    x = rank_deficient(500, 8, seed=0)
    inn = INN(max_steps=0, progress=False).fit(x, x.flip(1))
    torch.testing.assert_close(inn.transform(x), x.flip(1), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(inn.inverse_transform(x.flip(1)), x, rtol=1e-4, atol=1e-2)


def test_history_starts_at_step_0_and_holds_both_directions(fitted):
    history = fitted.history_
    assert history.keys() == {"steps", "seconds", "forward_r2", "inverse_r2", "round_trip"}
    assert history["steps"][0] == 0
    assert history["steps"][-1] == fitted.n_steps_ == QUICK["max_steps"]
    assert sorted(history["seconds"]) == history["seconds"]


def test_the_forward_objective_only_scores_forward(pair):
    assert "inverse_r2" not in INN(objective="forward", **QUICK).fit(*pair).history_


def test_keeps_the_best_checkpoint(pair):
    x, y = pair
    inn = INN(**{**QUICK, "max_steps": 30, "lr": 0.3}).fit(x, y, validation=pair)
    scores = [
        sum(both)
        for both in zip(inn.history_["forward_r2"], inn.history_["inverse_r2"], strict=True)
    ]
    kept = inn.history_["steps"].index(inn.best_step_)
    assert kept == int(np.argmax(scores))
    assert inn.score(x, y) == pytest.approx(inn.history_["forward_r2"][kept], abs=1e-6)
    assert inn.score_inverse(x, y) == pytest.approx(inn.history_["inverse_r2"][kept], abs=1e-6)


def test_a_perfect_start_is_kept():
    x = torch.randn(600, 4, generator=torch.Generator().manual_seed(0))
    inn = INN(**{**QUICK, "lr": 0.1}).fit(x, 2 * x.flip(1) + 1)
    assert inn.best_step_ == 0
    assert inn.score(x, 2 * x.flip(1) + 1) > 1 - 1e-9


def test_recomputing_trains_the_same_map(pair, fitted):
    recomputed = INN(memory="recompute", **QUICK).fit(*pair)
    assert recomputed.score(*pair) == pytest.approx(fitted.score(*pair), abs=1e-3)
    assert recomputed.score_inverse(*pair) == pytest.approx(fitted.score_inverse(*pair), abs=1e-3)


def test_steps_round_and_maps_do_not(pair, monkeypatch):
    inn, seen = INN(**QUICK), {"_loss": set(), "_validate": set()}
    for name, found in seen.items():
        monkeypatch.setattr(inn, name, watched(inn, getattr(inn, name), found))
    inn.fit(*pair)
    assert seen == {"_loss": {"fast"}, "_validate": {"exact"}}
    assert precisions(inn) == {"exact"}


def watched(inn, method, found):
    def watching(*rows):
        found.update(precisions(inn))
        return method(*rows)

    return watching


def precisions(inn) -> set[str]:
    layers = inn.network_.core.layers
    return {v.options["precision"] for v in layers if isinstance(v, AffineCoupling)}


def test_a_failed_step_leaves_the_precision_as_it_was(pair, monkeypatch):
    inn = INN(**QUICK)

    networks = []

    def failing(*_):
        networks.append(SimpleNamespace(network_=inn.network_))
        raise OSError("disk")

    monkeypatch.setattr(inn, "_loss", failing)
    with pytest.raises(OSError, match="disk"):
        inn.fit(*pair)
    assert precisions(networks[0]) == {"exact"}


def test_rounded_steps_learn_as_much(pair, fitted):
    exact = INN(training_precision="exact", **QUICK).fit(*pair)
    assert fitted.score(*pair) == pytest.approx(exact.score(*pair), abs=5e-3)
    assert fitted.score_inverse(*pair) == pytest.approx(exact.score_inverse(*pair), abs=5e-3)


def test_same_seed_same_bits(pair, fitted):
    again, other = INN(**QUICK).fit(*pair), INN(random_state=1, **QUICK).fit(*pair)
    assert torch.equal(again.transform(pair[0]), fitted.transform(pair[0]))
    assert not torch.equal(other.transform(pair[0]), fitted.transform(pair[0]))


def test_training_leaves_the_global_generators_alone(pair, monkeypatch):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeds GPUs"))
    INN(**{**QUICK, "max_steps": 1}).fit(*pair)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "none_left",
    [{"max_steps": 0}, {"max_seconds": 0}, {"max_steps": None, "max_seconds": 0}],
    ids=["steps", "time", "time alone"],
)
def test_no_budget_leaves_the_start(pair, none_left):
    fitted = INN(**{**QUICK, **none_left}).fit(*pair)
    assert fitted.n_steps_ == fitted.best_step_ == 0


def test_two_fits_do_not_share_gradients_or_weights(pair, fitted):
    """One network a map: a second fit starts afresh, and the first map stays what it was."""
    x, y = pair
    before, refitted = fitted.transform(x), INN(**QUICK).fit(y, x)
    assert torch.equal(fitted.transform(x), before)
    assert torch.equal(refitted.fit(x, y).transform(x), before)


def test_saves_and_loads_bit_for_bit(pair, fitted, tmp_path):
    x, y = pair
    fitted.save(tmp_path / "map")
    loaded = load_aligner(tmp_path / "map")
    assert torch.equal(loaded.transform(x), fitted.transform(x))
    assert torch.equal(loaded.inverse_transform(y), fitted.inverse_transform(y))
    assert loaded.history_ == fitted.history_
    assert loaded.get_params() == {**fitted.get_params(), "hidden": 12 * D}
    assert json.loads((tmp_path / "map" / "aligner.json").read_text())["class"] == "INN"


@pytest.mark.parametrize("template", [INN(n_couplings=2), MLPMap()], ids=["inn", "mlp"])
def test_a_saved_map_outlives_another_default_width(pair, template, tmp_path, monkeypatch):
    x, y = pair
    fitted = template.set_params(max_steps=2, progress=False).fit(x, y)
    fitted.save(tmp_path)
    monkeypatch.setattr(type(template), "_width", lambda self, d: self.hidden or 16)
    assert torch.equal(load_aligner(tmp_path).transform(x), fitted.transform(x))


def test_an_untrained_map_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="not fitted"):
        INN().save(tmp_path / "map")
    assert not list(tmp_path.iterdir())


def test_no_dropout_or_other_randomness_in_a_fitted_map(pair, fitted):
    assert torch.equal(fitted.transform(pair[0]), fitted.transform(pair[0]))


@pytest.mark.parametrize("error", [KeyboardInterrupt])
def test_ctrl_c_keeps_the_best_checkpoint(pair, monkeypatch, error):
    x, y = pair
    inn, calls = INN(**{**QUICK, "max_steps": 100}), []
    loss = inn._loss

    def interrupted(*batch):
        calls.append(batch)
        if len(calls) > 50:
            raise error
        return loss(*batch)

    monkeypatch.setattr(inn, "_loss", interrupted)
    with pytest.warns(UserWarning, match=r"interrupted after 50 steps \(50%\)"):
        inn.fit(x, y)
    assert 0 < inn.best_step_ <= 50
    assert inn.n_steps_ == 50
    assert inn.score(x, y) > INN(max_steps=0, progress=False).fit(x, y).score(x, y)


def test_steps_with_a_bad_gradient_are_skipped_and_counted(pair, monkeypatch):
    inn, calls = INN(**QUICK), []
    loss = inn._loss

    def sometimes_nan(*batch):
        calls.append(batch)
        return loss(*batch) * (float("nan") if len(calls) % 10 == 0 else 1.0)

    monkeypatch.setattr(inn, "_loss", sometimes_nan)
    inn.fit(*pair)
    assert (inn.n_steps_, inn.skipped_steps_) == (40, 4)
    assert torch.isfinite(inn.transform(pair[0])).all()


def test_max_seconds_ends_training(pair):
    inn = INN(**{**QUICK, "max_steps": None}, max_seconds=0.3).fit(*pair)
    assert inn.n_steps_ > 0
    assert inn.history_["seconds"][-1] >= 0.3


class Blocks:
    """Rows in blocks that know their document; counts how often it is read."""

    def __init__(self, x, y, documents, size):
        self.parts, self.passes = (
            list(zip(*(r.split(size) for r in (x, y, documents)), strict=True)),
            0,
        )

    def __iter__(self):
        self.passes += 1
        return iter(self.parts)


def test_a_stream_trains_like_rows_in_memory(pair, fitted, monkeypatch):
    monkeypatch.setattr("fastinn.align._trained.BUFFER_ROWS", 400)
    x, y = pair
    blocks = Blocks(x, y, torch.arange(N) // 10, size=170)
    streamed = INN(**{**QUICK, "max_steps": 120}).fit_stream(blocks)
    in_memory = INN(**{**QUICK, "max_steps": 120}).fit(x, y, documents=torch.arange(N) // 10)
    assert blocks.passes > 2
    assert streamed.score(x, y) == pytest.approx(in_memory.score(x, y), abs=0.05)
    assert streamed.score_inverse(x, y) == pytest.approx(in_memory.score_inverse(x, y), abs=0.05)


@pytest.mark.parametrize("given", [[], ()], ids=["list", "tuple"])
def test_no_blocks_are_named(tmp_path, given):
    for options in ({}, {"checkpoint": tmp_path}):
        with pytest.raises(ValueError, match="there are no rows to"):
            INN(**QUICK).fit_stream(given, **options)


def test_blocks_that_pass_once_are_refused(pair):
    block = (*pair, torch.arange(N))
    with pytest.raises(ValueError, match="blocks is an iterator, which is used up after one pass"):
        INN(**QUICK).fit_stream(b for b in [block])


@pytest.mark.parametrize("kind", ["numpy", "float64", "strided"])
def test_gives_back_what_it_gets(pair, kind):
    x, y = pair
    convert = {
        "numpy": lambda r: r.numpy(),
        "float64": lambda r: r.double(),
        "strided": lambda r: r.repeat_interleave(2, dim=1)[:, ::2],
    }[kind]
    inn = INN(**QUICK).fit(convert(x), convert(y))
    mapped = inn.transform(convert(x))
    assert type(mapped) is type(convert(x))
    assert mapped.dtype == convert(x).dtype
    assert inn.score(convert(x), convert(y)) == pytest.approx(
        INN(**QUICK).fit(x, y).score(x, y), abs=1e-3
    )


def test_only_full_blocks_become_graphs(pair, monkeypatch):
    for module in ("_trained", "inn"):
        monkeypatch.setattr(f"fastinn.align.{module}.INFERENCE_ROWS", 64)
    inn, x = INN(**QUICK).fit(*pair), pair[0][:150]
    expected, back = inn.transform(x), inn.inverse_transform(x)
    sizes = []

    def spied(run):
        return lambda self, rows: sizes.append(len(rows)) or run(self, rows)

    monkeypatch.setattr(GraphedFlow, "forward", spied(GraphedFlow.forward))
    monkeypatch.setattr(GraphedFlow, "inverse", spied(GraphedFlow.inverse))
    assert torch.equal(inn.transform(x), expected)
    assert not sizes
    inn.set_params(cuda_graphs=True)
    assert torch.equal(inn.transform(x), expected)
    assert torch.equal(inn.inverse_transform(x), back)
    assert sizes == [64, 64, 64, 64]


def test_large_means_cost_no_digits_in_float64(pair):
    x, y = (r.double() for r in pair)
    near, far = INN(**QUICK).fit(x, y), INN(**QUICK).fit(x + 1e6, y - 1e6)
    assert far.score(x + 1e6, y - 1e6) == pytest.approx(near.score(x, y), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "both"}, "objective is 'both', expected one of 'two-way', 'forward'"),
        ({"start": "random"}, "start is 'random', expected one of"),
        ({"max_steps": -1}, "max_steps is -1, expected at least 0"),
        ({"max_steps": None}, "max_steps and max_seconds are both None; give one"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"validation": 1.0}, "validation is 1.0, expected a share"),
        ({"n_couplings": -1}, "n_couplings is -1, expected at least 0"),
        ({"precision": "low"}, "precision is 'low', expected one of"),
        ({"training_precision": "low"}, "training_precision is 'low', expected one of"),
        ({"memory": "none"}, "memory is 'none', expected one of"),
        ({"activation": "tanh"}, "activation is 'tanh', expected one of 'relu'"),
        ({"hidden": 0}, "hidden is 0, expected at least 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_options_are_named(pair, options, message):
    with pytest.raises(ValueError, match=message):
        INN(**{**QUICK, **options}).fit(*pair)


def test_spaces_of_different_width_are_refused(pair):
    with pytest.raises(ValueError, match="X has 6 features and Y has 5: a bijection needs"):
        INN(**QUICK).fit(pair[0], pair[1][:, :5])


def test_recovers_a_published_inn_better_than_a_line():
    torch.manual_seed(0)
    hidden, x = bert_inn(4), torch.randn(2000, 4)
    weights = {k: 1.5 * v for k, v in hidden.to_published().items()}
    with torch.no_grad():
        y = bert_inn(4, published=weights)(x)[0]
    inn = INN(progress=False, max_steps=100, batch_size=128, n_couplings=6).fit(x[:1600], y[:1600])
    linear = LinearMap().fit(x[:1600], y[:1600])
    assert 1 - inn.score(x[1600:], y[1600:]) < 0.5 * (1 - linear.score(x[1600:], y[1600:]))


def test_a_quiet_fit_warns_of_nothing(pair):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        INN(**QUICK).fit(*pair)
