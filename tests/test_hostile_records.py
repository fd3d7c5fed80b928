"""Records of aligners and moments that were made up, signed as if they were saved so."""

import json
import resource

import pytest
import torch
from campaign import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_values import ODD
from saved_cases import SAVED
from store_cases import refusal

from fastinn._saved import load_tensors, save_tensors, write_whole
from fastinn.align.base import _sha256
from fastinn.moments._moments import _METADATA

pytestmark = pytest.mark.campaign("R6")
ALIGNERS = ("cca", "inn", "hub")
SIZES = st.sampled_from([2**20, 2**31, 2**40, 2**63])
quick = settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def in_little_memory():
    """What is refused must not take 200 MB on the way."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.fixture
def saved(request, tmp_path):
    """A folder with a save, and how to write another record of the same tensors."""
    kind = SAVED[request.param]
    kind.save(kind.make(0), tmp_path)
    file = next(tmp_path.glob("*.safetensors"))
    tensors, metadata = load_tensors(file)

    def write(record):
        text = json.dumps(record)
        if request.param == "moments":
            save_tensors(file, tensors, {_METADATA: text})
            return
        save_tensors(file, tensors, {"aligner.json": _sha256(text.encode())})
        write_whole(tmp_path / "aligner.json", text.encode())

    text = metadata.get(_METADATA) or (tmp_path / "aligner.json").read_text()
    return kind, tmp_path, json.loads(text), write


def places(record, inside=()):
    """Yield the way to each value of nested dictionaries and lists."""
    keys = record if isinstance(record, dict) else range(len(record))
    for key in keys:
        yield (*inside, key)
        if isinstance(record[key], dict | list):
            yield from places(record[key], (*inside, key))


def changed(record, place, value):
    copy = json.loads(json.dumps(record))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return copy


@pytest.mark.parametrize("saved", [*ALIGNERS, "moments"], indirect=True)
@quick
@given(data=st.data(), value=ODD | SIZES)
def test_odd_records_are_refused_or_compute_finite_rows(saved, in_little_memory, data, value):
    kind, folder, record, write = saved
    place = data.draw(st.sampled_from(list(places(record))))
    write(changed(record, place, value))
    loaded = []
    message = refusal(lambda: loaded.append(kind.load(folder)))
    if message is None:
        check_use(kind, loaded[0])
    else:
        assert str(folder) in message


def check_use(kind, loaded):
    """What was loaded computes or refuses to, but never ends in numbers that are none."""
    try:
        values = kind.values(loaded)
    except (ValueError, TypeError):
        return
    assert all(torch.isfinite(value).all() for value in values)


@pytest.mark.parametrize("saved", ["cca"], indirect=True)
@pytest.mark.parametrize("name", ["transform", "__class__", "_seen", "fit", "weight"])
def test_attributes_that_are_not_fitted_are_refused(saved, name):
    kind, folder, record, write = saved
    write(changed(record, ("attributes", name), "x"))
    with pytest.raises(ValueError, match=f"'{name}' is no fitted attribute"):
        kind.load(folder)


@pytest.mark.parametrize("saved", ["cca"], indirect=True)
@pytest.mark.parametrize("name", ["n_features_in_", "n_features_out_"])
def test_a_record_without_a_fitted_attribute_is_refused(saved, name):
    kind, folder, record, write = saved
    del record["attributes"][name]
    write(record)
    with pytest.raises(ValueError, match=f"the fitted attribute '{name}' is missing"):
        kind.load(folder)


@pytest.mark.parametrize("saved", ["hub"], indirect=True)
def test_a_hub_without_its_width_is_refused(saved):
    kind, folder, record, write = saved
    write(changed(record, ("attributes", "hub"), {}))
    with pytest.raises(ValueError, match="the fitted attribute 'n_features_in_' is missing"):
        kind.load(folder)


@pytest.mark.parametrize("saved", ["cca"], indirect=True)
@pytest.mark.parametrize("name", ["weight_", "x_mean_", "y_mean_", "inverse_weight_"])
def test_tensors_without_a_fitted_one_are_refused(saved, name):
    kind, folder, *_ = saved
    tensors, metadata = load_tensors(folder / "aligner.safetensors")
    del tensors[name]
    save_tensors(folder / "aligner.safetensors", tensors, metadata)
    with pytest.raises(ValueError, match=f"the fitted attribute '{name}' is missing"):
        kind.load(folder)


@pytest.mark.parametrize("saved", ["inn"], indirect=True)
@pytest.mark.parametrize("name", ["n_couplings", "hidden", "n_hidden"])
def test_a_network_of_other_sizes_is_refused(saved, name):
    kind, folder, record, write = saved
    write(changed(record, ("params", name), 2**40))
    with pytest.raises(ValueError, match="are not those of INN"):
        kind.load(folder)


@pytest.mark.parametrize("saved", ["moments"], indirect=True)
def test_moments_of_other_widths_are_refused(saved):
    kind, folder, record, write = saved
    write(changed(record, ("n_features", 0), ["a", 5]))
    with pytest.raises(ValueError, match=r"m.safetensors does not describe its moments"):
        kind.load(folder)
