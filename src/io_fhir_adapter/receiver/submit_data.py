"""The operation ``Measure/$submit-data`` (DEQM): a submission in Parameters, beside its own MeasureReport."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from io_fhir_adapter.receiver.wire import Issue, RefusedError

__all__ = ["submitted_bundle"]


def submitted_bundle(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The submission within the Parameters of the operation.

    Args:
        parameters: The parsed body: ``measureReport``, and ``resource`` with the whole transaction Bundle that holds
            that very report, each once and nothing else.

    Raises:
        RefusedError: 422, they are something else.
    """
    if parameters.get("resourceType") != "Parameters" or parameters.keys() - {"resourceType", "id", "parameter"}:
        raise RefusedError(422, Issue("invalid", "send Parameters with parameter and nothing else", "Parameters"))
    given = parameters.get("parameter")
    rows = given if isinstance(given, list) else []
    if not all(isinstance(row, dict) and row.keys() == {"name", "resource"} for row in rows):
        words = "each parameter has a name and a resource"
        raise RefusedError(422, Issue("structure", words, "Parameters.parameter"))
    if sorted(str(row["name"]) for row in rows) != ["measureReport", "resource"]:
        words = "give measureReport and one resource, the Bundle of the submission"
        raise RefusedError(422, Issue("business-rule", words, "Parameters.parameter"))
    named = {row["name"]: row["resource"] for row in rows}
    bundle = named["resource"]
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        words = "is not the Bundle of the submission"
        raise RefusedError(422, Issue("invalid", words, "Parameters.parameter.where(name='resource').resource"))
    entries = bundle.get("entry")
    reports = (
        [entry.get("resource") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    )
    if named["measureReport"] not in reports:
        words = "is not the MeasureReport of the submission"
        raise RefusedError(
            422, Issue("business-rule", words, "Parameters.parameter.where(name='measureReport').resource")
        )
    return bundle
