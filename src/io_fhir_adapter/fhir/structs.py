"""Lean input structs: just the elements that a decision needs, for STU3, R4, R4B and R5 alike.

Decoding is lenient about what is not named here and strict about what is: a Procedure whose ``code`` is a
string cannot be decided on and is quarantined. Element names are FHIR's.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

__all__ = [
    "NOT_GIVEN",
    "Bundle",
    "BundleEntry",
    "BundleLink",
    "CodeableConcept",
    "CodeableReference",
    "Coding",
    "Condition",
    "Encounter",
    "EncounterDiagnosis",
    "EncounterLocation",
    "EncounterParticipant",
    "EncounterReason",
    "Header",
    "Identifier",
    "Meta",
    "Patient",
    "PatientLink",
    "Performer",
    "Period",
    "Present",
    "Procedure",
    "ProcedureGlance",
    "ProcedureSketch",
    "Reference",
]


class Coding(msgspec.Struct, gc=False):
    """FHIR Coding."""

    system: str | None = None
    code: str | None = None
    version: str | None = None
    display: str | None = None


class CodeableConcept(msgspec.Struct, gc=False):
    """FHIR CodeableConcept."""

    coding: list[Coding] | None = None
    text: str | None = None


class Identifier(msgspec.Struct, gc=False):
    """FHIR Identifier."""

    system: str | None = None
    value: str | None = None


class Reference(msgspec.Struct, gc=False):
    """FHIR Reference, literal or logical."""

    reference: str | None = None
    identifier: Identifier | None = None


class CodeableReference(msgspec.Struct, gc=False):
    """R5 CodeableReference."""

    concept: CodeableConcept | None = None
    reference: Reference | None = None


class Period(msgspec.Struct, gc=False):
    """FHIR Period."""

    start: str | None = None
    end: str | None = None


class Meta(msgspec.Struct, gc=False):
    """FHIR Meta, the parts that tell versions and systems apart."""

    lastUpdated: str | None = None
    source: str | None = None


class Performer(msgspec.Struct, gc=False):
    """Procedure.performer; ``role`` is STU3's name of ``function``."""

    actor: Reference | None = None
    onBehalfOf: Reference | None = None
    function: CodeableConcept | None = None
    role: CodeableConcept | None = None


class Procedure(msgspec.Struct, gc=False):
    """Procedure: R4 elements with STU3's ``notDone``, ``context`` and R5's ``occurrence[x]``, ``reason``.

    ``category`` repeats in R5 alone; some servers repeat it, and ``location``, in R4 too.
    """

    resourceType: Literal["Procedure"]
    id: str | None = None
    meta: Meta | None = None
    identifier: list[Identifier] | None = None
    status: str | None = None
    notDone: bool | None = None
    code: CodeableConcept | None = None
    subject: Reference | None = None
    encounter: Reference | None = None
    context: Reference | None = None
    performedDateTime: str | None = None
    performedPeriod: Period | None = None
    occurrenceDateTime: str | None = None
    occurrencePeriod: Period | None = None
    reasonCode: list[CodeableConcept] | None = None
    reasonReference: list[Reference] | None = None
    reason: list[CodeableReference] | None = None
    bodySite: list[CodeableConcept] | None = None
    partOf: list[Reference] | None = None
    contained: list[msgspec.Raw] | None = None
    performer: list[Performer] | None = None
    location: Reference | list[Reference] | None = None
    category: CodeableConcept | list[CodeableConcept] | None = None


class Present(msgspec.Struct, gc=False):
    """An element of which only its presence matters."""


class ProcedureGlance(msgspec.Struct, gc=False):
    """Procedure at a glance: what tells whether it is worth a closer look, decoded four times as fast.

    Every element has the name and meaning that it has in :class:`Procedure`; ``code`` stays as it is written.
    """

    resourceType: Literal["Procedure"]
    id: str | None = None
    status: str | None = None
    notDone: bool | None = None
    code: msgspec.Raw = msgspec.Raw()
    subject: Present | None = None
    performedDateTime: str | None = None
    performedPeriod: Period | None = None
    occurrenceDateTime: str | None = None
    occurrencePeriod: Period | None = None


NOT_GIVEN: Final = msgspec.Raw()
"""What a :class:`ProcedureSketch` has for an element that is not there, this very object."""


class ProcedureSketch(msgspec.Struct, gc=False):
    """Procedure with the elements that repeat from one to the next as they are written, decoded twice as fast.

    Every element has the name and meaning that it has in :class:`Procedure`, in the same order.
    """

    resourceType: Literal["Procedure"]
    id: str | None = None
    meta: Meta | None = None
    identifier: list[Identifier] | None = None
    status: str | None = None
    notDone: bool | None = None
    code: msgspec.Raw = NOT_GIVEN
    subject: Reference | None = None
    encounter: Reference | None = None
    context: Reference | None = None
    performedDateTime: str | None = None
    performedPeriod: Period | None = None
    occurrenceDateTime: str | None = None
    occurrencePeriod: Period | None = None
    reasonCode: msgspec.Raw = NOT_GIVEN
    reasonReference: list[Reference] | None = None
    reason: msgspec.Raw = NOT_GIVEN
    bodySite: msgspec.Raw = NOT_GIVEN
    partOf: list[Reference] | None = None
    contained: msgspec.Raw = NOT_GIVEN
    performer: msgspec.Raw = NOT_GIVEN
    location: msgspec.Raw = NOT_GIVEN
    category: msgspec.Raw = NOT_GIVEN


class PatientLink(msgspec.Struct, gc=False):
    """Patient.link."""

    other: Reference | None = None
    type: str | None = None


class Patient(msgspec.Struct, gc=False):
    """Patient: what counting and age bands need, and what tells people apart across servers; no name."""

    resourceType: Literal["Patient"]
    id: str | None = None
    meta: Meta | None = None
    identifier: list[Identifier] | None = None
    active: bool | None = None
    gender: str | None = None
    birthDate: str | None = None
    deceasedDateTime: str | None = None
    deceasedBoolean: bool | None = None
    link: list[PatientLink] | None = None


class Condition(msgspec.Struct, gc=False):
    """Condition; statuses are a code in STU3 and a CodeableConcept from R4 on."""

    resourceType: Literal["Condition"]
    id: str | None = None
    meta: Meta | None = None
    clinicalStatus: str | CodeableConcept | None = None
    verificationStatus: str | CodeableConcept | None = None
    code: CodeableConcept | None = None
    bodySite: list[CodeableConcept] | None = None
    subject: Reference | None = None
    encounter: Reference | None = None
    context: Reference | None = None
    onsetDateTime: str | None = None
    onsetPeriod: Period | None = None
    abatementDateTime: str | None = None
    abatementPeriod: Period | None = None
    recordedDate: str | None = None
    assertedDate: str | None = None


class EncounterDiagnosis(msgspec.Struct, gc=False):
    """Encounter.diagnosis; ``condition`` is a Reference up to R4B and a list of CodeableReference in R5."""

    condition: Reference | list[CodeableReference] | None = None
    use: CodeableConcept | list[CodeableConcept] | None = None
    rank: int | None = None


class EncounterReason(msgspec.Struct, gc=False):
    """Encounter.reason: a CodeableConcept in STU3, CodeableReferences under ``value`` in R5."""

    coding: list[Coding] | None = None
    value: list[CodeableReference] | None = None


class EncounterLocation(msgspec.Struct, gc=False):
    """Encounter.location."""

    location: Reference | None = None
    status: str | None = None


class EncounterParticipant(msgspec.Struct, gc=False):
    """Encounter.participant; ``individual`` up to R4B, ``actor`` in R5."""

    type: list[CodeableConcept] | None = None
    individual: Reference | None = None
    actor: Reference | None = None


class Encounter(msgspec.Struct, gc=False):
    """Encounter; ``class`` is a Coding up to R4B and a list of CodeableConcept in R5.

    ``serviceType`` is a CodeableConcept in R4 and R4B and a list of CodeableReference in R5.
    """

    resourceType: Literal["Encounter"]
    id: str | None = None
    meta: Meta | None = None
    status: str | None = None
    class_: Coding | list[CodeableConcept] | None = msgspec.field(name="class", default=None)
    subject: Reference | None = None
    period: Period | None = None
    actualPeriod: Period | None = None
    diagnosis: list[EncounterDiagnosis] | None = None
    reasonCode: list[CodeableConcept] | None = None
    reasonReference: list[Reference] | None = None
    reason: list[EncounterReason] | None = None
    serviceProvider: Reference | None = None
    serviceType: CodeableConcept | list[CodeableReference] | None = None
    location: list[EncounterLocation] | None = None
    participant: list[EncounterParticipant] | None = None


class Header(msgspec.Struct, gc=False):
    """Just enough of any resource to say what it is."""

    resourceType: str = ""
    id: str | None = None


class BundleLink(msgspec.Struct, gc=False):
    """Bundle.link."""

    relation: str = ""
    url: str = ""


class BundleSearch(msgspec.Struct, gc=False):
    """Bundle.entry.search."""

    mode: str | None = None


class BundleEntry(msgspec.Struct, gc=False):
    """Bundle.entry; the resource stays raw until its type is known."""

    fullUrl: str | None = None
    resource: msgspec.Raw = msgspec.Raw()
    search: BundleSearch | None = None


class Bundle(msgspec.Struct, gc=False):
    """Bundle of any type."""

    resourceType: str = ""
    type: str = ""
    total: int | None = None
    link: list[BundleLink] | None = None
    entry: list[BundleEntry] | None = None
