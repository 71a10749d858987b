"""Synthetic people of the sandbox hospital: patients, practitioners, the hospital itself.

Every personal string holds a canary: a token such as ``Zyx7QK2M9PA`` that occurs nowhere else, so that a search
for bytes proves whether something personal has left.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

__all__ = ["CANARY_PREFIX", "ORGANIZATION_ID", "Canaries", "organization", "patient", "practitioner", "safety"]

CANARY_PREFIX = "Zyx"
ORGANIZATION_ID = "org-sandbox"
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_TEST_SECURITY = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}
_TEST_TAG = {"system": "http://sandbox.example/CodeSystem/tag", "code": "synthetic"}


class Canaries:
    """Makes recognisable tokens and remembers every one of them."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._made: dict[str, None] = {}

    @property
    def made(self) -> tuple[str, ...]:
        """All tokens made so far, in the order in which they were made."""
        return tuple(self._made)

    def token(self) -> str:
        """A new token: ``Zyx`` and eight letters or digits, never made before."""
        while True:
            bits = self._rng.getrandbits(40)
            pairs = (_PAIRS[bits & 1023], _PAIRS[bits >> 10 & 1023], _PAIRS[bits >> 20 & 1023], _PAIRS[bits >> 30])
            token = CANARY_PREFIX + "".join(pairs)
            if token not in self._made:
                self._made[token] = None
                return token


def safety() -> dict[str, Any]:
    """The meta elements that say of every resource that it is synthetic test data."""
    return {"security": [dict(_TEST_SECURITY)], "tag": [dict(_TEST_TAG)]}


def organization(canaries: Canaries, updated: str) -> dict[str, Any]:
    """The hospital, as an R4 Organization."""
    return {
        "resourceType": "Organization",
        "id": ORGANIZATION_ID,
        "meta": {"versionId": "1", "lastUpdated": updated, **safety()},
        "active": True,
        "name": f"Synthetic Hospital {canaries.token()}",
        "telecom": [{"system": "phone", "value": f"+49 555 {canaries.token()}"}],
        "address": [{"line": [f"{canaries.token()} Allee 1"], "city": f"{canaries.token()}stadt", "country": "DE"}],
    }


def practitioner(number: int, canaries: Canaries, updated: str) -> dict[str, Any]:
    """A physician, as an R4 Practitioner with the id ``doc-NNN``."""
    return {
        "resourceType": "Practitioner",
        "id": f"doc-{number:03d}",
        "meta": {"versionId": "1", "lastUpdated": updated, **safety()},
        "identifier": [{"system": "http://sandbox.example/lanr", "value": canaries.token()}],
        "active": True,
        "name": [{"family": canaries.token(), "given": [canaries.token()], "prefix": ["Dr."]}],
        "telecom": [{"system": "email", "value": f"{canaries.token()}@hospital.example"}],
    }


def patient(
    identifier: str, rng: Random, canaries: Canaries, updated: str, *, deceased: str = "", gender: Sequence[str] = ()
) -> dict[str, Any]:
    """A patient, as an R4 Patient with personal data in every element that may hold some.

    Args:
        identifier: Logical id.
        rng: Source of what varies.
        canaries: Source of every personal string.
        updated: ``meta.lastUpdated``.
        deceased: Date of death, or empty.
        gender: Genders to choose from; female and male if empty.
    """
    family, given = canaries.token(), canaries.token()
    resource: dict[str, Any] = {
        "resourceType": "Patient",
        "id": identifier,
        "meta": {"versionId": "1", "lastUpdated": updated, "source": "http://sandbox.example/system/adt", **safety()},
        "identifier": [
            {
                "use": "usual",
                "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]},
                "system": "http://sandbox.example/mrn",
                "value": canaries.token(),
            },
            {"use": "official", "system": "http://fhir.de/sid/gkv/kvid-10", "value": canaries.token()},
        ],
        "active": True,
        "name": [{"use": "official", "family": family, "given": [given], "text": f"{given} {family}"}],
        "telecom": [
            {"system": "phone", "value": f"+49 555 {canaries.token()}"},
            {"system": "email", "value": f"{canaries.token()}@patient.example"},
        ],
        "gender": rng.choice(gender or ("female", "male")),
        "birthDate": f"{rng.randint(1932, 1994)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
        "address": [
            {
                "use": "home",
                "line": [f"{canaries.token()}weg {rng.randint(1, 99)}"],
                "city": f"{canaries.token()}dorf",
                "postalCode": f"{rng.randint(10000, 99999)}",
                "country": "DE",
            }
        ],
        "managingOrganization": {"reference": f"Organization/{ORGANIZATION_ID}"},
    }
    if deceased:
        resource["deceasedDateTime"] = deceased
    if rng.random() < 0.4:
        resource["contact"] = [
            {
                "name": {"family": canaries.token(), "given": [canaries.token()]},
                "telecom": [{"system": "phone", "value": f"+49 555 {canaries.token()}"}],
            }
        ]
    if rng.random() < 0.2:
        resource["extension"] = [
            {"url": "http://sandbox.example/StructureDefinition/employer", "valueString": f"{canaries.token()} GmbH"}
        ]
    if rng.random() < 0.2:
        resource["text"] = {
            "status": "generated",
            "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{given} {canaries.token()}</div>',
        }
    return resource
