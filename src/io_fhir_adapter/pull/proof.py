"""One search as it was read, and what shows that it is whole: the total that the server gives, else its last page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from io_fhir_adapter.errors import PullError
from io_fhir_adapter.pull.seen import Seen

__all__ = ["Incomplete", "Reading"]

_ROUND: Final = 100  # what servers hand over at most is a multiple of this, or one of these
_CAP: Final = 10_000
_SMALL_CAPS: Final = frozenset({10, 20, 25, 50})


class Incomplete(PullError):  # noqa: N818 - the sentence it carries is the error
    """A search handed over less than the server says there is; ``handed_over`` so many."""

    handed_over = 0


@dataclass(slots=True)
class Reading:
    """One search as it was read.

    Attributes:
        total: What the server said, None where it did not.
        seen: Ids that were handed over.
        nameless: How many resources without an id, by position.
        pages: How many pages.
        is_full: Whether the last page held as many as were asked for.
        fell: Whether a page told a smaller total than one before it.
    """

    total: int | None = None
    seen: Seen = field(default_factory=Seen)
    nameless: Counter[str] = field(default_factory=Counter)
    pages: int = 0
    is_full: bool = False
    fell: bool = False

    @property
    def handed_over(self) -> int:
        """How many different resources."""
        return self.seen.count() + self.nameless.total()

    @property
    def is_capped(self) -> bool:
        """Whether it ended where search indexes stop counting or paging: such a number is not believed."""
        return self.handed_over > 0 and self.handed_over % _CAP == 0

    @property
    def is_doubtful(self) -> bool:
        """Whether more may be there: the server gives no total, and so many are what it may hand over at most.

        A total of less than it handed over is none.
        """
        number = self.handed_over
        if self.total is not None and number <= self.total:
            return False
        return number > 0 and (self.is_full or number % _ROUND == 0 or number in _SMALL_CAPS)

    def told(self, total: int | None) -> None:
        """Takes notice of a page's total. The largest counts: what was deleted meanwhile moved the pages behind it."""
        if total is not None:
            self.fell |= self.total is not None and total < self.total
            self.total = max(total, self.total or 0)

    @property
    def is_one_full_page(self) -> bool:
        """Whether the total may be what the page holds, as some servers give it, and not what there is."""
        return self.pages == 1 and self.is_full and self.total == self.handed_over
