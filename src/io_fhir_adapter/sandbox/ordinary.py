"""The bulk of a hospital's Procedures: imaging, surgery, nursing, intensive care; clearly outside oncology."""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import date, timedelta
from itertools import islice
from random import Random

from io_fhir_adapter.sandbox.people import CANARY_PREFIX
from io_fhir_adapter.sandbox.plans import SYSTEMS
from io_fhir_adapter.sandbox.records import CODING_SYSTEM, RIS_SYSTEM, Person, ProcedurePlan, Register
from io_fhir_adapter.sandbox.times import FORMS

__all__ = ["ORDINARY_CODES", "UNMAPPED_CODES", "OrdinaryWork"]

ORDINARY_CODES: tuple[tuple[tuple[str, str], ...], ...] = (
    *(
        (("ops", code),)
        for code in (
            "3-200", "3-202", "3-203", "3-207", "3-220", "3-222", "3-225", "3-226", "3-800", "3-802", "3-820", "3-823",
            "3-825", "3-705.0", "1-632.0", "1-650.1", "1-440.a", "1-444.7", "1-710", "1-207.0", "1-275.0", "1-661",
            "1-620.00", "1-204.2", "5-470.11", "5-511.11", "5-749.0", "5-530.33", "5-032.00", "8-800.c0", "8-930",
            "8-98f.0", "8-98f.10", "8-561.1", "8-390.1", "8-701", "8-706", "8-771", "8-640.0", "8-855.3", "8-854.2",
            "8-010.3", "8-133.0", "8-190.20", "8-900", "8-902", "8-919", "9-260", "9-261", "9-320", "9-401.00",
        )
    ),
    *(
        (("pcs", code),)
        for code in (
            "0DTJ4ZZ", "0FT44ZZ", "0SR9019", "0SRD0J9", "10D00Z1", "30233N1", "BW20ZZZ", "BW25ZZZ", "B246ZZZ",
            "4A02X4Z", "5A1D70Z", "5A1945Z", "0DJD8ZZ", "0DJ08ZZ", "08RJ3JZ", "0BH17EZ", "3E0234Z", "F07Z9ZZ",
        )
    ),
    *(
        (("sct", code),)
        for code in (
            "40701008", "76009000", "46973005", "22778000", "302497006", "46825001", "225358003", "71493000",
            "52734007", "34431008", "68322007", "39543009", "385468004", "399331006", "113091000", "80146002",
            "76601001",
        )
    ),
    (("sct", "73761001"), ("cpt", "45378")),
    (("sct", "38102005"), ("cpt", "47562")),
    (("sct", "40701008"), ("cpt", "93306")),
    (("sct", "22778000"), ("cpt", "36415")),
    (("ris", "RIS-1001"), ("ops", "3-225")),
    (("ris", "RIS-1002"), ("ops", "3-222")),
    *((("ris", f"RIS-{number}"),) for number in range(1001, 1013)),
)  # fmt: skip
"""Every ordinary Procedure: its codings as (short system name, code)."""

UNMAPPED_CODES: tuple[tuple[str, str], ...] = (
    *(("ris", f"RIS-{number}") for number in range(9002, 9010)),
    ("cat", "KH-0815"),
    ("cat", "KH-0042"),
)
"""Codes that nobody has mapped, on Procedures that carry no other coding."""

_FORM_POOL = tuple(form for form, share in zip(FORMS, (60, 12, 14, 10, 2, 2), strict=True) for _ in range(share))
_PARTIAL = (("year", 0.004), ("month", 0.008), ("absent", 0.003), ("missing", 0.003))
_STATUS_POOL = (
    *("completed",) * 470, *("not-done",) * 8, *("in-progress",) * 5, *("preparation",) * 3,
    *("entered-in-error",) * 9, *("stopped",) * 3, *("unknown",) * 2,
)  # fmt: skip
_REASONS = ("I10.00", "E11.90", "J44.99", "K80.20", "M17.1", "N18.3", "J18.9", "S72.00", "I50.01")
_INTENSIVE = ("8-980", "8-98f")
_NOT_DONE = {"not-done", "preparation", "entered-in-error"}
_LONGEST_STAY = 5
_MARGIN_DAYS = 2


class OrdinaryWork:
    """Adds ordinary work to a register, away from the days of planned sessions.

    Attributes:
        unmapped: (system URI, code, local date) of each Procedure with an unmapped code alone.
        without_code: Number of Procedures without any coding.
        intensive: Patient reference and day of each intensive care with a full date.
    """

    def __init__(self, register: Register, people: Sequence[Person], years: Sequence[int]) -> None:
        self._register = register
        self._people = people
        self._first = date(years[0], 1, 2).toordinal()
        self._last = date(years[-1], 12, 30).toordinal() - _LONGEST_STAY
        self.unmapped: list[tuple[str, str, str]] = []
        self.without_code = 0
        self.intensive: list[tuple[str, date]] = []
        self._plain: list[str] = []
        self._stays: list[tuple[Person, range]] = []

    def add(self, number: int) -> None:
        """Adds exactly ``number`` Procedures in stays of one to five."""
        rng = self._register.rng
        left = number
        while left > 0:
            stay = min(left, rng.randint(1, 5))
            person, first = self._place(rng)
            last = first + timedelta(days=rng.randint(0, _LONGEST_STAY - 1))
            encounter = ""
            if rng.random() < 0.9:
                encounter = self._register.add_encounter(person, first, last, inpatient=last > first)
            earlier = ""
            for _ in range(stay):
                day = first + timedelta(days=rng.randint(0, (last - first).days))
                earlier = self._add_one(person, day, encounter, earlier)
            left -= stay
            self._stays.append((person, range(first.toordinal(), last.toordinal() + 1)))
        for person, days in self._stays:
            person.taken.update(days)

    def _place(self, rng: Random) -> tuple[Person, date]:
        while True:
            person, day = rng.choice(self._people), rng.randint(self._first, self._last)
            stay = range(day - _MARGIN_DAYS, day + _LONGEST_STAY + _MARGIN_DAYS)
            if person.taken.isdisjoint(stay):
                return person, date.fromordinal(day)

    def _add_one(self, person: Person, day: date, encounter: str, earlier: str) -> str:
        register = self._register
        rng = register.rng
        kind = rng.random()
        subject = person.alias if person.alias and rng.random() < 0.3 else person.id
        if kind < 0.006:
            self.without_code += 1
            label = f"Procedure on {register.canaries.token()}" if rng.random() < 0.6 else ""
            plan = ProcedurePlan((), day, encounter=encounter, label=label)
        elif kind < 0.02:
            system, code = rng.choice(UNMAPPED_CODES)
            self.unmapped.append((SYSTEMS[system], code, day.isoformat()))
            plan = ProcedurePlan(((system, code),), day, origin=RIS_SYSTEM, encounter=encounter)
        else:
            codes = rng.choice(ORDINARY_CODES)
            plan = ProcedurePlan(
                codes,
                day,
                form=self._form(rng),
                minute=rng.randint(420, 1200),
                duration=rng.randint(5, 90),
                status=rng.choice(_STATUS_POOL),
                origin=RIS_SYSTEM if codes[0][0] == "ris" else CODING_SYSTEM,
                encounter=encounter,
                part_of=earlier if earlier and rng.random() < 0.05 else "",
                reason_codes=(rng.choice(_REASONS),) if rng.random() < 0.2 else (),
            )
            if codes[0][1].startswith(_INTENSIVE) and plan.form in FORMS and plan.status not in _NOT_DONE:
                self.intensive.append((person.reference, day))
            elif not plan.part_of:
                self._plain.append(reference := register.add_procedure(subject, plan))
                return reference
        return register.add_procedure(subject, plan)

    def give_way(self, number: int, kept: Container[str]) -> None:
        """Takes plain Procedures out again until there are ``number``; none with a canary or that others refer to."""
        by_reference = self._register.by_reference
        procedures = [name for name in by_reference if name.startswith("Procedure/")]
        wholes = {part["reference"] for name in procedures for part in by_reference[name].get("partOf", ())}
        free = (
            name
            for name in reversed(self._plain)
            if name not in wholes and name not in kept and CANARY_PREFIX not in str(by_reference[name])
        )
        for name in list(islice(free, max(0, len(procedures) - number))):
            del by_reference[name]

    def _form(self, rng: Random) -> str:
        chance = rng.random()
        for form, share in _PARTIAL:
            if chance < share:
                return form
            chance -= share
        return rng.choice(_FORM_POOL)
