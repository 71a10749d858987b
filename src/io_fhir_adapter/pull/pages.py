"""Pages of searches, or blocks of files, that are written in one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from io_fhir_adapter.ledger.packed_form import PackedProcedure
from io_fhir_adapter.pull.decode import Resource
from io_fhir_adapter.pull.searchset import Found

__all__ = ["Pages"]


@dataclass(slots=True)
class Pages:
    """What pages or blocks of one resource type hold, to be written in this order.

    Attributes:
        packed: Procedures that are ready for the ledger.
        sound: Other resources that were decoded and have an id.
        found: Entries that have to be looked at one by one.
    """

    packed: list[PackedProcedure] = field(default_factory=list)
    sound: list[Resource] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    _of_sound: set[str] = field(default_factory=set)
    _of_found: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        """How many."""
        return len(self.packed) + len(self.sound) + len(self.found)

    def takes(self, packed: Iterable[PackedProcedure], sound: Iterable[Resource], found: Iterable[Found]) -> bool:
        """Whether more can be written with these: the last version of a resource is the one that stands.

        It cannot where an earlier version would be written after the one that comes now. What is taken is for the
        caller to add, as far as it is kept.
        """
        of_sound = {one.id or "" for one in sound}
        later: AbstractSet[str] = self._of_sound | self._of_found
        of_packed: AbstractSet[str] = {one.id for one in packed} if later else later
        if not (of_packed.isdisjoint(later) and of_sound.isdisjoint(self._of_found)):
            return False
        self._of_sound |= of_sound
        self._of_found.update(resource_id for _, resource_id in found if resource_id)
        return True
