"""The synthetic hospital: all its resources, its corrections, its broken records and the truth about it.

Everything follows from one seed; there is no clock and no other source of chance. All people are invented.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from random import Random
from typing import Any

from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.sandbox.broken import broken_resources
from io_fhir_adapter.sandbox.clinical import write_courses
from io_fhir_adapter.sandbox.clinical_records import CLINICAL_TYPES
from io_fhir_adapter.sandbox.corrections import correct
from io_fhir_adapter.sandbox.ordinary import OrdinaryWork
from io_fhir_adapter.sandbox.people import Canaries, organization, patient, practitioner
from io_fhir_adapter.sandbox.plans import CODES, SYSTEMS, codings
from io_fhir_adapter.sandbox.recipes import PROFILES
from io_fhir_adapter.sandbox.records import Person, Register
from io_fhir_adapter.sandbox.schedule import schedule
from io_fhir_adapter.sandbox.sessions import write_session
from io_fhir_adapter.sandbox.times import ZONE, instant
from io_fhir_adapter.sandbox.truth import CaseTruth, GroundTruth, sum_up

__all__ = ["RESOURCE_TYPES", "GroundTruth", "Hospital", "build_hospital"]

RESOURCE_TYPES = (
    "Patient", "Procedure", "Encounter", "Condition", "Practitioner", "Organization", *CLINICAL_TYPES,
)  # fmt: skip
_STANDARD_PATIENTS = 1500
_FEWEST_PATIENTS = 60
_TUMOUR_SHARE = 0.22
_PRACTITIONERS = 24
_DUPLICATES = 6
_FEMALE_PROFILES = {"bone-metastases", "peritoneum", "pleura"}
_UNMAPPED = {(row.system, row.code) for row in CODES if row.category == "unmapped"}
_COMMON = ("I10.00", "E11.90", "K80.20", "J44.99", "M81.98")


@dataclass(frozen=True)
class Hospital:
    """A whole synthetic hospital.

    Attributes:
        resources: Good R4 resources by type (:data:`RESOURCE_TYPES`), each in order of id.
        later: What arrives on the second night: new versions of some resources (``meta.versionId`` 2) and new ones.
        broken: (resource type, raw JSON text) of broken resources; well-formed JSON with something wrong inside.
        truth: What is true on the first night.
        truth_later: What is true once ``later`` has arrived.
        cases: What is true of each session that may be drawn, item by item of the case-review form.
        canaries: Every token planted in a personal string, in any resource of the three groups.
    """

    resources: Mapping[str, tuple[dict[str, Any], ...]]
    later: tuple[dict[str, Any], ...]
    broken: tuple[tuple[str, str], ...]
    truth: GroundTruth
    truth_later: GroundTruth
    cases: tuple[CaseTruth, ...]
    canaries: tuple[str, ...]


def build_hospital(
    seed: int = 20250101, *, patients: int = 1500, procedures: int = 25_000, years: tuple[int, int] = (2024, 2025)
) -> Hospital:
    """Makes the hospital; the same arguments give the same hospital.

    Args:
        seed: Seed of everything.
        patients: Distinct people; a few have a second, merged record beside. The planned sessions scale with it.
        procedures: Good Procedures; more if the planned sessions alone need more.
        years: First and last calendar year.

    Raises:
        UsageError: Fewer than 60 patients, or years in the wrong order.
    """
    if patients < _FEWEST_PATIENTS:
        raise UsageError("the sandbox hospital is too small", do=f"ask for at least {_FEWEST_PATIENTS} patients")
    if years[0] > years[1]:
        raise UsageError("the sandbox hospital's years are in the wrong order", do="give the first year first")
    rng = Random(seed)  # noqa: S311 - synthetic data, nothing to guess
    canaries = Canaries(rng)
    closing = datetime(years[1] + 1, 1, 6, 3, 0, tzinfo=ZONE)
    register = Register(rng, canaries, instant(closing), _PRACTITIONERS)
    span = range(years[0], years[1] + 1)

    people = _people(register, patients, span)
    plans = schedule(rng, people, span, patients / _STANDARD_PATIENTS)
    truths = [write_session(register, plan) for plan in plans]
    unmapped = [
        (SYSTEMS[system], code, truth.date)
        for plan, truth in zip(plans, truths, strict=True)
        for ((system, code), *_) in codings(plan.variant)
        if (system, code) in _UNMAPPED
    ]
    written = sum(reference.startswith("Procedure/") for reference in register.by_reference)
    work = OrdinaryWork(register, people, span)
    work.add(max(0, procedures - written))
    unmapped += work.unmapped
    broken = broken_resources(people[0].id, canaries, instant(closing - timedelta(days=2)))

    corrections = correct(register, plans, truths, years[1], instant(closing + timedelta(hours=23)))
    cases = write_courses(register, plans, truths, work.intensive, closing.date() - timedelta(days=1))
    work.give_way(max(written, procedures), corrections.changed)
    resources = {kind: register.of_type(kind) for kind in RESOURCE_TYPES}
    later = tuple(corrections.changed[reference] for reference in sorted(corrections.changed))
    counts = Counter({kind: len(found) for kind, found in resources.items()})
    added = Counter(reference.partition("/")[0] for reference in corrections.new)
    faults = [(kind, reason) for kind, reason, _ in broken]
    return Hospital(
        resources=resources,
        later=later,
        broken=tuple((kind, text) for kind, _, text in broken),
        truth=sum_up(
            sessions=truths,
            unmapped=unmapped,
            years=span,
            resources=counts,
            broken=faults,
            without_code=work.without_code,
        ),
        truth_later=sum_up(
            sessions=corrections.sessions,
            unmapped=unmapped + corrections.unmapped,
            years=span,
            resources=counts + added,
            broken=faults,
            without_code=work.without_code,
        ),
        cases=cases,
        canaries=canaries.made,
    )


def _people(register: Register, number: int, years: range) -> list[Person]:
    """Adds the organisation, the physicians and the patients with the Conditions that they have on record."""
    rng, canaries = register.rng, register.canaries
    opened = date(years[0] - 1, 11, 1)
    register.keep(organization(canaries, register.updated(opened)))
    for index in range(1, _PRACTITIONERS + 1):
        register.keep(practitioner(index, canaries, register.updated(opened)))
    people = []
    for index, profile in enumerate(_profiles(rng, number), start=1):
        gender = ("female",) if profile in _FEMALE_PROFILES else ()
        died = f"{years[-1] + 1}-01-02" if rng.random() < 0.02 else ""
        resource = patient(
            f"pat-{index:05d}", rng, canaries, register.updated(opened), deceased=died, gender=gender
        )  # fmt: skip
        register.keep(resource)
        person = Person(resource["id"], resource["gender"], profile)
        _add_conditions(register, person, years[0])
        people.append(person)
    likely = [person for person in people if person.profile in {"liver", "liver-metastases"}]
    for person in likely[:_DUPLICATES]:
        _add_duplicate(register, person, opened)
    return people


def _profiles(rng: Random, number: int) -> list[str]:
    """The profile of every patient, in random order; no profile for those without a tumour."""
    total = sum(share for share, _ in PROFILES.values())
    tumours = round(number * _TUMOUR_SHARE)
    names = ["resolved", "resolved", "withdrawn"]
    for name, (share, _) in PROFILES.items():
        names += [name] * max(1, round(tumours * share / total))
    names += [""] * (number - len(names))
    rng.shuffle(names)
    return names


def _add_conditions(register: Register, person: Person, first_year: int) -> None:
    rng = register.rng
    onset = date(first_year - rng.randint(1, 2), rng.randint(1, 12), rng.randint(1, 28))
    if person.profile == "resolved":
        old = date(first_year - 6, 5, 4)
        register.add_condition(person, "C22.0", old, clinical="resolved", abated=date(first_year - 4, 3, 2))
    elif person.profile == "withdrawn":
        register.add_condition(person, "C22.0", onset)
    elif person.profile:
        for code in PROFILES[person.profile][1]:
            register.add_condition(person, code, onset)
    for code in rng.sample(_COMMON, rng.choice((0, 0, 1, 2))):
        register.add_condition(person, code, onset)


def _add_duplicate(register: Register, person: Person, opened: date) -> None:
    """A second record of the same person, merged into the first."""
    survivor = register.by_reference[person.reference]
    person.alias = f"{person.id}-old"
    rng, updated = register.rng, register.updated(opened)
    duplicate = patient(person.alias, rng, register.canaries, updated, gender=(person.gender,))
    duplicate |= {"birthDate": survivor["birthDate"], "active": False}
    duplicate["link"] = [{"other": {"reference": person.reference}, "type": "replaced-by"}]
    survivor["link"] = [{"other": {"reference": f"Patient/{person.alias}"}, "type": "replaces"}]
    register.keep(duplicate)
