"""Pickles that would run code: wherever fastinn reads a file, none of them is ever run."""

import ast
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import fastinn
from fastinn import Corpus, Encoder, Moments, load_aligner
from fastinn.embed import EmbeddingStore
from fastinn.embed.store import verify
from fastinn.moments import load_checkpoint

pytestmark = pytest.mark.campaign("R7")
ROOT = Path(fastinn.__file__).parents[1]


class Runs:
    """Touches a file when it is unpickled."""

    def __init__(self, witness):
        self._witness = str(witness)

    def __reduce__(self):
        return Path.touch, (Path(self._witness),)


def plain(path, malicious):
    path.write_bytes(pickle.dumps(malicious))


def old_torch(path, malicious):
    torch.save({"weight": malicious}, path, _use_new_zipfile_serialization=False)


def new_torch(path, malicious):
    torch.save({"weight": malicious}, path)


def numpy_array(path, malicious):
    with path.open("wb") as file:
        np.save(file, np.array([malicious], dtype=object), allow_pickle=True)


PICKLES = {"pickle": plain, "torch": new_torch, "old torch": old_torch, "numpy": numpy_array}


def read_aligner(folder):
    load_aligner(folder)


def read_moments(folder):
    Moments.load(folder / "aligner.safetensors")


def read_checkpoint(folder):
    load_checkpoint(folder / "aligner.safetensors")


def read_store(folder):
    EmbeddingStore(folder)


def verify_store(folder):
    raise ValueError(verify(folder).damages)


def read_corpus(folder):
    list(Corpus.from_file(folder / "text.parquet"))


READERS = {
    "aligner": (read_aligner, ["aligner.json", "aligner.safetensors"]),
    "moments": (read_moments, ["aligner.safetensors"]),
    "checkpoint": (read_checkpoint, ["aligner.safetensors"]),
    "store": (read_store, ["store.json", "journal-0.jsonl"]),
    "verify": (verify_store, ["store.json", "journal-0.jsonl"]),
    "corpus": (read_corpus, ["text.parquet"]),
}


@pytest.mark.parametrize("make", PICKLES.values(), ids=PICKLES)
@pytest.mark.parametrize(("read", "names"), READERS.values(), ids=READERS)
def test_no_pickle_is_run(tmp_path, read, names, make):
    for name in names:
        make(tmp_path / name, Runs(tmp_path / "witness"))
    with pytest.raises(ValueError):  # noqa: PT011 each reader has words of its own
        read(tmp_path)
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("make", [plain, old_torch, new_torch], ids=["plain", "old", "new"])
def test_pickled_weights_of_a_model_are_not_run(seeds, tmp_path, make):
    folder = Path(shutil.copytree(seeds[0], tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    make(folder / "pytorch_model.bin", Runs(tmp_path / "witness"))
    with pytest.raises(ValueError, match="cannot be loaded"):
        Encoder(str(folder), layers=[0]).encode(["worda"])
    assert not (tmp_path / "witness").exists()


def test_code_that_a_model_brings_is_not_run(seeds, tmp_path):
    folder = Path(shutil.copytree(seeds[0], tmp_path / "model"))
    code = f"from pathlib import Path\nPath({str(tmp_path / 'witness')!r}).touch()\n"
    (folder / "modeling_own.py").write_text(code)
    config = (folder / "config.json").read_text().strip().removesuffix("}")
    own = '"auto_map": {"AutoModel": "modeling_own.Own", "AutoConfig": "modeling_own.Own"}'
    (folder / "config.json").write_text(f"{config}, {own}}}")
    Encoder(str(folder), layers=[0]).encode(["worda"])
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("make", PICKLES.values(), ids=PICKLES)
def test_the_pickles_would_run(tmp_path, make):
    """What the tests above are worth."""
    make(tmp_path / "file", Runs(tmp_path / "witness"))
    loads = {plain: pickle_load, numpy_array: numpy_load}.get(make, torch_load)
    loads(tmp_path / "file")
    assert (tmp_path / "witness").exists()


def pickle_load(path):
    pickle.loads(path.read_bytes())


def numpy_load(path):
    np.load(path, allow_pickle=True)


def torch_load(path):
    torch.load(path, weights_only=False)


# Calls that may run code from a file, by the end of their dotted name.
RUN_CODE = {"pickle.load", "pickle.loads", "dill.load", "joblib.load", "eval", "exec"}
# Keywords with which calls that are safe by themselves do.
UNSAFE = {("weights_only", False), ("trust_remote_code", True), ("allow_pickle", True)}
SOURCES = sorted(
    path
    for folder in ("fastinn", "bench", "csrc", "docs")
    for path in (ROOT / folder).rglob("*.py")
)


def unsafe_calls(path):
    """Yield the calls of a file that may run code from another file, by their line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {(k.arg, getattr(k.value, "value", None)) for k in node.keywords}
            unchecked = name == "torch.load" and ("weights_only", True) not in given
            if name in RUN_CODE or given & UNSAFE or unchecked:
                yield f"{path.name}:{node.lineno} calls {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_call_runs_code_from_files(path):
    assert not list(unsafe_calls(path))


@pytest.mark.parametrize(
    "call",
    [
        "pickle.load(f)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "AutoModel.from_pretrained(f, trust_remote_code=True)",
        "eval(f)",
    ],
)
def test_the_gate_sees_such_calls(tmp_path, call):
    (tmp_path / "code.py").write_text(call)
    assert len(list(unsafe_calls(tmp_path / "code.py"))) == 1
