"""What a store is: the model, the text and the format, in one small file."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from fastinn import _checks
from fastinn._types import Precision
from fastinn.embed.levels import Level
from fastinn.embed.store import _disk
from fastinn.embed.store._json import canonical, digest, parse, whole
from fastinn.embed.store.files import Files, read_whole
from fastinn.embed.store.layout import DTYPES, UNFINISHED

HEADER = "store.json"
_FORMAT = {"format": "fastinn-store", "version": 1}
_DIGEST = "xxh3_128"
_MOST_BYTES = 2**20
_LONGEST_TEXT = 1024
_TEXTS = ("model", "weights", "tokenizer", "corpus")
_RANGES = {
    "max_length": (1, 2**31),
    "n_layers": (0, 10_000),
    "n_features": (1, 2**20),
    "writers": (1, 10_000),
    "bytes_per_shard": (1, 2**36),
    "block_bytes": (64, 2**26),
}


@dataclass(frozen=True)
class StoreHeader:
    """What every shard of a store has in common.

    Attributes:
        model: Hub id or folder of the model.
        revision: Its commit on the hub; ``None`` for a local folder.
        weights: Hash of its weights.
        tokenizer: Hash of its tokenizer and window length: equal ones pair token by token.
        level: What a row is: ``"token"``, ``"word"``, ``"sentence"`` or ``"cls"``.
        max_length: Longest window in tokens.
        precision: That of the encoder.
        dtype: In which the rows are stored: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        layers: Layers that are stored, ascending.
        n_layers: Transformer layers of the model.
        n_features: Width of a row.
        corpus: Name of the corpus.
        writers: Processes among which the documents are divided.
        bytes_per_shard: Size at which a layer's shard is closed and the next begun.
        block_bytes: Bytes that share a checksum, the least that is read.

    Raises:
        ValueError: If a field is out of its range.
    """

    model: str
    revision: str | None
    weights: str
    tokenizer: str
    level: str
    max_length: int
    precision: str
    dtype: str
    layers: tuple[int, ...]
    n_layers: int
    n_features: int
    corpus: str
    writers: int = 1
    bytes_per_shard: int = 2**27
    block_bytes: int = 2**20

    def __post_init__(self) -> None:
        for name in _TEXTS:
            _check_text(getattr(self, name), name)
        if self.revision is not None:
            _check_text(self.revision, "revision")
        _checks.one_of(self.level, get_args(Level), "level")
        _checks.one_of(self.precision, get_args(Precision), "precision")
        _checks.one_of(self.dtype, tuple(DTYPES), "dtype")
        for name, (low, high) in _RANGES.items():
            whole(getattr(self, name), low, high, name)
        self._check_layers()

    def _check_layers(self) -> None:
        for layer in self.layers:
            whole(layer, 0, self.n_layers, "a layer")
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"layers is {self.layers}, expected ascending numbers, one or more")

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of one layer as it is stored."""
        return self.n_features * DTYPES[self.dtype].itemsize

    @property
    def rows_per_shard(self) -> int:
        """Rows at which a shard is closed."""
        return max(1, self.bytes_per_shard // self.row_bytes)

    def fingerprint(self) -> str:
        """Checksum of all fields, 32 hexadecimal digits."""
        return digest(canonical(self.fields()))

    def fields(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {**_FORMAT, **dataclasses.asdict(self), "layers": list(self.layers)}


def is_store(place: str) -> bool:
    """Tell whether a folder holds a store; a URL can name nothing else."""
    return "://" in place or (Path(place) / HEADER).exists()


def load_header(files: Files, where: object) -> StoreHeader:
    """Read the header of a store.

    Raises:
        FileNotFoundError: If there is no store.
        ValueError: If the header is damaged or of a format that this version does not read.
    """
    try:
        content = read_whole(files, HEADER, limit=_MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"no store at {where}: it has no {HEADER}; give the folder that fastinn extract wrote"
        ) from None
    return parse_header(content)


def parse_header(content: bytes) -> StoreHeader:
    """Read the content of a header; see :func:`load_header`."""
    fields = parse(content, HEADER)
    found = {name: fields.get(name) for name in _FORMAT}
    if found != _FORMAT:
        raise ValueError(f"{HEADER} is of {str(found)[:80]}, this version reads {_FORMAT}")
    checksum = fields.pop(_DIGEST, None)
    if checksum != digest(canonical(fields)):
        raise ValueError(f"{HEADER} is damaged: its checksum does not match; restore it")
    values = {name: value for name, value in fields.items() if name not in _FORMAT}
    return _header_of(values)


def _header_of(values: dict[str, Any]) -> StoreHeader:
    names = {field.name for field in dataclasses.fields(StoreHeader)}
    if odd := names.symmetric_difference(values):
        raise ValueError(f"{HEADER} is damaged: fields {sorted(map(str, odd))[:4]} do not belong")
    if not isinstance(values["layers"], list):
        raise ValueError(f"{HEADER} is damaged: layers is no list; restore it")
    try:
        return StoreHeader(**{**values, "layers": tuple(values["layers"])})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{HEADER} is damaged: {error}; restore it") from None


def settle_header(root: Path, header: StoreHeader, files: Files) -> None:
    """Write ``header``, unless the store has one already, which must then be the same.

    Raises:
        ValueError: If the store holds something else; the first field that differs is named.
    """
    if HEADER not in files.names(""):
        fields = header.fields()
        content = canonical({**fields, _DIGEST: digest(canonical(fields))})
        _disk.create_once(root / HEADER, content)
    found = load_header(files, root)
    for leftover in sorted(root.glob(f"{HEADER}.*{UNFINISHED}")):  # of a process that was killed
        _disk.remove(leftover)
    for field in dataclasses.fields(StoreHeader):
        there, wanted = getattr(found, field.name), getattr(header, field.name)
        if there != wanted:
            raise ValueError(
                f"store {root} has {field.name} {there!r}, to be written is {wanted!r}; "
                "give another folder"
            )


def _check_text(value: object, name: str) -> None:
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise ValueError(f"{name} is {str(value)[:40]!r}, expected a line of text")
    if (length := len(value.encode())) > _LONGEST_TEXT:
        raise ValueError(f"{name} has {length} bytes, expected at most {_LONGEST_TEXT}")
