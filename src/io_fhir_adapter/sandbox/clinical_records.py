"""What the clinical systems of the hospital write down around a treatment, as FHIR R4 resources.

Laboratory, imaging archive, pathology, ward and clinic: each record holds personal strings where such systems put
them, which are canaries.
"""

from __future__ import annotations

from datetime import date
from functools import cache
from random import Random
from typing import Any

from io_fhir_adapter.sandbox.people import ORGANIZATION_ID, safety
from io_fhir_adapter.sandbox.records import Register
from io_fhir_adapter.sandbox.times import local

__all__ = ["CLINICAL_TYPES", "Chart", "coded"]

CLINICAL_TYPES = (
    "Observation", "DiagnosticReport", "ImagingStudy", "MedicationAdministration", "Consent", "AdverseEvent",
    "DocumentReference",
)  # fmt: skip
LOINC = "http://loinc.org"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
_ATC = "http://www.whocc.no/atc"
_UCUM = "http://unitsofmeasure.org"
_SCT = "http://snomed.info/sct"
_OBSERVATION_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"
_RADIOLOGY_CLINIC = {"coding": [{"system": _SCT, "code": "408455009"}]}
_INTRA_ARTERIAL = "58100008"
_RESPONSE = "http://sandbox.example/CodeSystem/response"


@cache
def _offset(day: date) -> str:
    return local(day, 720).isoformat()[-6:]


def at(day: date, minute: int) -> str:
    """A FHIR dateTime on a local day, from the morning on; much cheaper than arithmetic in a time zone."""
    return f"{day}T{minute // 60:02d}:{minute % 60:02d}:00{_offset(day)}"


def coded(system: str, *codes: str) -> dict[str, Any]:
    """A CodeableConcept of codes of one system."""
    return {"coding": [{"system": system, "code": code} for code in codes]}


def _quantity(value: float, code: str) -> dict[str, Any]:
    return {"value": value, "unit": code, "system": _UCUM, "code": code}


class Chart:
    """Writes one patient's clinical records into the register.

    Args:
        register: Where they are kept.
        rng: Source of what varies.
        patient: The patient's reference.
        last: The last local day on which anything is written.
    """

    def __init__(self, register: Register, rng: Random, patient: str, last: date) -> None:
        self._register = register
        self._rng = rng
        self._patient = patient
        self._last = last

    def open_on(self, day: date) -> bool:
        """Whether that day lies within the hospital's time."""
        return day <= self._last

    def _token(self) -> str:
        return self._register.canaries.token()

    def _doctor(self) -> dict[str, str]:
        return {"reference": f"Practitioner/doc-{1 + self._rng.randrange(self._register.practitioners):03d}"}

    def _moment(self, day: date) -> str:
        """A time of a working day."""
        return at(day, 430 + self._rng.getrandbits(9))

    def _keep(self, kind: str, prefix: str, day: date, about: str = "subject", **elements: Any) -> str:
        return self._register.keep(
            {
                "resourceType": kind,
                "id": self._register.new_id(kind, prefix),
                "meta": {"versionId": "1", "lastUpdated": self._register.updated(day), **safety()},
                about: {"reference": self._patient},
                **elements,
            }
        )

    def observe(self, day: date, code: str, *, category: str = "", status: str = "final", **elements: Any) -> None:
        """An Observation with a LOINC code; the value as it is written, such as ``valueInteger=1``."""
        if category:
            elements["category"] = [coded(_OBSERVATION_CATEGORY, category)]
        if self._rng.random() < 0.1:
            elements["note"] = [{"text": f"Asked by Dr. {self._token()}"}]
        self._keep(
            "Observation", "obs", day, status=status, code=coded(LOINC, code), effectiveDateTime=self._moment(day),
            **elements,
        )  # fmt: skip

    def measure(self, day: date, code: str, value: float, unit: str, category: str = "laboratory") -> None:
        """An Observation of a quantity."""
        self.observe(day, code, category=category, valueQuantity=_quantity(value, unit))

    def assess_response(self, day: date, response: str, criteria: str) -> None:
        """How the tumour responded: a code of the hospital's own, and by which criteria, in words."""
        concept = coded(_RESPONSE, response)
        self.observe(day, "97509-4", valueCodeableConcept=concept, method={"text": criteria})

    def dose(self, day: date, values: dict[str, tuple[float, str]]) -> None:
        """A summary of the radiation dose: DICOM code to value and UCUM unit."""
        parts = [
            {"code": coded(DCM, code), "valueQuantity": _quantity(value, unit)}
            for code, (value, unit) in values.items()
        ]
        self.observe(day, "73569-6", component=parts)

    def study(self, day: date, modalities: tuple[str, ...], procedure: str = "") -> None:
        """A study in the imaging archive; ``procedure`` where it was made during one."""
        elements: dict[str, Any] = {"procedureReference": {"reference": procedure}} if procedure else {}
        self._keep(
            "ImagingStudy", "img", day, status="available", started=self._moment(day),
            identifier=[{"system": "http://sandbox.example/accession", "value": self._token()}],
            modality=[{"system": DCM, "code": modality} for modality in modalities],
            description=f"Images of {self._token()}", **elements,
        )  # fmt: skip

    def report(self, day: date, *, section: str, code: str, issued: str = "") -> str:
        """A DiagnosticReport of a department (v2 table 0074) and gives its reference."""
        return self._keep(
            "DiagnosticReport", "rep", day, status="final", category=[coded(_SECTION, section)],
            code=coded(LOINC, code), effectiveDateTime=self._moment(day),
            issued=issued or at(day, 1200), conclusion=f"{self._token()} is seen; told by phone.",
            resultsInterpreter=[self._doctor()],
        )  # fmt: skip

    def give(self, day: date, atc: str, value: float, unit: str, *, arterial: bool = False) -> None:
        """A drug that was given, and how much of it."""
        dosage: dict[str, Any] = {"text": f"given by {self._token()}", "dose": _quantity(value, unit)}
        if arterial:
            dosage["route"] = coded(_SCT, _INTRA_ARTERIAL)
        self._keep(
            "MedicationAdministration", "med", day, status="completed", medicationCodeableConcept=coded(_ATC, atc),
            effectiveDateTime=self._moment(day), dosage=dosage, performer=[{"actor": self._doctor()}],
        )  # fmt: skip

    def consent(self, day: date, scope: str, category: str) -> None:
        """A signed consent; ``scope`` of the table of R4, ``category`` a LOINC code."""
        token = self._token()
        self._keep(
            "Consent", "cns", day, about="patient", status="active", dateTime=day.isoformat(),
            scope=coded("http://terminology.hl7.org/CodeSystem/consentscope", scope),
            category=[coded(LOINC, category)],
            policyRule=coded("http://terminology.hl7.org/CodeSystem/v3-ActCode", "OPTIN"),
            sourceAttachment={"title": f"Signed by {token}", "url": f"http://sandbox.example/scans/{token}.pdf"},
        )  # fmt: skip

    def document(self, day: date, system: str, code: str) -> None:
        """A document of that type; its text lies elsewhere."""
        token = self._token()
        attachment = {"contentType": "application/pdf", "url": f"http://sandbox.example/files/{token}.pdf"}
        self._keep(
            "DocumentReference", "doc", day, status="current", type=coded(system, code),
            date=self._moment(day), description=f"About {self._token()}",
            author=[{**self._doctor(), "display": f"Dr. {self._token()}"}], content=[{"attachment": attachment}],
        )  # fmt: skip

    def adverse_event(self, day: date, procedure: str, severity: dict[str, Any]) -> None:
        """An adverse event that a Procedure is suspected of."""
        self._keep(
            "AdverseEvent", "ade", day, actuality="actual", date=day.isoformat(), severity=severity,
            event={"text": f"Seen in {self._token()}"}, recorder=self._doctor(),
            suspectEntity=[{"instance": {"reference": procedure}}],
        )  # fmt: skip

    def clinic(self, day: date, *, radiology: bool = True) -> None:
        """A visit to a clinic: that of interventional radiology, or another."""
        start = 480 + self._rng.getrandbits(8)
        elements: dict[str, Any] = {"serviceType": _RADIOLOGY_CLINIC} if radiology else {}
        elements["class"] = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"}
        self._keep(
            "Encounter", "enc", day, status="finished",
            identifier=[{"system": "http://sandbox.example/case-number", "value": self._token()}],
            period={"start": at(day, start), "end": at(day, start + 25)},
            serviceProvider={"reference": f"Organization/{ORGANIZATION_ID}"}, **elements,
        )  # fmt: skip
