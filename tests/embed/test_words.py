import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastinn.embed.words import overlaps, words

CASES = {
    "punctuation": ("don't stop, now!", ["don", "'", "t", "stop", ",", "now", "!"]),
    "digits and underscores": ("x_1 = 2.5", ["x_1", "=", "2", ".", "5"]),
    "ideographs": ("東京 tower", ["東", "京", "tower"]),
    "vowel signs": ("नमस्ते", ["नमस्ते"]),
    "combining accent": ("cafe\u0301!", ["cafe\u0301", "!"]),
    "blank": (" \n\t ", []),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_words_of_a_text(text, expected):
    bounds, marks = words(text)
    assert [text[a:b] for a, b in bounds] == expected
    assert len(marks) == len(expected)


def test_marks_tell_words_apart_and_are_the_same_everywhere():
    _, marks = words("one two one")
    assert marks[0] == marks[2] != marks[1]
    assert (marks >= 0).all()
    assert marks[0] == 1907677779445091044


def bounds(sizes, gaps):
    """Make stretches of the given sizes with gaps between them."""
    start = np.cumsum([0, *sizes[:-1]]) + np.cumsum(gaps[: len(sizes)])
    return np.stack([start, start + sizes], axis=1).reshape(-1, 2)


stretches = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=12)


@given(stretches, stretches)
def test_overlaps_are_those_found_one_by_one(tokens, others):
    found = bounds(*zip(*others, strict=True))
    tokens, words = bounds(*zip(*tokens, strict=True)), found[found[:, 1] > found[:, 0]]
    expected = [
        [t, w]
        for t, (a, b) in enumerate(tokens)
        for w, (c, d) in enumerate(words)
        if max(a, c) < min(b, d)
    ]
    assert overlaps(tokens, words).tolist() == expected
