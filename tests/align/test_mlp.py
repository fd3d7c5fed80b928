"""The free network: its start, its training and what it saves."""

import pytest
import torch

from fastinn.align import LinearMap, MLPMap, load_aligner

QUICK = {"progress": False, "max_steps": 100, "batch_size": 64, "hidden": 64}


@pytest.fixture(scope="module")
def pair():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 6, generator=generator)
    return x, (x.square() + x) @ torch.randn(6, 4, generator=generator)


@pytest.fixture(scope="module")
def fitted(pair):
    return MLPMap(**QUICK).fit(*pair)


def test_step_0_is_least_squares(pair):
    mlp = MLPMap(max_steps=0, progress=False).fit(*pair, validation=pair)
    expected = LinearMap().fit(*pair).transform(pair[0])
    torch.testing.assert_close(mlp.transform(pair[0]), expected, rtol=1e-4, atol=1e-4)


def test_beats_least_squares_on_held_out_rows(pair):
    (x, y), (x_test, y_test) = ((r[:2400] for r in pair), (r[2400:] for r in pair))
    mlp = MLPMap(**QUICK).fit(x, y)
    assert mlp.score(x_test, y_test) > LinearMap().fit(x, y).score(x_test, y_test) + 0.2


def test_same_seed_same_bits(pair, fitted):
    assert torch.equal(MLPMap(**QUICK).fit(*pair).transform(pair[0]), fitted.transform(pair[0]))


def test_history_scores_forward_only(fitted):
    assert fitted.history_.keys() == {"steps", "seconds", "forward_r2"}
    assert fitted.best_step_ in fitted.history_["steps"]


def test_saves_and_loads_bit_for_bit(pair, fitted, tmp_path):
    fitted.save(tmp_path)
    assert torch.equal(load_aligner(tmp_path).transform(pair[0]), fitted.transform(pair[0]))


def test_fast_precision_scores_like_exact(pair, fitted):
    fast = MLPMap(precision="fast", **QUICK).fit(*pair)
    assert fast.score(*pair) == pytest.approx(fitted.score(*pair), abs=0.02)


def test_maps_are_exact_whatever_the_steps_were(pair, fitted):
    linear_plus = fitted.network_.core
    assert (fitted.training_precision, linear_plus.precision) == ("fast", "exact")
    with torch.no_grad():
        x = fitted.network_.source(pair[0])
        plain = fitted.network_.target.undo(linear_plus.linear(x) + linear_plus.mlp(x))
    torch.testing.assert_close(fitted.transform(pair[0]), plain.float())


def test_does_not_invert(fitted):
    assert not hasattr(fitted, "inverse_transform")


def test_rows_of_another_width_are_refused(fitted):
    with pytest.raises(ValueError, match="X has 5 features, the aligner was fitted on 6"):
        fitted.transform(torch.ones(3, 5))
