"""Resources as no server should send them: every element that is read, with the worst that may stand there. Synthetic.

Made at random from the elements that are decoded, so that what is read in future is put to the same test.
"""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from io_fhir_adapter.fhir.structs import Condition, Encounter, Patient, Procedure

__all__ = ["KINDS", "write_files"]

KINDS: Final = {"Procedure": Procedure, "Patient": Patient, "Condition": Condition, "Encounter": Encounter}
_REFERENCES: Final = (
    "", "/", " ", "//", "#", "#c", "?", "??", "a/b", "Patient/", "/Patient", "/Patient/1", "Patient/1", "Patient/2",
    "Encounter/1", "Condition/1", "Patient/1/_history", "Patient/1/_history/", "_history/1", "urn:uuid:", "urn:",
    "http://", "http:///x", "http://h.example/fhir/Patient/1", "Patient?identifier=a|b", "Patient?", "?a", "a?b?c",
)  # fmt: skip
_DATES: Final = (
    "0000", "0000-00", "9999-12-31", "2025", "2025-06", "2025-06-01", "2025-02-30", "2025-13-01", "2025-W01-1", "T",
    "-", "2025-06-01T25:00:00Z", "2025-06-01T10:00:00Z", "2025-06-01T10", "2025-06-01T23:59:60Z", "2025-06-0١",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00",
)  # fmt: skip
_TEXTS: Final = (
    "|", "a|b", "\u0000", "\u2028", "é😀", "%zz", "x" * 300, "5-501.a3", "C22.0", "*", "[", "(", "\\", "^$", "٣", "NaN",
    "completed", "entered-in-error", "confirmed", "division[s]", "male", "replaced-by",
    "http://fhir.de/CodeSystem/bfarm/ops", "http://fhir.de/CodeSystem/bfarm/icd-10-gm", "http://snomed.info/sct",
    "http://www.ama-assn.org/go/cpt", "urn:oid:1.2.276.0.76.5.311",
)  # fmt: skip
_ANY: Final = (*_REFERENCES, *_DATES, *_TEXTS)
_ILL_TYPED: Final[tuple[Any, ...]] = (None, 7, 1.5, True, [], {}, "", [None], {"a": 1}, [[]], 10**30)
_DAMAGE: Final = (0, 10, 13, 34, 92, 0x80, 0xE4, 0xFF, 123, 125)
_USUAL: Final[dict[str, list[Any]]] = {
    "code": [
        {"coding": [{"system": "http://fhir.de/CodeSystem/bfarm/ops", "code": code}]}
        for code in ("5-501.53", "5-501.a3", "x")
    ],
    "performedDateTime": ["2025-06-01", "2025-06-02T10:00:00Z", "2025-07"],
    "status": ["completed"],
}


def _value(rng: Random, form: Any, depth: int) -> Any:
    if rng.random() < 0.01:
        return rng.choice(_ILL_TYPED)
    origin, arguments = typing.get_origin(form), typing.get_args(form)
    if origin in {typing.Union, types.UnionType}:
        return _value(rng, rng.choice(arguments), depth)
    if origin is list:
        return [_value(rng, arguments[0], depth + 1) for _ in range(rng.choice((0, 1, 1, 1, 2)))]
    if form is msgspec.Raw:  # something contained
        kind = rng.choice(("Condition", "Patient", "Location", None))
        return {"resourceType": kind, "id": rng.choice(("c", "", None)), "code": {"text": rng.choice(_TEXTS)}}
    simple = {str: rng.choice(_ANY), bool: rng.random() < 0.5, int: rng.choice((0, 1, -1, 10**21)), type(None): None}
    return simple[form] if form in simple else _elements(rng, form, depth + 1)


def _elements(rng: Random, form: Any, depth: int = 0) -> dict[str, Any]:
    forms = typing.get_type_hints(form)
    share = 0.4 if depth < 3 else 0.25
    return {
        field.encode_name: _value(rng, forms[field.name], depth)
        for field in msgspec.structs.fields(form)
        if field.name != "resourceType" and rng.random() < share
    }


def _line(rng: Random, kind: str, number: int) -> bytes:
    resource = {"resourceType": kind, **_elements(rng, KINDS[kind])}
    if rng.random() < 0.95:
        name, other = (f"{kind[0]}{one}" for one in (number, rng.randrange(number + 1)))
        resource["id"] = rng.choice((name, name, other, other, "1", "2", f"{other}\0x"))
    if rng.random() < 0.9:
        resource["subject"] = {"reference": f"Patient/{rng.randrange(1, 6)}"}
    for name, values in _USUAL.items() if kind == "Procedure" else ():
        if rng.random() < 0.9:
            resource[name] = rng.choice(values)
    line = bytearray(json.dumps(resource, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass"))
    if rng.random() < 0.02:
        line[rng.randrange(len(line))] = rng.choice(_DAMAGE)
    return bytes(line)


def write_files(folder: Path, seed: int, number: int) -> dict[str, Path]:
    """A file of lines for each type, by type."""
    rng = Random(seed)
    made = {kind: folder / f"{kind}.ndjson" for kind in KINDS}
    for kind, path in made.items():
        path.write_bytes(b"".join(_line(rng, kind, one) + b"\n" for one in range(number)))
    return made
