"""What all ranks together have read of a text."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from fastinn import distributed
from fastinn.embed import Corpus
from fastinn.embed.corpus import LeftOut, Reading
from fastinn.embed.corpus.reading import PLACES


def reading_of_all_ranks(corpus: Corpus) -> Reading:
    """Return what all ranks have read of a corpus and left out of it, no record counted twice.

    Ranks read shards of it. Some read the same one, and some its beginning or all of it besides;
    of what was read more than once, the reading that came furthest counts.
    """
    longest: dict[str, Reading] = {}
    own = {part: asdict(reading) for part, reading in corpus.readings.items()}
    for of_rank in distributed.gather(own):
        for part, record in of_rank.items():
            reading = _restored(record)
            longest[part] = max(longest.get(part, reading), reading, key=_n_records)
    whole = longest.pop("", Reading())
    return max(whole, _joined(longest.values()), key=_n_records)


def _joined(readings: Iterable[Reading]) -> Reading:
    joined = Reading()
    for reading in readings:
        joined.documents += reading.documents
        joined.characters += reading.characters
        for reason, found in reading.left_out.items():
            left_out = joined.left_out.setdefault(reason, LeftOut())
            left_out.count += found.count
            left_out.places = [*left_out.places, *found.places][:PLACES]
    return joined


def _n_records(reading: Reading) -> int:
    return reading.documents + sum(found.count for found in reading.left_out.values())


def _restored(record: dict[str, Any]) -> Reading:
    left_out = {reason: LeftOut(**found) for reason, found in record["left_out"].items()}
    return Reading(record["documents"], record["characters"], left_out)
