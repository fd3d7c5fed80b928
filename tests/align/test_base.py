import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import fastinn
from fastinn.align import CCA, INN, PWCCA, SVCCA, Bijection, LinearMap, MLPMap, Procrustes

ALIGNERS = {
    "procrustes": Procrustes(scale=False),
    "linear": LinearMap(ridge=(0.1,)),
    "cca": CCA(3, ridge=0.01),
    "svcca": SVCCA(variance=0.9),
    "pwcca": PWCCA(),
}
every_aligner = pytest.mark.parametrize("aligner", ALIGNERS.values(), ids=ALIGNERS)


def rows(n=60, d=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x, x @ rng.normal(size=(d, d)) + 0.1 * rng.normal(size=(n, d)) + 1


@every_aligner
def test_parameters(aligner):
    copy = clone(aligner)
    assert copy.get_params() == aligner.get_params()
    assert copy.set_params(**aligner.get_params()) is copy
    with pytest.raises(NotFittedError, match=type(aligner).__name__):
        copy.transform(rows()[0])


@every_aligner
@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x,
        lambda x: x.astype(np.float32),
        lambda x: x.astype(np.float16),
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        torch.tensor,
        lambda x: torch.tensor(x).bfloat16(),
    ],
    ids=["float64", "float32", "float16", "strided", "torch", "bfloat16"],
)
def test_kind_and_dtype_come_back(aligner, convert):
    x, y = (convert(part) for part in rows())
    fitted = clone(aligner).fit(x, y)
    outputs = [fitted.transform(x)]
    if isinstance(fitted, Bijection):
        outputs.append(fitted.inverse_transform(y))
    for out in outputs:
        assert type(out) is type(x)
        assert out.dtype == x.dtype
        assert out.shape == x.shape


@every_aligner
def test_save_and_load(aligner, tmp_path):
    x, y = rows()
    fitted = clone(aligner).fit(x, y)
    fitted.save(tmp_path / "saved")
    loaded = fastinn.load_aligner(tmp_path / "saved")
    assert type(loaded) is type(fitted)
    np.testing.assert_array_equal(loaded.transform(x), fitted.transform(x))
    assert loaded.score(x, y) == fitted.score(x, y)
    assert loaded.n_features_in_ == 4


@every_aligner
def test_parts_are_as_good_as_the_whole(aligner):
    x, y = rows()
    parts = clone(aligner).partial_fit(x[:25], y[:25]).partial_fit(x[25:], y[25:])
    whole = clone(aligner).fit(x, y)
    np.testing.assert_allclose(parts.transform(x), whole.transform(x), atol=1e-10)


@every_aligner
def test_more_parts_after_a_fit(aligner):
    x, y = rows()
    parts = clone(aligner).fit(x[:25], y[:25]).partial_fit(x[25:], y[25:])
    np.testing.assert_allclose(
        parts.transform(x), clone(aligner).fit(x, y).transform(x), atol=1e-10
    )


def test_parts_cannot_follow_a_loaded_aligner(tmp_path):
    LinearMap().fit(*rows()).save(tmp_path)
    with pytest.raises(ValueError, match="update those moments and call from_moments"):
        fastinn.load_aligner(tmp_path).partial_fit(*rows())


def test_a_failed_fit_leaves_the_one_before_it_whole():
    x, y = rows()
    few = rows(n=4, d=5)
    fitted = CCA().fit(x, y)
    before = fitted.transform(x)
    for again in (fitted.fit, fitted.partial_fit):
        with pytest.raises(ValueError, match=r"rows are too few|has width|features"):
            again(*few)
        np.testing.assert_array_equal(fitted.transform(x), before)
    fitted.partial_fit(x, y)
    np.testing.assert_allclose(fitted.transform(x), before, atol=1e-10)


@pytest.mark.parametrize("network", [INN, MLPMap])
def test_a_failed_training_leaves_the_one_before_it_whole(network):
    x, y = rows()
    fitted = network(max_steps=3, progress=False).fit(x, y)
    before = fitted.transform(x)
    with pytest.raises(ValueError, match="the true rows are all equal"):
        fitted.fit(x[:, :3], y[:, :3], validation=(np.ones((5, 3)), np.ones((5, 3))))
    np.testing.assert_array_equal(fitted.transform(x), before)


def test_parts_that_cannot_be_solved_are_not_kept():
    x, y = rows(n=80)
    fitted = LinearMap(ridge=(0.0, 0.1)).fit(x[:40], y[:40], validation=(x[40:], y[40:]))
    before = fitted.transform(x)
    with pytest.raises(ValueError, match="pass validation= to choose on"):
        fitted.partial_fit(x[40:], y[40:])
    np.testing.assert_array_equal(fitted.transform(x), before)
    fitted.set_params(ridge=0.0).partial_fit(x[40:], y[40:])
    np.testing.assert_allclose(fitted.transform(x), LinearMap().fit(x, y).transform(x), atol=1e-9)


@pytest.mark.parametrize(
    "aligner",
    [
        CCA(np.int64(3), ridge=np.float32(0.01)),
        LinearMap(ridge=np.array([0.1])),
        LinearMap(ridge=(np.float32(0.1),)),
        INN(max_steps=np.int64(2), lr=np.float32(0.01), progress=False),
        MLPMap(max_steps=2, hidden=np.int64(8), progress=False),
    ],
    ids=["numbers", "array", "list", "inn", "mlp"],
)
def test_numpy_parameters_are_saved(aligner, tmp_path):
    x, y = rows()
    aligner.fit(x, y).save(tmp_path)
    np.testing.assert_array_equal(fastinn.load_aligner(tmp_path).transform(x), aligner.transform(x))


def test_fitting_again_forgets():
    x, y = rows()
    again = LinearMap().fit(*rows(seed=1)).fit(x, y)
    np.testing.assert_array_equal(again.transform(x), LinearMap().fit(x, y).transform(x))


def test_score_needs_the_right_pairing():
    """Source and target rows of different batches were once compared."""
    x, y = rows()
    fitted = LinearMap().fit(x, y)
    assert fitted.score(x, y) > 0.9
    assert fitted.score(x, np.roll(y, 1, axis=0)) < 0


def test_shuffled_pairing_is_not_learned():
    x, y = rows(600)
    assert LinearMap().fit(x[300:], np.roll(y[300:], 1, axis=0)).score(x[:300], y[:300]) < 0.2


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize("harm", [_flip, _cut], ids=["flip", "cut"])
@pytest.mark.parametrize("name", ["aligner.json", "aligner.safetensors"])
def test_damaged_file_is_named(tmp_path, name, harm):
    CCA().fit(*rows()).save(tmp_path)
    harm(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        fastinn.load_aligner(tmp_path)


@pytest.mark.parametrize("name", ["aligner.json", "aligner.safetensors"])
def test_missing_file_is_named(tmp_path, name):
    CCA().fit(*rows()).save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        fastinn.load_aligner(tmp_path)


def test_files_of_two_saves_are_not_mixed(tmp_path):
    for seed in range(2):
        Procrustes().fit(*rows(seed=seed)).save(tmp_path / str(seed))
    (tmp_path / "0/aligner.json").replace(tmp_path / "1/aligner.json")
    with pytest.raises(ValueError, match=r"aligner.json is damaged or of another save"):
        fastinn.load_aligner(tmp_path / "1")


def test_a_file_is_not_taken_for_a_folder(tmp_path):
    path = tmp_path / "map"
    path.write_text("mine")
    with pytest.raises(NotADirectoryError, match="map is a file; give a folder, or remove it"):
        CCA().fit(*rows()).save(path)
    assert path.read_text() == "mine"


def test_a_save_replaces_the_one_before(tmp_path):
    for seed in range(2):
        CCA().fit(*rows(seed=seed)).save(tmp_path)
    last, (x, _) = CCA().fit(*rows(seed=1)), rows()
    np.testing.assert_array_equal(fastinn.load_aligner(tmp_path).transform(x), last.transform(x))


@pytest.mark.parametrize("name", ["Aligner", "load_aligner", "BaseEstimator"])
def test_only_aligners_are_loaded(tmp_path, name):
    type(name, (CCA,), {})().fit(*rows()).save(tmp_path)
    with pytest.raises(ValueError, match=f"class '{name}' is not an aligner of fastinn"):
        fastinn.load_aligner(tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, x, y: a.transform(x[:, :3]), "X has 3 features, the aligner was fitted on 4"),
        (lambda a, x, y: a.transform(x[0]), r"X has shape \(4,\)"),
        (lambda a, x, y: a.transform(x / 0), "X holds NaN or infinity"),
        (lambda a, x, y: a.inverse_transform(y[:, :3]), "Y has 3 features"),
        (lambda a, x, y: a.fit(x, y[1:]), "X has 60 rows and Y has 59"),
        (lambda a, x, y: a.score(x, y[1:]), "X has 60 rows and Y has 59"),
        (lambda a, x, y: a.score(x[:1], y[:1]), "the true rows are all equal"),
        (lambda a, x, y: a.score(x[:, :3], y), "X has 3 features, the aligner was fitted on 4"),
        # One column of true rows would be broadcast over all that are predicted.
        (lambda a, x, y: a.score(x, y[:, :1]), "Y has 1 features, the aligner was fitted on 4"),
        (lambda a, x, y: a.score_inverse(x[:, :1], y), "X has 1 features, the aligner was fitted"),
        (lambda a, x, y: a.score_inverse(x, y[:, :3]), "Y has 3 features, the aligner was fitted"),
        (lambda a, x, y: a.transform((x * 1e3).astype(np.float16)), "result in torch.float16"),
    ],
    ids=[
        "width",
        "vector",
        "nan",
        "inverse",
        "fit",
        "score",
        "constant",
        "score of X",
        "score of Y",
        "inverse score of X",
        "inverse score of Y",
        "overflow",
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_input(call, message):
    x, y = rows()
    aligner = CCA().fit(x, 1e3 * y)
    with pytest.raises(ValueError, match=message):
        call(aligner, x, y)
