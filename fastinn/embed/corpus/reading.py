"""What was read of a corpus, what was left out of it, and why."""

import warnings
from dataclasses import dataclass, field

PLACES = 3
"""Places to name of each reason; further ones are only counted."""


@dataclass(frozen=True)
class Fault:
    """Why a record is no document.

    Attributes:
        reason: What such records are counted under.
        says: What is wrong with this one, to go on after "it".
    """

    reason: str
    says: str


BLANK = Fault("blank", "is blank")
TOO_LONG = Fault("too long", "is longer than max_characters allows")


@dataclass
class LeftOut:
    """Records left out for one reason.

    Attributes:
        count: How many.
        places: File and line, or row, of the first of them.
    """

    count: int = 0
    places: list[str] = field(default_factory=list)


@dataclass
class Reading:
    """What was read so far; a record that is read again does not count again.

    ``str()`` of it is one line of plain English.

    Attributes:
        documents: Documents read, whichever split they belong to.
        characters: Characters in them.
        left_out: Records that are no documents, by reason.
    """

    documents: int = 0
    characters: int = 0
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    _counted: int = field(default=0, repr=False)

    def count(self, number: int, content: str | Fault, place: str) -> None:
        """Count record ``number`` unless a record behind it was counted before."""
        if number < self._counted:
            return
        self._counted = number + 1
        if isinstance(content, Fault):
            self._leave_out(content, place)
        else:
            self.documents += 1
            self.characters += len(content)

    def _leave_out(self, fault: Fault, place: str) -> None:
        left_out = self.left_out.setdefault(fault.reason, LeftOut())
        left_out.count += 1
        if left_out.count > PLACES:
            return
        left_out.places.append(place)
        if fault is not BLANK:  # files full of blank lines are nothing to warn of
            last = "; more of the kind are only counted" if left_out.count == PLACES else ""
            warnings.warn(f"{place} left out: it {fault.says}{last}", stacklevel=4)

    def __str__(self) -> str:
        read = f"read {self.documents:,} documents of {self.characters:,} characters"
        reasons = [_in_words(reason, left_out) for reason, left_out in self.left_out.items()]
        return f"{read}; left out {', '.join(reasons) or 'nothing'}"


def _in_words(reason: str, left_out: LeftOut) -> str:
    more = ", ..." if left_out.count > len(left_out.places) else ""
    return f"{left_out.count:,} {reason} ({', '.join(left_out.places)}{more})"
