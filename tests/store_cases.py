"""A small store: blocks that are the same at every call, and how they are written."""

import torch

from fastinn.embed import Encoded, StoreHeader, StoreWriter

LAYERS = (0, 3)
WIDTH = 8
GROUP = 4
EXPECTED_MESSAGE = "what is committed is safe, run again to go on"
ROWS_PER_BLOCK = 13


def make_header(**changes):
    fields = {
        "model": "tiny",
        "revision": "a1b2",
        "weights": "00",
        "tokenizer": "11",
        "level": "token",
        "max_length": 64,
        "precision": "exact",
        "dtype": "float32",
        "layers": LAYERS,
        "n_layers": 3,
        "n_features": WIDTH,
        "corpus": "texts",
        "bytes_per_shard": 1000,
        "block_bytes": 256,
    }
    return StoreHeader(**{**fields, **changes})


def place_of(document):
    return document * 37 % 100 / 100


def make_rows(n_documents=30):
    """Return all rows of a corpus in reading order; document 5 is blank."""
    keys = [
        (document, position, document * 31 % 17)
        for document in range(n_documents)
        for position in range(0 if document == 5 else document % 7 + 2)
    ]
    generator = torch.Generator().manual_seed(0)
    rows = {layer: torch.randn(len(keys), WIDTH, generator=generator) for layer in LAYERS}
    return Encoded(rows, torch.tensor(keys))


def make_blocks(whole, writer=0, writers=1):
    """Return one writer's share of the rows as blocks that divide documents."""
    mine = whole.keys[:, 0] // GROUP % writers == writer
    keys = whole.keys[mine].split(ROWS_PER_BLOCK)
    rows = {layer: states[mine].split(ROWS_PER_BLOCK) for layer, states in whole.rows.items()}
    return [Encoded({la: rows[la][i] for la in rows}, keys[i]) for i in range(len(keys))]


def write(path, blocks, header=None, writer=0, writers=1, appended=lambda writer: None):
    """Write ``blocks``, going on where an earlier call ended."""
    with StoreWriter(path, header or make_header(), writer, writers) as out:
        done = (out.position or {"blocks": 0})["blocks"]
        for i, block in enumerate(blocks[done:], start=done + 1):
            out.append(block, {d: place_of(d) for d in block.keys[:, 0].tolist()}, {"blocks": i})
            appended(out)


def write_all(path, whole, header=None, writers=1):
    """Write a finished store of several writers."""
    for writer in range(writers):
        write(path, make_blocks(whole, writer, writers), header, writer, writers)


def tree(path):
    """Return the content of every file below ``path``."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def lay_out(path, content):
    """Write what :func:`tree` returned."""
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def refusal(call):
    """Return the message with which ``call`` refuses a store; ``None`` if it does not."""
    try:
        call()
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return None


def same(found, expected):
    """Tell whether two lots of rows are equal to the last bit."""
    return torch.equal(found.keys, expected.keys) and all(
        torch.equal(found.rows[layer], expected.rows[layer]) for layer in expected.rows
    )
