"""JSON from files that anything may have happened to."""

import json
from typing import Any

import xxhash


def canonical(value: object) -> bytes:
    """Return the one way in which a value is written here."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(content: bytes | memoryview) -> str:
    """Return the checksum of the store's files, 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(content)


def parse(content: bytes, name: str) -> dict[str, Any]:
    """Parse an object.

    Raises:
        ValueError: If it is something else; ``name`` says what is damaged.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is damaged: not JSON ({error}); restore it") from None
    if not isinstance(value, dict):
        raise ValueError(f"{name} is damaged: no JSON object; restore it")
    return value


def whole(value: object, low: int, high: int, name: str) -> int:
    """Return ``value`` if it is an integer (true and false are none) from ``low`` to ``high``."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} is {str(value)[:40]}, expected an integer from {low} to {high}")
    return value
