"""The sanity check on a small problem: who recovers what."""

import pytest
import torch

from fastinn.align import INN, MLPMap, PublishedBertINN
from fastinn.report.terminal import recovery_table
from fastinn.study import sanity_check


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    entries = sanity_check(
        torch.randn(3000, 8) * 5 + 3,
        documents=torch.arange(3000) // 10,
        strengths=[1.2, 1.7],
        inn=INN(max_steps=150, batch_size=128, n_couplings=6, progress=False),
        published=PublishedBertINN(
            objective="two-way", max_steps=300, batch_size=128, progress=False
        ),
        mlp=MLPMap(max_steps=50, batch_size=128, progress=False),
        progress=False,
    )
    return {(e.bijection, e.strength, e.method, e.direction): e for e in entries}


DIRECTIONS = pytest.mark.parametrize("direction", ["x->y", "y->x"])


def test_every_method_meets_every_bijection_both_ways(found):
    assert len(found) == (2 * 2 + 2) * 6 * 2
    assert all(e.relative_mse == 1 - e.r2 for e in found.values())
    assert all(e.low <= e.relative_mse <= e.high for e in found.values())


def test_one_held_out_document_has_no_interval():
    quick = {"max_steps": 0, "progress": False}
    found = sanity_check(
        torch.randn(60, 4),
        documents=torch.arange(60) // 20,
        bijections=["rotation"],
        inn=INN(**quick),
        published=PublishedBertINN(**quick),
        mlp=MLPMap(**quick),
        progress=False,
    )
    assert {(e.low, e.high) for e in found} == {(None, None)}
    assert " to " not in "".join(map(str, recovery_table(map(vars, found)).columns[3].cells))


NETWORKS = pytest.mark.parametrize("bijection", ["bert-inn", "mixed"])


@DIRECTIONS
@NETWORKS
@pytest.mark.parametrize("method", ["Procrustes", "CCA", "LinearMap"])
def test_linear_maps_miss_the_hidden_networks(found, bijection, method, direction):
    assert found[bijection, 1.7, method, direction].relative_mse > 0.05


@DIRECTIONS
@NETWORKS
def test_strength_is_what_linear_maps_miss(found, bijection, direction):
    weak, strong = (found[bijection, s, "LinearMap", direction].relative_mse for s in (1.2, 1.7))
    assert 1e-4 < weak < strong / 2


@DIRECTIONS
@pytest.mark.parametrize(("bijection", "share"), [("bert-inn", 0.5), ("mixed", 0.7)])
def test_the_inn_leaves_less_than_linear_maps(found, bijection, share, direction):
    linear = found[bijection, 1.7, "LinearMap", direction].relative_mse
    assert found[bijection, 1.7, "INN", direction].relative_mse < share * linear


@DIRECTIONS
def test_a_bert_inn_recovers_one_of_other_weights(found, direction):
    """It begins a good way off, so it does not start from the hidden weights."""
    linear = found["bert-inn", 1.7, "LinearMap", direction].relative_mse
    assert found["bert-inn", 1.7, "PublishedBertINN", direction].relative_mse < 0.2 * linear


def test_no_network_starts_from_the_hidden_weights():
    (forward, _) = sanity_check(
        torch.randn(400, 8),
        bijections=["bert-inn"],
        strengths=[1.0],
        inn=INN(max_steps=0, progress=False),
        published=PublishedBertINN(max_steps=0, progress=False),
        mlp=MLPMap(max_steps=0, progress=False),
        progress=False,
    )[8:10]
    assert forward.method == "PublishedBertINN"
    assert forward.relative_mse > 0.1


@DIRECTIONS
@pytest.mark.parametrize("bijection", ["rotation", "identity"])
@pytest.mark.parametrize("method", ["Procrustes", "CCA", "LinearMap", "INN", "MLPMap"])
def test_every_method_recovers_linear_bijections(found, bijection, method, direction):
    assert found[bijection, None, method, direction].relative_mse < 1e-6


def test_two_documents_are_too_few():
    with pytest.raises(ValueError, match="the rows are of 2 documents, expected 3 or more"):
        sanity_check(torch.randn(40, 2), documents=torch.arange(40) // 20)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bijections": ["cube"]}, "bijection is 'cube', expected one of"),
        ({"strengths": []}, r"strengths is \[\], expected one positive number or more"),
        ({"strengths": [1.0, -1.0]}, r"strengths is \[1.0, -1.0\], expected"),
    ],
    ids=["bijection", "no strength", "negative"],
)
def test_bad_input(wrong, message):
    with pytest.raises(ValueError, match=message):
        sanity_check(torch.randn(10, 2), **wrong)


def test_the_table_names_strength_and_what_linear_maps_leave(found):
    table = recovery_table(vars(entry) for entry in found.values())
    names, left = (list(column.cells) for column in table.columns[:2])
    assert set(names) == {
        *("bert-inn x 1.2", "bert-inn x 1.7", "mixed x 1.2", "mixed x 1.7"),
        *("rotation", "identity"),
    }
    linear = found["mixed", 1.7, "LinearMap", "x->y"].relative_mse
    assert set(left[18:24]) == {f"{linear:.1e}"}
    whole = found["mixed", 1.7, "LinearMap", "y->x"]
    cells = list(table.columns[4].cells)
    assert f"{whole.relative_mse:.1e} ({whole.low:.1e} to {whole.high:.1e})" in cells
