import pytest
from store_cases import make_rows, tree, write_all


@pytest.fixture(scope="session")
def whole():
    return make_rows()


@pytest.fixture(params=[1, 3], ids=["1 writer", "3 writers"])
def store(request, tmp_path, whole):
    """A finished store."""
    path = tmp_path / "store"
    write_all(path, whole, writers=request.param)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory, whole):
    """Content of the files of a finished store of two writers."""
    path = tmp_path_factory.mktemp("finished") / "store"
    write_all(path, whole, writers=2)
    return tree(path)
