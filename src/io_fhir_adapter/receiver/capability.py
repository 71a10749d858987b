"""What the receiver says that it can do: its CapabilityStatement."""

from __future__ import annotations

from typing import Any

from io_fhir_adapter import __version__
from io_fhir_adapter.receiver.checks import RESOURCE_TYPES
from io_fhir_adapter.receiver.token_endpoint import TOKEN_PATH
from io_fhir_adapter.receiver.wire import FHIR_JSON

__all__ = ["capability_statement"]

_SERVICES = "http://terminology.hl7.org/CodeSystem/restful-security-service"
_SUBMIT_DATA = "http://hl7.org/fhir/OperationDefinition/Measure-submit-data"
_CANONICAL = ("Measure", "Questionnaire")
_DOCUMENTED = {
    "Group": (
        "PUT Group?identifier=system|digest announces a sampling frame, without its members, before anybody is drawn. "
        "A frame that is known stays as it is."
    ),
    "Task": (
        "Made here, for the facility alone. One for each announced frame, never changed: search by the frame's digest "
        "as identifier. Its input is the nonce to draw with; a submission drawn with another nonce, or with the "
        "facility's own although one was given, is refused. One for each submission: search by the submission's "
        "identifier. Its businessStatus is the body's verdict, its versions the earlier ones."
    ),
}


def capability_statement(date: str, base_url: str, secured: bool) -> dict[str, Any]:
    """The CapabilityStatement.

    Args:
        date: A FHIR dateTime.
        base_url: Where the receiver is reached.
        secured: Whether a bearer token is needed.
    """
    rest: dict[str, Any] = {"mode": "server"}
    if secured:
        rest["security"] = {
            "service": [{"coding": [{"system": _SERVICES, "code": "SMART-on-FHIR"}]}],
            "description": "A bearer token names the facility: one given at registration, or a short-lived one of the "
            f"token endpoint {base_url}{TOKEN_PATH} (SMART Backend Services, see .well-known/smart-configuration).",
        }
    rest["resource"] = [_resource(kind) for kind in sorted({*RESOURCE_TYPES, "Task"})]
    rest["interaction"] = [{"code": "transaction"}]
    return {
        "resourceType": "CapabilityStatement",
        "status": "draft",
        "experimental": True,
        "date": date,
        "kind": "instance",
        "software": {"name": "io-fhir-adapter receiver", "version": __version__},
        "implementation": {
            "description": "Reference accreditation endpoint: a proposal, run by no accreditation body",
            "url": f"{base_url}/fhir",
        },
        "fhirVersion": "4.0.1",
        "format": [FHIR_JSON, "json"],
        "rest": [rest],
    }


def _resource(kind: str) -> dict[str, Any]:
    parameters = [] if kind == "Provenance" else [{"name": "identifier", "type": "token"}]
    if kind in _CANONICAL:
        parameters.append({"name": "url", "type": "uri"})
    resource: dict[str, Any] = {
        "type": kind,
        "interaction": [{"code": "read"}, {"code": "vread"}, {"code": "search-type"}],
        "versioning": "versioned",
        "updateCreate": kind != "Task",
        "conditionalUpdate": kind != "Task",
        "searchParam": [{"name": "_id", "type": "token"}, *parameters],
    }
    if kind == "Group":
        resource["interaction"].append({"code": "update"})
    if kind == "Measure":
        resource["operation"] = [{"name": "submit-data", "definition": _SUBMIT_DATA}]
    if kind in _DOCUMENTED:
        resource["documentation"] = _DOCUMENTED[kind]
    return resource
