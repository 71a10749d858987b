"""The values that the stages hand to each other: facts, findings, decisions.

All are frozen msgspec structs: cheap to make by the million, comparable, and stored as JSON as they are.
Vocabulary: docs/architecture.md; the JSON form of a decision is part of the command contract.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

__all__ = [
    "STATUSES",
    "Code",
    "ConditionFact",
    "Decision",
    "DecisionKind",
    "EncounterFact",
    "Finding",
    "Indication",
    "Lookup",
    "Mention",
    "PatientFact",
    "ProcedureFact",
    "Quarantined",
    "TrailStep",
    "status_name",
]

DecisionKind = Literal["counted", "not-counted", "review"]


STATUSES: Final = (
    "completed", "not-done", "entered-in-error", "in-progress", "preparation", "on-hold", "stopped", "unknown",
)  # fmt: skip
"""The statuses of a Procedure in R4 terms, http://hl7.org/fhir/event-status."""


def status_name(status: str) -> str:
    """A status as it is tallied: one of :data:`STATUSES`, or ``other`` for whatever else a server writes there."""
    return status if status in STATUSES else "other"


class Code(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One coding: ``system`` is the URI as the source wrote it, ``version`` and ``display`` may be empty."""

    system: str
    code: str
    version: str = ""
    display: str = ""


class Mention(msgspec.Struct, frozen=True, gc=False, array_like=True, order=True):
    """Where a record says that it belongs: ``element`` of the resource, and what stands there.

    ``value`` is a reference (``Location/7``), or ``system|value`` of an identifier or a coding; never a name.
    """

    element: str
    value: str


class ProcedureFact(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What is kept of one source Procedure.

    Attributes:
        source: Name of the source it was read from.
        id: Logical id, without the resource type.
        patient: Reference of the subject, such as ``Patient/1``; references are normalised.
        status: FHIR status in R4 terms (STU3 ``notDone`` becomes ``not-done``).
        day: Local calendar date of the start in the facility's time zone: ``YYYY-MM-DD``, or as much of it
            as the source knows (``YYYY-MM``, ``YYYY``, empty).
        end_day: Local date of the end of a period, else empty.
        encounter: ``Encounter/…`` or empty.
        codes: Codings of Procedure.code.
        text: Procedure.code.text; local only, it may hold anything.
        reasons: Codings of reasonCode (or R5 reason.concept).
        reason_refs: References of reasonReference (or R5 reason.reference).
        body_sites: Codings of bodySite.
        part_of: References of partOf.
        origin: Which departmental system recorded it (meta.source, else the first identifier's system), or empty.
        operator: Reference of the first performer, or empty; local only.
        mentions: Where it says that it belongs (performer, location, category), for a site's scope.
        time: Local time of the start, ``HH:MM``, empty where only the date is known.
        end_time: Local time of the end of a period, or empty.
        updated: meta.lastUpdated as the source wrote it, or empty; the last field of every fact, because a digest of
            a fact leaves it out.
    """

    source: str
    id: str
    patient: str
    status: str
    day: str
    end_day: str = ""
    encounter: str = ""
    codes: tuple[Code, ...] = ()
    text: str = ""
    reasons: tuple[Code, ...] = ()
    reason_refs: tuple[str, ...] = ()
    body_sites: tuple[Code, ...] = ()
    part_of: tuple[str, ...] = ()
    origin: str = ""
    operator: str = ""
    mentions: tuple[Mention, ...] = ()
    time: str = ""
    end_time: str = ""
    updated: str = ""


class ConditionFact(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What is kept of one Condition; ``onset`` and ``abated`` are partial local dates, empty if unknown."""

    source: str
    id: str
    patient: str
    codes: tuple[Code, ...] = ()
    clinical_status: str = ""
    verification_status: str = ""
    onset: str = ""
    abated: str = ""
    recorded: str = ""
    encounter: str = ""
    body_sites: tuple[Code, ...] = ()
    updated: str = ""


class EncounterFact(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What is kept of one Encounter; ``diagnoses`` are (Condition reference, use code, rank), rank 0 = none.

    ``mentions`` say where it belongs, as in :class:`ProcedureFact`.
    """

    source: str
    id: str
    patient: str
    status: str = ""
    class_code: str = ""
    start: str = ""
    end: str = ""
    diagnoses: tuple[tuple[str, str, int], ...] = ()
    reasons: tuple[Code, ...] = ()
    mentions: tuple[Mention, ...] = ()
    updated: str = ""


class PatientFact(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What is kept of one Patient; dates are partial and local. ``replaced_by`` follows Patient.link.

    ``tokens`` are keyed hashes of identifiers that tell people across sources, ``scope`` is the source's name where
    references to its patients carry it (``Patient/1@archive``).
    """

    source: str
    id: str
    gender: str = ""
    birth_date: str = ""
    deceased: str = ""
    active: bool = True
    replaced_by: str = ""
    tokens: tuple[str, ...] = ()
    scope: str = ""
    updated: str = ""


class Quarantined(msgspec.Struct, frozen=True):
    """One resource that could not be used: where it stood and why; never its content."""

    source: str
    position: str
    resource_type: str
    reason: str
    code: str = ""


class Finding(msgspec.Struct, frozen=True, gc=False):
    """What one code says.

    Attributes:
        technique: Such as ``embolisation``, ``microwave``, ``none`` for a look-alike; see mappings/techniques.csv.
        site: Organ or region, or empty.
        approach: ``percutaneous``, ``external``, ``open``, ``laparoscopic``, ``endoscopic`` or ``unspecified``.
        agent: ``none``, ``cytostatic``, ``drug-loaded-particles``, ``radionuclide`` and so on.
        role: ``main``, ``add-on``, ``planning`` or ``revision``.
        indication: ``implied``, ``expected`` or ``required``: what the row says about a tumour indication.
        system: Short name of the code system (``ops``, ``icd10pcs``, ``snomed``).
        code: The code as the table's system writes it.
        rule: The table row it came from, ``codes/ops.csv:12``.
        review: The reason for which a person must look before it counts, such as an inexact mapping, or empty.
    """

    technique: str
    site: str
    approach: str
    agent: str
    role: str
    indication: str
    system: str
    code: str
    rule: str
    review: str = ""


class Indication(msgspec.Struct, frozen=True, gc=False):
    """The strongest evidence of a tumour behind a session.

    ``level`` is ``code`` (implied by the procedure code), ``reasonCode``, ``reasonReference``,
    ``encounter``, ``condition`` or ``none``; ``kind`` is the class of the diagnosis
    (``malignant``, ``metastasis``, ``in-situ``, ``uncertain``, ``benign``, ``other`` or empty).
    """

    level: str
    system: str = ""
    code: str = ""
    kind: str = ""
    resource: str = ""
    rule: str = ""


class TrailStep(msgspec.Struct, frozen=True, gc=False):
    """One step of the reasoning behind a decision: the rule applied and what it saw, in plain words."""

    step: str
    rule: str
    text: str


class Decision(msgspec.Struct, frozen=True):
    """What became of one session.

    Attributes:
        source: Source name (the first in order, where several recorded the session).
        patient: Patient reference.
        date: Local date of the session, possibly partial or empty.
        category: Category code of what was done, ``none`` for what is not IO.
        decision: ``counted``, ``not-counted`` or ``review``.
        reason: Stable reason code.
        categories: All categories found in the session, the deciding one first.
        findings: All findings, in a stable order.
        indication: The evidence used.
        procedures: References of the Procedures in the session, sorted.
        trail: The reasoning, step by step.
    """

    source: str
    patient: str
    date: str
    category: str
    decision: DecisionKind
    reason: str
    categories: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    indication: Indication = Indication("none")
    procedures: tuple[str, ...] = ()
    trail: tuple[TrailStep, ...] = ()


class Lookup(msgspec.Struct, frozen=True):
    """One search: everything of a type about some records of one patient, dated within a window.

    Attributes:
        resource_type: What is searched for.
        patients: References of the patient's records, as the ledger writes them.
        patient_parameter: The search parameter that names them.
        date_parameter: The search parameter of the window, empty where there is no window.
        first: First local day of the window, empty where it has no beginning.
        last: Last local day of the window, empty where it has no end.
        codes: Values of the parameter ``code``, one of which must fit; none where any code will do.
    """

    resource_type: str
    patients: tuple[str, ...]
    patient_parameter: str = "patient"
    date_parameter: str = ""
    first: str = ""
    last: str = ""
    codes: tuple[str, ...] = ()

    @property
    def narrowing(self) -> tuple[tuple[str, str], ...]:
        """The parameters that say which of the patient's resources: codes and window."""
        bounds = (("ge", self.first), ("le", self.last))
        window = tuple((self.date_parameter, prefix + day) for prefix, day in bounds if self.date_parameter and day)
        return ((("code", ",".join(self.codes)),) if self.codes else ()) + window
