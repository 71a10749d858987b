"""The sandbox server's CapabilityStatement: what it says it can do, from the same tables that do it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from io_fhir_adapter.sandbox.search import PARAMETERS, parameters_for

__all__ = ["capability_statement"]

_BULK = "http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"
_EXPORTED = {"Patient": "patient-export", "Group": "group-export"}


def _operation(name: str, definition: str) -> dict[str, str]:
    return {"name": name, "definition": f"http://hl7.org/fhir/uv/bulkdata/OperationDefinition/{definition}"}


def capability_statement(types: Iterable[str], base: str, now: str, unsupported: Collection[str]) -> dict[str, Any]:
    """A CapabilityStatement (R4, kind instance).

    Args:
        types: Resource types served beside those with parameters of their own.
        base: The base URL.
        now: The server's time as a FHIR instant.
        unsupported: Search parameters to leave out.
    """
    resources = [_resource(name, unsupported) for name in sorted({*types, *PARAMETERS, *_EXPORTED})]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": now,
        "publisher": "io-fhir-adapter",
        "kind": "instance",
        "software": {"name": "io-fhir-adapter sandbox"},
        "implementation": {"description": "Synthetic hospital; holds no real person's data", "url": base},
        "instantiates": [_BULK],
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [{"mode": "server", "resource": resources, "operation": [_operation("export", "export")]}],
    }


def _resource(resource_type: str, unsupported: Collection[str]) -> dict[str, Any]:
    known = {name: one for name, one in parameters_for(resource_type).items() if name not in unsupported}
    found: dict[str, Any] = {
        "type": resource_type,
        "interaction": [{"code": "read"}, {"code": "search-type"}],
        "versioning": "no-version",
        "searchInclude": [f"{resource_type}:{name}" for name, one in known.items() if one.kind == "reference"],
        "searchParam": [{"name": name, "type": one.kind} for name, one in known.items()],
        "operation": [_operation("export", _EXPORTED[resource_type])] if resource_type in _EXPORTED else [],
    }
    return {name: value for name, value in found.items() if value}
