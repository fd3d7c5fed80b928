"""BERT-INN as an aligner: its own start, its budget, its files."""

import pytest
import torch
from sklearn.base import clone

from fastinn.align import INN, Hub, PublishedBertINN, load_aligner
from fastinn.nn import BertINN, bert_inn

QUICK = PublishedBertINN(max_steps=200, batch_size=64, progress=False)


@pytest.fixture(scope="module")
def pair():
    """Rows, and what a strong network of this very kind makes of them."""
    torch.manual_seed(3)
    x = torch.randn(3000, 6) * 2 + 1
    weights = {name: 2 * tensor for name, tensor in bert_inn(6).to_published().items()}
    with torch.no_grad():
        return x, bert_inn(6, published=weights)(x)[0]


@pytest.fixture(scope="module")
def fitted(pair):
    return clone(QUICK).fit(*pair)


def test_step_0_is_its_own_draw(pair):
    """No closed form: only the means and scales of the two spaces are known to it."""
    x, y = pair
    found = clone(QUICK).set_params(max_steps=0).fit(x, y, validation=pair)
    torch.manual_seed(0)
    standard = (x - x.mean(0)) / x.std(0, correction=0)
    with torch.no_grad():
        expected = bert_inn(x.shape[1])(standard)[0] * y.std(0, correction=0) + y.mean(0)
    torch.testing.assert_close(found.transform(x), expected, rtol=1e-4, atol=1e-4)


def test_the_network_is_the_published_one(fitted):
    flow = fitted.network_.core
    assert isinstance(flow, BertINN)
    weights = flow.to_published()
    assert weights["shift.1.weight"].shape == (24, 24)
    x = torch.randn(5, 6)
    with torch.no_grad():
        again = bert_inn(6, published=weights)(x)[0]
        assert torch.equal(again, flow(x)[0])


def test_training_gains(pair, fitted):
    """Reversed rows are the null; the start, which may be the best checkpoint, is beaten."""
    x, y = pair
    start = clone(QUICK).set_params(max_steps=0).fit(x[:2400], y[:2400])
    assert fitted.best_step_ > 0
    assert fitted.score(x, y) > max(start.score(x, y), 0) + 0.2
    assert fitted.score(x, y.flip(0)) < 0


def test_two_way_training_gives_a_better_inverse(pair, fitted):
    both = clone(QUICK).set_params(objective="two-way").fit(*pair)
    assert both.score_inverse(*pair) > fitted.score_inverse(*pair)
    assert set(both.history_) > {"forward_r2", "inverse_r2"}


def test_save_and_load(pair, fitted, tmp_path):
    fitted.save(tmp_path)
    loaded = load_aligner(tmp_path)
    assert type(loaded) is PublishedBertINN
    assert torch.equal(loaded.transform(pair[0]), fitted.transform(pair[0]))


def test_it_has_no_start_to_choose():
    assert {"start", "n_couplings", "hidden"} & set(QUICK.get_params()) == set()
    assert set(QUICK.get_params()) < set(INN().get_params())


def test_a_hub_of_it(pair):
    x, y = pair
    hub = Hub(clone(QUICK).set_params(max_steps=5)).fit({"a": x, "b": y})
    round_trip = hub.transform(hub.transform(x, "a", "b"), "b", "a")
    torch.testing.assert_close(round_trip, x, rtol=1e-4, atol=1e-4)
