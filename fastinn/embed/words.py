"""Words of a text, found without any tokenizer, and the sub-tokens that make them up."""

import hashlib
from functools import lru_cache

import numpy as np
import regex

# A run of letters, digits and marks; or one ideograph; or one sign of any other kind.
_WORD = regex.compile(r"\p{Han}|(?:(?!\p{Han})[\w\p{M}])+|[^\w\s\p{M}]")


def words(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Find the words and punctuation signs of ``text``.

    Returns:
        First character of each word and the one behind its last, shape ``(n, 2)``, and a hash of
        63 bits of what each says, shape ``(n,)``, both int64.
    """
    found = list(_WORD.finditer(text))
    bounds = np.array([word.span() for word in found], dtype=np.int64).reshape(-1, 2)
    return bounds, np.array([_mark(word.group()) for word in found], dtype=np.int64)


def overlaps(tokens: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Pair tokens with the words that they share characters with.

    Args:
        tokens: Character bounds of each token, shape ``(n_tokens, 2)``; empty ones pair with none.
        words: Bounds of words that are in order and apart, shape ``(n_words, 2)``.

    Returns:
        Indices of the token and the word of each pair, shape ``(n, 2)``, in order of the tokens.
    """
    start, end = tokens.T
    first = np.searchsorted(words[:, 1], start, side="right")
    behind = np.searchsorted(words[:, 0], end, side="left")
    n = np.where(end > start, np.maximum(behind - first, 0), 0)
    token = np.repeat(np.arange(len(tokens)), n)
    place = np.arange(len(token)) - np.repeat(np.cumsum(n) - n, n)
    return np.stack([token, first[token] + place], axis=1)


@lru_cache(maxsize=2**16)
def _mark(word: str) -> int:
    data = word.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 1
