"""Records that may be one person's: they have to be decided on together."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["persons"]


def persons(links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Every patient that a link names to one of those it hangs together with, the same for all of them."""
    above: dict[str, str] = {}

    def top(patient: str) -> str:
        path = []
        while (higher := above.setdefault(patient, patient)) != patient:
            path.append(patient)
            patient = higher
        for passed in path:
            above[passed] = patient
        return patient

    for one, other in links:
        first, second = sorted((top(one), top(other)))
        above[second] = first
    return {patient: top(patient) for patient in above}
