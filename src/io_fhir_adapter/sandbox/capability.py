"""The sandbox server's CapabilityStatement: what it says it can do, from the same tables that do it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from io_fhir_adapter.sandbox.search import PARAMETERS, parameters_for

__all__ = ["capability_statement"]


def capability_statement(types: Iterable[str], base: str, now: str, unsupported: Collection[str]) -> dict[str, Any]:
    """A CapabilityStatement (R4, kind instance).

    Args:
        types: Resource types served beside those with parameters of their own.
        base: The base URL.
        now: The server's time as a FHIR instant.
        unsupported: Search parameters to leave out.
    """
    resources = [_resource(name, unsupported) for name in sorted({*types, *PARAMETERS})]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": now,
        "publisher": "io-fhir-adapter",
        "kind": "instance",
        "software": {"name": "io-fhir-adapter sandbox"},
        "implementation": {"description": "Synthetic hospital; holds no real person's data", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [{"mode": "server", "resource": resources}],
    }


def _resource(resource_type: str, unsupported: Collection[str]) -> dict[str, Any]:
    known = {name: one for name, one in parameters_for(resource_type).items() if name not in unsupported}
    found: dict[str, Any] = {
        "type": resource_type,
        "interaction": [{"code": "read"}, {"code": "search-type"}],
        "versioning": "no-version",
        "searchInclude": [f"{resource_type}:{name}" for name, one in known.items() if one.kind == "reference"],
        "searchParam": [{"name": name, "type": one.kind} for name, one in known.items()],
    }
    return {name: value for name, value in found.items() if value}
