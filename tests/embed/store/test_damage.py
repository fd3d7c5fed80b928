"""Damaged, missing and foreign files: named, and never read as something else."""

import random
import re

import pytest
from mutations import mutated
from store_cases import lay_out, make_header, refusal, same, tree, write_all

from fastinn.embed import EmbeddingStore
from fastinn.embed.store import verify
from fastinn.embed.store.overview import overview

MUTATIONS = [
    pytest.param(400, id="400 mutations"),
    pytest.param(10_000, id="10000 mutations", marks=pytest.mark.campaign("R4", full=True)),
]


@pytest.mark.parametrize("n_mutations", MUTATIONS)
def test_every_mutation_is_found_or_harmless(tmp_path, whole, finished, trials, n_mutations):
    lay_out(tmp_path, finished)
    chance = random.Random(0)
    found = 0
    for _ in trials(range(n_mutations)):
        changed = mutated(finished, chance)
        lay_out(tmp_path, changed)
        damaged = [n for n, data in changed.items() if data != finished[n]]
        found += is_refused(tmp_path, whole, damaged)
        lay_out(tmp_path, {n: finished[n] for n in changed})
    assert found > 0.9 * n_mutations


def is_refused(path, whole, damaged):
    """Tell whether a reader refuses the store; if not, it must read what was written."""
    message = refusal(lambda: EmbeddingStore(path).read(0, len(whole.keys)))
    if message is None:
        assert same(EmbeddingStore(path).read(0, len(whole.keys)), whole), damaged
        assert verify(path).sound, damaged
        return False
    # Journals that changed places are told by shards that are then missing or left over.
    said = [*damaged, "is unfinished", *(["part-"] if "journal" in damaged[0] else [])]
    assert any(name in message for name in said), message
    return True


def test_any_flipped_byte_of_a_shard_is_refused_by_name(tmp_path, whole, finished):
    lay_out(tmp_path, finished)
    for name in ("layer=03/part-0-1.safetensors", "tokens/part-1-0.safetensors"):
        for at in range(0, len(finished[name]), 41):
            data = bytearray(finished[name])
            data[at] ^= 0x10
            lay_out(tmp_path, {name: bytes(data)})
            with pytest.raises(ValueError, match=re.escape(f"store {tmp_path}: {name} ")):
                EmbeddingStore(tmp_path).read(0, len(whole.keys))
        assert [name in line for line in verify(tmp_path).damages] == [True]
        lay_out(tmp_path, {name: finished[name]})


def test_sound_rows_of_a_damaged_store_are_still_read(tmp_path, finished):
    lay_out(tmp_path, finished)
    (tmp_path / "layer=03" / "part-1-1.safetensors").write_bytes(b"")
    assert len(EmbeddingStore(tmp_path).read(0, 10).rows[3]) == 10


OTHERS = {
    "revision": ({"revision": "c3d4"}, "has revision 'c3d4', the store has 'a1b2'"),
    "dtype": ({"dtype": "bfloat16", "n_features": 16}, "has rows 'BF16', the store has 'F32'"),
    "model": ({"model": "other"}, "has model 'other', the store has 'tiny'"),
    "weights": ({"weights": "22"}, "has store '"),
}


@pytest.fixture(scope="module")
def strange(tmp_path_factory, whole):
    """Content of stores that are not ``finished``: of older rows, and of other headers."""
    from fastinn.embed import Encoded

    path = tmp_path_factory.mktemp("strange")
    older = {layer: rows + 1 for layer, rows in whole.rows.items()}
    write_all(path / "stale", Encoded(older, whole.keys), writers=2)
    for kind, (changes, _) in OTHERS.items():
        width = changes.get("n_features", 8)
        rows = {layer: states.repeat(1, width // 8) for layer, states in whole.rows.items()}
        write_all(path / kind, Encoded(rows, whole.keys), make_header(**changes), writers=2)
    return {kind: tree(path / kind) for kind in ("stale", *OTHERS)}


@pytest.mark.campaign("R5")
@pytest.mark.parametrize("kind", OTHERS)
def test_a_shard_of_another_store_is_named(tmp_path, whole, finished, strange, trials, kind):
    _, message = OTHERS[kind]
    for name in trials([n for n in finished if n.startswith("layer=")]):
        path = tmp_path / name.replace("/", "-")
        lay_out(path, {**finished, name: strange[kind][name]})
        with pytest.raises(ValueError, match=f"{re.escape(name)} {message}"):
            EmbeddingStore(path).read(0, len(whole.keys))
        assert [name in line for line in verify(path).damages] == [True]


@pytest.mark.campaign("R5")
def test_a_stale_shard_is_named(tmp_path, whole, finished, strange, trials):
    for name in trials([n for n in finished if n.startswith("layer=")]):
        path = tmp_path / name.replace("/", "-")
        lay_out(path, {**finished, name: strange["stale"][name]})
        with pytest.raises(ValueError, match=f"{re.escape(name)} is damaged: bytes 4096 to"):
            EmbeddingStore(path).read(0, len(whole.keys))


@pytest.mark.campaign("R5")
def test_missing_shards_are_named(tmp_path, finished, trials):
    for name in trials([n for n in finished if n.endswith(".safetensors")]):
        path = tmp_path / name.replace("/", "-")
        lay_out(path, {n: data for n, data in finished.items() if n != name})
        with pytest.raises(ValueError, match=f"{re.escape(f'store {path}: {name}')} is missing"):
            EmbeddingStore(path)
        assert f"{name} is missing, the journal commits it" in verify(path).damages


@pytest.mark.campaign("R5")
@pytest.mark.parametrize(
    "name",
    [
        "layer=03/part-0-99.safetensors",
        "layer=03/part-7-0.safetensors",
        "layer=09/part-0-0.safetensors",
        "tokens/more.safetensors",
    ],
)
def test_extra_shards_are_named(tmp_path, finished, name):
    lay_out(tmp_path, {**finished, name: b"x"})
    with pytest.raises(ValueError, match=f"{re.escape(name)} is not in the journal"):
        EmbeddingStore(tmp_path)
    assert verify(tmp_path).damages == [f"{name} is not in the journal"]


def some_faults(chance, finished):
    """Return one to four files of a store, each with what is wrong with it, in order."""
    layers = [name for name in finished if name.startswith("layer=")]
    extra = [f"{name.rpartition('-')[0]}-{chance.randrange(20, 99)}.safetensors" for name in layers]
    faults = {name: chance.choice(["stale", *OTHERS]) for name in layers}
    faults |= dict.fromkeys(extra, "extra")
    missing = [name for name in finished if name.endswith(".safetensors")]
    faults |= {name: "missing" for name in missing if chance.random() < 0.25}
    return tuple(sorted(chance.sample(sorted(faults.items()), chance.randint(1, 4))))


SAID = {
    "missing": "is missing, the journal commits it",
    "extra": "is not in the journal",
    "stale": "is damaged: bytes 4096 to",
    **{kind: message for kind, (_, message) in OTHERS.items()},
}


def with_faults(finished, strange, faults):
    """Return the content of a store in which each of ``faults`` has happened."""
    content = dict(finished)
    for name, kind in faults:
        if kind == "missing":
            del content[name]
        else:
            content[name] = b"x" if kind == "extra" else strange[kind][name]
    return content


@pytest.mark.campaign("R5", full=True)
def test_several_faults_are_each_named(tmp_path, whole, finished, strange, trials):
    chance, states = random.Random(0), set()
    while len(states) < 200:
        states.add(some_faults(chance, finished))
    for faults in trials(sorted(states)):
        path = tmp_path / str(trials.n)
        lay_out(path, with_faults(finished, strange, faults))
        message = refusal(lambda path=path: EmbeddingStore(path).read(0, len(whole.keys)))
        assert any(name in (message or "") for name, _ in faults), (faults, message)
        damages = sorted(verify(path).damages)
        assert len(damages) == len(faults), (faults, damages)
        for (name, kind), line in zip(faults, damages, strict=True):
            assert line.startswith(f"{name} {SAID[kind]}"), (faults, line)


@pytest.mark.campaign("R5")
def test_a_missing_journal_is_named(tmp_path, finished):
    lay_out(tmp_path, {n: data for n, data in finished.items() if n != "journal-1.jsonl"})
    said = re.escape(f"store {tmp_path}: journal-1.jsonl is missing: writer 1 of 2")
    with pytest.raises(ValueError, match=said):
        EmbeddingStore(tmp_path)
    assert "journal-1.jsonl is missing" in verify(tmp_path).damages[0]


@pytest.mark.parametrize(
    "read", [EmbeddingStore, lambda path: overview(str(path))], ids=["read", "listed"]
)
def test_a_damaged_header_is_named_with_its_store(tmp_path, finished, read):
    lay_out(tmp_path, {**finished, "store.json": b"{}"})
    with pytest.raises(ValueError, match=re.escape(f"store {tmp_path}: store.json is of ")):
        read(tmp_path)


def test_a_writer_does_not_go_on_over_a_missing_shard(tmp_path, whole, finished):
    name = "layer=03/part-0-1.safetensors"
    lay_out(tmp_path, {n: data for n, data in finished.items() if n != name})
    with pytest.raises(ValueError, match=f"{name} of .* has 0 bytes"):
        write_all(tmp_path, whole, writers=2)


def test_verify_names_every_damage_at_once(tmp_path, finished):
    lay_out(tmp_path, finished)
    names = ["layer=00/part-0-0.safetensors", "layer=03/part-1-1.safetensors"]
    lay_out(tmp_path, {name: finished[name][:-1] for name in names})
    verdict = verify(tmp_path)
    assert [line.split()[0] for line in verdict.damages] == names
    assert verdict.shards == sum(name.endswith(".safetensors") for name in finished)
