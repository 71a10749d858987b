"""The OpenAPI description of the receiver's HTTP interface; what the FHIR resources hold is not described here."""

from __future__ import annotations

from typing import Any, Final

from io_fhir_adapter import __version__
from io_fhir_adapter.receiver.checks import RESOURCE_TYPES
from io_fhir_adapter.receiver.token_endpoint import TOKEN_PATH
from io_fhir_adapter.receiver.wire import FHIR_JSON

__all__ = ["openapi_document"]

Json = dict[str, Any]

_REFUSALS: Final = {
    400: "The request or its JSON is broken, or asks for what is not done here.",
    401: "Nobody that is registered.",
    403: "Another facility's, or beyond the scopes of the token.",
    404: "There is no such resource, or it is another facility's.",
    406: "Answers are FHIR JSON.",
    408: "The body came too slowly.",
    412: "More than one stored resource matches.",
    413: "The body or what it unfolds to is too large.",
    414: "The address is too long.",
    415: "The body is no JSON, or in another encoding than gzip.",
    422: "The content is refused; the issues name the elements.",
    429: "Too many requests: wait as long as Retry-After says.",
    431: "The headers are too large.",
    503: "Too many requests at once: wait as long as Retry-After says.",
}
_ANY: Final = (406, 414, 429, 431, 503)
_READING: Final = (400, 401, 403, 404, *_ANY)
_WRITING: Final = (400, 401, 403, 408, 412, 413, 415, 422, *_ANY)
_ID: Final = "^[A-Za-z0-9.-]{1,64}$"


def openapi_document() -> Json:
    """The document."""
    types = sorted({*RESOURCE_TYPES, "Task"})
    kind = _parameter("path", "kind", "A resource type that is kept here.", {"type": "string", "enum": types})
    id_ = _parameter("path", "id", "The id of a resource.", {"type": "string", "pattern": _ID})
    version = _parameter("path", "version", "The number of a version.", {"type": "string", "pattern": "^[0-9]{1,9}$"})
    form = _parameter("query", "_format", "In place of Accept.", {"type": "string", "enum": ["json", FHIR_JSON]})
    smart = {"get": _operation("The SMART configuration.", 404, security=[], media="application/json")}
    paths: Json = {
        "/fhir/metadata": {"get": _operation("The CapabilityStatement.", parameters=[form], security=[])},
        "/fhir": {"post": _operation("Take a submission, all or nothing.", *_WRITING, body="Bundle")},
        "/fhir/Measure/$submit-data": {
            "post": _operation("Take a submission in Parameters.", *_WRITING, body="Parameters")
        },
        "/fhir/Group": {
            "put": _operation(
                "Announce the frame of a draw.",
                *_WRITING,
                created=True,
                body="Group",
                parameters=[_parameter("query", "identifier", "system|digest of the frame.", {"type": "string"}, True)],
            )
        },
        "/fhir/{kind}": {
            "get": _operation(
                "Find own resources by one of the parameters.",
                *_READING,
                parameters=[
                    kind,
                    form,
                    *(
                        _parameter("query", name, "What to find by.", {"type": "string", "minLength": 1})
                        for name in ("identifier", "url", "_id")
                    ),
                ],
            )
        },
        "/fhir/{kind}/{id}": {"get": _operation("The newest version.", *_READING, parameters=[kind, id_, form])},
        "/fhir/{kind}/{id}/_history/{version}": {
            "get": _operation("One version.", *_READING, parameters=[kind, id_, version, form])
        },
        "/.well-known/smart-configuration": smart,
        "/fhir/.well-known/smart-configuration": smart,
        TOKEN_PATH: {"post": _token_operation()},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "io-fhir-adapter receiver", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {"Resource": _resource_schema(), "OperationOutcome": _resource_schema("OperationOutcome")},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    summary: str,
    *refused: int,
    parameters: list[Json] | None = None,
    body: str = "",
    created: bool = False,
    security: list[Json] | None = None,
    media: str = FHIR_JSON,
) -> Json:
    schema: Json = {"$ref": "#/components/schemas/Resource"} if media == FHIR_JSON else {"type": "object"}
    responses: Json = {"200": {"description": "Done.", "content": {media: {"schema": schema}}}}
    if created:
        responses["201"] = {"description": "Done, and new.", "content": {media: {"schema": schema}}}
    for status in sorted({*refused, *_ANY}):
        responses[str(status)] = _refusal(status)
    operation: Json = {"summary": summary, "responses": responses, "parameters": parameters or []}
    if body:
        operation["requestBody"] = {"required": True, "content": {FHIR_JSON: {"schema": _resource_schema(body)}}}
    operation["security"] = [{"token": []}] if security is None else security
    return operation


def _refusal(status: int) -> Json:
    schema = {"$ref": "#/components/schemas/OperationOutcome"}
    return {"description": _REFUSALS[status], "content": {FHIR_JSON: {"schema": schema}}}


def _token_operation() -> Json:
    fields = ("grant_type", "client_assertion_type", "client_assertion")
    form = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in (*fields, "scope", "client_id")},
        "required": list(fields),
    }
    operation = _operation("Grant an access token.", 404, 408, 413, 415, security=[], media="application/json")
    operation["requestBody"] = {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": form}}}
    error = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    for status in ("400", "401"):
        operation["responses"][status] = {
            "description": "An OAuth error.",
            "content": {"application/json": {"schema": error}, FHIR_JSON: {"schema": {"type": "object"}}},
        }
    return operation


def _parameter(place: str, name: str, words: str, schema: Json, required: bool = False) -> Json:
    return {
        "in": place, "name": name, "description": words, "schema": schema, "required": required or place == "path",
    }  # fmt: skip


def _resource_schema(kind: str = "") -> Json:
    name: Json = {"const": kind} if kind else {"type": "string"}
    return {"type": "object", "properties": {"resourceType": name}, "required": ["resourceType"]}
