"""How many values a search names: as many as is usual at first, more where the server answers longer lists whole.

Each request takes its time, whatever it asks; but servers differ in how long a list they take. So lists grow only
while answers are small and agree with their totals, and the first failure of a longer list ends that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Self

from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.pull.proof import Reading

__all__ = ["USUAL_LIST", "ListSize", "unanswered"]

USUAL_LIST: Final = 100
"""So many values a server takes, as a rule, that takes lists at all."""
_LONGEST: Final = 500
_GROWTH: Final = 2


@dataclass(slots=True)
class ListSize:
    """The length of the lists of one parameter.

    Attributes:
        usual: A length that has to be answered.
        most: The longest that may be tried.
        now: The length of the next list.
    """

    usual: int
    most: int
    now: int

    @classmethod
    def of(cls, config: FhirSourceConfig) -> Self:
        """As it is before the first search; one that the configuration names does not grow."""
        usual = config.batch_size or USUAL_LIST
        most = max(usual, min(_LONGEST, config.page_size)) if config.batch_size is None else usual
        return cls(usual, most, usual)

    def answered(self, length: int, reading: Reading) -> None:
        """Takes notice of an answer: a list of that length, found on one page that agrees with its total, was read."""
        if length >= self.now and reading.pages == 1 and reading.total is not None:
            self.now = min(length * _GROWTH, self.most)

    def failed(self, length: int) -> None:
        """From now on lists are that long at most."""
        self.usual = self.now = self.most = max(1, min(length, self.usual))


def unanswered(batch: Sequence[str], found: Collection[str]) -> Sequence[str]:
    """The values behind the last one that was found: a server that reads only a list's beginning finds none there."""
    end = len(batch)
    while end and batch[end - 1] not in found:
        end -= 1
    return batch[end:]
