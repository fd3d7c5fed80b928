"""Arrays of other libraries go in and come out without a copy, through DLPack alone."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from fastinn import Moments, metrics
from fastinn._arrays import as_tensor, like
from fastinn.align import CCA, Procrustes


class ForeignArray:
    """What a CuPy array shows of itself, in ordinary memory."""

    def __init__(self, tensor):
        self._tensor = tensor
        self.dtype, self.shape = tensor.dtype, tensor.shape

    def __dlpack__(self, **options):
        return self._tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._tensor.__dlpack_device__()

    def data_ptr(self):
        return self._tensor.data_ptr()


class NamingArray(ForeignArray):
    """An array of the newer kind, which names its namespace."""

    def __array_namespace__(self):
        return sys.modules["foreign"]


@pytest.fixture(params=[ForeignArray, NamingArray], ids=["package", "namespace"])
def foreign(request, monkeypatch):
    """Make arrays of a library that fastinn has never heard of."""
    library = ModuleType("foreign")
    library.from_dlpack = lambda tensor: request.param(torch.from_dlpack(tensor))
    monkeypatch.setitem(sys.modules, "foreign", library)
    monkeypatch.setattr(ForeignArray, "__module__", "foreign._core")
    return lambda array: request.param(torch.tensor(array))


def rows(n=60, d=4):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d))
    return x, x @ rng.normal(size=(d, d)) + 0.1 * rng.normal(size=(n, d))


def test_no_copy_in_or_out(foreign):
    array = foreign(rows()[0])
    tensor = as_tensor(array)
    assert tensor.data_ptr() == array.data_ptr()
    back = like(tensor, array)
    assert type(back) is type(array)
    assert back.data_ptr() == array.data_ptr()


def test_gradients_stay_behind(foreign):
    result = torch.ones(3, requires_grad=True)
    assert like(result, foreign([1.0])).data_ptr() == result.data_ptr()


def test_kind_comes_back_from_everything_public(foreign):
    x, y = (foreign(part) for part in rows())
    moments = Moments({"x": 4, "y": 4}).update({"x": x, "y": y})
    aligner = CCA().fit(x, y)
    found = [
        moments.mean("x"),
        moments.cov("x", "y"),
        aligner.transform(x),
        aligner.inverse_transform(y),
        metrics.cca_correlations(x, y),
    ]
    assert {type(array) for array in found} == {type(x)}


def test_values_are_those_of_numpy(foreign):
    x, y = rows()
    expected = Procrustes().fit(x, y).transform(x)
    found = Procrustes().fit(foreign(x), foreign(y)).transform(foreign(x))
    np.testing.assert_array_equal(as_tensor(found), expected)


def test_arrays_that_cannot_come_back_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "foreign", ModuleType("foreign"))
    monkeypatch.setattr(ForeignArray, "__module__", "foreign")
    with pytest.raises(TypeError, match=r"as foreign\.ForeignArray: neither it nor its package"):
        like(torch.ones(2), ForeignArray(torch.ones(2)))
