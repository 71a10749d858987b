"""Procedures straight into the form in which the ledger keeps them: the same facts, made from parts that repeat.

A hospital writes the same codes, body sites, performers and categories on thousands of Procedures. What such an element
comes to is worked out once for each way in which it is written, by the functions that make every other fact, and put
into place from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import tzinfo
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from io_fhir_adapter.errors import ResourceError
from io_fhir_adapter.fhir.dates import local_moment
from io_fhir_adapter.fhir.facts import codes_of, keys_of, operator_of, origin_of, performed_on, status_of
from io_fhir_adapter.fhir.mentions import procedure_mentions
from io_fhir_adapter.fhir.references import reference_key
from io_fhir_adapter.fhir.structs import (
    NOT_GIVEN,
    CodeableConcept,
    CodeableReference,
    Performer,
    Procedure,
    ProcedureSketch,
    Reference,
)
from io_fhir_adapter.ledger.packed_form import PackedProcedure, packed
from io_fhir_adapter.model import ProcedureFact

__all__ = ["LONGEST", "Packer", "Packing", "Reads", "Terms", "is_too_long"]

_REMEMBERED: Final = 20_000  # ways to write an element
_MOMENTS: Final = 4_096
_DONE: Final = "completed"
LONGEST: Final = 200
"""Characters of an id or a reference to a patient that a ledger holds, besides what a source adds."""
_LONGEST_STATUS: Final = 24
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_WRITTEN: Final = msgspec.json.Encoder().encode  # of a Raw or several: as they stand there, quicker than bytes()
_ELEMENTS: Final = msgspec.structs.astuple
_NOTHING: Final = msgspec.Raw(_ENCODE(()))
_SKETCHES: Final = msgspec.json.Decoder(ProcedureSketch)
_PARTS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    "code": msgspec.json.Decoder(CodeableConcept | None),
    "reasonCode": msgspec.json.Decoder(list[CodeableConcept] | None),
    "reason": msgspec.json.Decoder(list[CodeableReference] | None),
    "bodySite": msgspec.json.Decoder(list[CodeableConcept] | None),
    "contained": msgspec.json.Decoder(list[msgspec.Raw] | None),
    "performer": msgspec.json.Decoder(list[Performer] | None),
    "location": msgspec.json.Decoder(Reference | list[Reference] | None),
    "category": msgspec.json.Decoder(CodeableConcept | list[CodeableConcept] | None),
}

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
Reads = Callable[[ProcedureFact], tuple[bool, bool]]
"""Says of a fact whether a row of the tables matches its codes, and whether a system of them has a table."""


class Packing(NamedTuple):
    """Procedures that came together: those made ready for the ledger, and those that need a closer look."""

    packed: Sequence[PackedProcedure]
    others: Sequence[Procedure]


class Terms(msgspec.Struct, frozen=True):
    """What a :class:`Packer` goes by, for one in another process; ``zone`` is the IANA name of the time zone."""

    source: str
    zone: str
    not_after: str
    scope: str


class _Code(NamedTuple):
    """What an element ``code`` comes to."""

    codes: msgspec.Raw
    text: str
    mapped: bool
    known_system: bool


class Packer:
    """Makes Procedures of one source ready for the ledger.

    Args:
        source: Name of the source.
        tz: The facility's time zone.
        not_after: Last local date that a Procedure may carry.
        scope: What references to the source's patients carry behind an ``@``, empty for none.
        reads: Looks codes up.

    Attributes:
        terms: All of this but ``reads``; None where the time zone has no name.
    """

    def __init__(self, source: str, tz: tzinfo | None, not_after: str, scope: str, reads: Reads) -> None:
        self._source = source
        self._tz = tz
        self._not_after = not_after
        self._suffix = f"@{scope}" if scope else ""
        self.reads = reads
        self.terms = Terms(source, tz.key, not_after, scope) if isinstance(tz, ZoneInfo) else None
        self._codes: dict[bytes, _Code] = {}
        self._concepts: dict[bytes, msgspec.Raw] = {b"": _NOTHING, b"null": _NOTHING}
        self._places: dict[bytes, tuple[str, msgspec.Raw]] = {}
        self._moment = lru_cache(_MOMENTS)(lambda value: local_moment(value, tz))

    def pack_lines(self, block: bytes) -> Packing | None:
        """:meth:`pack` of a block of lines, a Procedure in each; None also where one of them cannot be read."""
        try:
            return self.pack(_SKETCHES.decode_lines(block))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def pack(self, sketches: Sequence[ProcedureSketch]) -> Packing | None:
        """Makes Procedures ready, in order.

        Returns:
            None where one has no id, one id comes twice, or an element is not of its type: these have to be looked
            at one by one.
        """
        ready: list[PackedProcedure] = []
        others: list[Procedure] = []
        ids = {sketch.id for sketch in sketches}
        if len(ids) < len(sketches) or None in ids or "" in ids:
            return None
        try:
            for sketch in sketches:
                made = self._packed(sketch)
                if made is None:
                    others.append(_opened(sketch))
                else:
                    ready.append(made)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return Packing(ready, others)

    def _packed(self, sketch: ProcedureSketch) -> PackedProcedure | None:
        """None for what cannot be used, or is written in a way that is rare.

        It runs millions of times: what takes time here is each look at an attribute and each call.
        """
        (
            _, name, meta, _, status, not_done, code, subject, encounter, context, performed, _, occurrence, _, reasons,
            condition, reason, sites, part_of, contained, performer, location, category,
        ) = _ELEMENTS(sketch)  # fmt: skip
        patient = subject.reference if subject is not None else None
        if not patient or patient.count("/") != 1 or patient[0] in "/#" or patient[-1] in "/ " or "?" in patient:
            patient = reference_key(subject, "Patient")
        if not patient or (contained is not NOT_GIVEN and _is_given(contained)):
            return None
        if reason is not NOT_GIVEN and _is_given(reason):
            return None
        single = performed or occurrence
        end_day = end_time = ""
        try:
            if single:
                day, time = self._moment(single)
            else:
                day, time, end_day, end_time = performed_on(sketch, self._tz)
        except ResourceError:
            return None
        if (day > self._not_after and self._not_after) or is_too_long(name, patient, status or ""):
            return None
        written = _WRITTEN(code)
        codes, text, mapped, known_system = self._codes.get(written) or self._read(code)
        written = _WRITTEN((performer, location, category))
        operator, mentions = self._places.get(written) or self._placed(written, (performer, location, category))
        if self._suffix:
            patient += self._suffix
        if status != _DONE or not_done:
            status = status_of(sketch)
        updated = origin = ""
        if meta is not None:
            updated, origin = meta.lastUpdated or "", meta.source or ""
        if not origin or "#" in origin:
            origin = origin_of(sketch)
        during = encounter or context
        visit = (during.reference or "") if during is not None else ""
        if during is not None and (visit.count("/") != 1 or visit[0] in "/#" or visit[-1] in "/ " or "?" in visit):
            visit = reference_key(during, "Encounter")
        fact = (  # ProcedureFact, field by field, with parts that are encoded already
            self._source,
            name,
            patient,
            status,
            day,
            end_day,
            visit,
            codes,
            text,
            self._concepts.get(_WRITTEN(reasons)) or self._concept("reasonCode", reasons),
            _keys(condition, "Condition") if condition else (),
            self._concepts.get(_WRITTEN(sites)) or self._concept("bodySite", sites),
            _keys(part_of, "Procedure") if part_of else (),
            origin,
            operator,
            mentions,
            time,
            end_time,
            updated,
        )
        return packed(name, patient, status, day, mapped, known_system, _ENCODE(fact), updated)

    def _read(self, code: msgspec.Raw) -> _Code:
        """What a ``code`` comes to.

        Raises:
            msgspec.DecodeError: It is none.
        """
        written = bytes(code)
        concept = _part("code", written)
        codes = codes_of((concept,)) if concept is not None else ()
        text = (concept.text or "") if concept is not None else ""
        bare = ProcedureFact(self._source, "", "", "", "", codes=codes, text=text)
        return _remember(self._codes, written, _Code(msgspec.Raw(_ENCODE(codes)), text, *self.reads(bare)))

    def _concept(self, element: str, concepts: msgspec.Raw) -> msgspec.Raw:
        written = bytes(concepts)
        codes = codes_of(_part(element, written) or ())
        return _remember(self._concepts, written, msgspec.Raw(_ENCODE(codes)))

    def _placed(self, written: bytes, parts: tuple[msgspec.Raw, ...]) -> tuple[str, msgspec.Raw]:
        performers, places, categories = (
            _part(element, bytes(part))
            for element, part in zip(("performer", "location", "category"), parts, strict=True)
        )
        stand_in = Procedure("Procedure", performer=performers, location=places, category=categories)
        made = operator_of(performers or ()), msgspec.Raw(_ENCODE(procedure_mentions(stand_in)))
        return _remember(self._places, written, made)


def is_too_long(resource_id: str, patient: str, status: str) -> bool:
    """Whether a ledger could not hold them, a suffix of the source included; FHIR's own are much shorter.

    Nor can it those with a NUL, at which databases end a text.
    """
    return (
        len(resource_id) > LONGEST
        or len(patient) > LONGEST
        or len(status) > _LONGEST_STATUS
        or "\0" in resource_id
        or "\0" in patient
    )


def _keys(references: Sequence[Reference], resource_type: str) -> tuple[str, ...]:
    """:func:`keys_of`, quicker for a single one in the usual form."""
    text = references[0].reference
    if len(references) > 1 or not text or text.count("/") != 1 or text[0] in "/#" or text[-1] in "/ " or "?" in text:
        return keys_of(references, resource_type)
    return (text,)


def _is_given(element: msgspec.Raw) -> bool:
    return bytes(element) != b"null"


def _remember(known: dict[_Key, _Value], key: _Key, value: _Value) -> _Value:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = value
    return value


def _part(element: str, written: bytes) -> Any:
    return _PARTS[element].decode(written) if written else None


def _opened(sketch: ProcedureSketch) -> Procedure:
    """The Procedure as it would have been decoded whole."""
    elements = {name: getattr(sketch, name) for name in sketch.__struct_fields__}
    return Procedure(**elements | {name: _part(name, bytes(elements[name])) for name in _PARTS})
