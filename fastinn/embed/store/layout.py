"""Names and bytes of a store's shards: ordinary safetensors files with a head of fixed size."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

# Fixed, so that rows can be written before their number is known; a page, so that they are aligned.
HEAD_BYTES = 4096
SHARD = ".safetensors"
UNFINISHED = ".unfinished"
TOKENS = "tokens"
KEY_BYTES = 24

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_CODES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.float64: "F64",
}


@dataclass(frozen=True)
class Array:
    """A tensor in a shard."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        n = self.dtype.itemsize
        for length in self.shape:
            n *= length  # not math.prod of int64: a damaged length must not wrap around
        return n


def folder_of(layer: int | None) -> str:
    """Return the folder of a layer, or that of the tokens for ``None``."""
    return TOKENS if layer is None else f"layer={layer:02d}"


def shard_name(layer: int | None, writer: int, part: int) -> str:
    """Return the name of a shard below the root."""
    return f"{folder_of(layer)}/part-{writer}-{part}{SHARD}"


def layer_arrays(rows: int, n_features: int, dtype: str) -> list[Array]:
    """Return what a layer's shard holds."""
    return [Array("rows", DTYPES[dtype], (rows, n_features))]


def token_arrays(rows: int, documents: int) -> list[Array]:
    """Return what a token shard holds: keys of rows, and number, rows and place of documents."""
    return [
        Array("keys", torch.int64, (rows, 3)),
        Array("documents", torch.int64, (documents,)),
        Array("lengths", torch.int64, (documents,)),
        Array("places", torch.float64, (documents,)),
    ]


def payload_bytes(arrays: Sequence[Array]) -> int:
    """Return the bytes behind the head."""
    return sum(array.nbytes for array in arrays)


def head(arrays: Sequence[Array], metadata: Mapping[str, str]) -> bytes:
    """Return the head of a safetensors file that holds ``arrays`` one behind the other."""
    described: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for array in arrays:
        offsets = [at, at + array.nbytes]
        described[array.name] = {
            "dtype": _CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": offsets,
        }
        at = offsets[1]
    text = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()
    room = HEAD_BYTES - 8
    if len(text) > room:
        raise ValueError(f"head of {len(text)} bytes, expected at most {room}; give shorter names")
    return struct.pack("<Q", room) + text.ljust(room)


def head_says(found: bytes) -> dict[str, object]:
    """Return what the head of a shard says of itself, for a message; nothing if it is damaged."""
    try:
        described = json.loads(found[8:])
        arrays = {name: value["dtype"] for name, value in described.items() if name[:2] != "__"}
        return {**arrays, **described["__metadata__"]}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return {}
