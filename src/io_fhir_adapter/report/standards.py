"""The standards self-assessment: a Questionnaire made from the programme's data, and its answers counted.

The titles and texts of a body's standards are its own. Where the programme's data hold none, requirements have only our
neutral numbers and the public letters; a facility may enter titles of its own copy in a programme file of its own. That
there is such a form at all is this project's proposal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from io_fhir_adapter.canonical_urls import BASE, code_system
from io_fhir_adapter.classify.programme import Programme, Standard, Standards
from io_fhir_adapter.errors import UsageError

__all__ = [
    "ANSWERS",
    "Answer",
    "Line",
    "Requirement",
    "Tally",
    "checklist",
    "questionnaire",
    "requirements",
    "tally",
    "without_evidence",
]

Json = dict[str, Any]
Answer = Literal["met", "partly-met", "not-met", "not-applicable"]
Kind = Literal["core", "extended"]

ANSWERS: Final[Mapping[Answer, str]] = dict(
    zip(get_args(Answer), ("Met", "Partly met", "Not met", "Not applicable"), strict=True)
)
"""Code to display of what may be answered."""

_CODES: Final = code_system("standards-assessment")
_HASH: Final = 64


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement to answer.

    Attributes:
        link_id: Of its item.
        standard: Number of the standard.
        section: Id of the standard's section.
        kind: ``core`` or ``extended``.
        letter: The public letter; empty for all further extended requirements of a standard together.
        text: Our neutral name for it.
    """

    link_id: str
    standard: int
    section: str
    kind: Kind
    letter: str
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A requirement with its answer, None where there is none, and the evidence named: file name and SHA-256."""

    requirement: Requirement
    answer: Answer | None
    evidence: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Tally:
    """Answers of one kind of requirement, counted."""

    total: int
    met: int = 0
    partly: int = 0
    not_met: int = 0
    not_applicable: int = 0

    @property
    def answered(self) -> int:
        """How many have an answer, whatever it is."""
        return self.met + self.partly + self.not_met + self.not_applicable

    def to_json(self) -> dict[str, int]:
        """A JSON object of the numbers."""
        return {
            "total": self.total, "answered": self.answered, "met": self.met, "partly-met": self.partly,
            "not-met": self.not_met, "not-applicable": self.not_applicable,
        }  # fmt: skip


def requirements(programme: Programme) -> tuple[Requirement, ...]:
    """Every requirement, standard by standard, core before extended.

    Raises:
        UsageError: The programme's data hold no standards.
    """
    return tuple(one for standard in _standards(programme).standards for one in _of(standard))


def questionnaire(programme: Programme) -> Json:
    """The form as an R4 Questionnaire.

    Raises:
        UsageError: The programme's data hold no standards.
    """
    document = _standards(programme)
    sections = [
        {
            "linkId": f"section-{section.id}",
            "text": f"Section {section.id}" + (f": {section.title}" if section.title else ""),
            "type": "group",
            "item": [_group(one) for one in document.standards if one.section == section.id],
        }
        for section in document.sections
    ]
    return {
        "resourceType": "Questionnaire",
        "url": f"{BASE}/Questionnaire/standards-{programme.id}",
        "version": programme.version,
        "name": "StandardsSelfAssessment",
        "title": f"Self-assessment: {document.title} (proposal)",
        "status": "draft",
        "experimental": True,
        "subjectType": ["Organization"],
        "publisher": "io-fhir-adapter developers",
        "description": (
            "A facility's own answer to each requirement. This form is the io-fhir-adapter project's proposal; no "
            "accreditation body has adopted it. It holds no text of the standards: read each requirement in your own "
            "copy. Evidence is named by file name and SHA-256 only, and both stay in the facility unless asked for."
        ),
        "item": [section for section in sections if section["item"]],
    }


def checklist(programme: Programme, response: Mapping[str, Any] | None) -> tuple[Line, ...]:
    """Every requirement with what a response says of it.

    Args:
        programme: Whose standards.
        response: A clean QuestionnaireResponse, or None.
    """
    answers: dict[str, Answer] = {}
    evidence: dict[str, list[tuple[str, str]]] = {}
    for item in _items(response or {}):
        link = item["linkId"]
        if link.endswith(".evidence"):
            named = {inner["linkId"].rpartition(".")[2]: _value(inner) for inner in item.get("item", ())}
            evidence.setdefault(link.removesuffix(".evidence"), []).append(
                (str(named.get("name") or ""), str(named.get("sha256") or ""))
            )
        elif isinstance(value := _value(item), Mapping) and value.get("code") in ANSWERS:
            answers[link] = value["code"]
    return tuple(
        Line(one, answers.get(one.link_id), tuple(evidence.get(one.link_id, ()))) for one in requirements(programme)
    )


def without_evidence(node: Json) -> Json:
    """A response as it may leave: file names and their digests stay in the facility."""
    items = [without_evidence(item) for item in node.get("item", ()) if not str(item["linkId"]).endswith(".evidence")]
    kept = {name: value for name, value in node.items() if name != "item"}
    return {**kept, "item": items} if items else kept


def tally(lines: Sequence[Line], kind: Kind) -> Tally:
    """The answers of one kind, counted."""
    given = [line.answer for line in lines if line.requirement.kind == kind]
    return Tally(len(given), *(given.count(answer) for answer in ANSWERS))


def _standards(programme: Programme) -> Standards:
    if programme.standards is None:
        raise UsageError(
            f"the data of programme {programme.id} hold no standards",
            do="use one that has them, such as iasios, or enter them in a programme file of your own",
            number=20,
        )
    return programme.standards


def _of(standard: Standard) -> Iterator[Requirement]:
    kinds: tuple[tuple[Kind, tuple[str, ...]], ...] = (("core", standard.core), ("extended", standard.extended or ()))
    for kind, letters in kinds:
        for place, letter in enumerate(letters, start=1):
            text = f"Standard {standard.number}, {kind} requirement {place} (letter {letter})"
            yield Requirement(
                f"standard-{standard.number}.{letter}", standard.number, standard.section, kind, letter, text
            )
    known = "further " if standard.extended else ""
    yield Requirement(
        f"standard-{standard.number}.further", standard.number, standard.section, "extended", "",
        f"Standard {standard.number}, all {known}extended requirements, as in your own copy",
    )  # fmt: skip


def _group(standard: Standard) -> Json:
    items: list[Json] = []
    for one in _of(standard):
        items.append(
            {
                "linkId": one.link_id,
                "prefix": one.kind,
                "text": one.text,
                "type": "choice",
                "answerOption": [
                    {"valueCoding": {"system": _CODES, "code": code, "display": display}}
                    for code, display in ANSWERS.items()
                ],
            }
        )
        if one.letter:
            items.append(_evidence(one))
    title = f": {standard.title}" if standard.title else ""
    return {
        "linkId": f"standard-{standard.number}",
        "text": f"Standard {standard.number}{title}",
        "type": "group",
        "item": items,
    }


def _evidence(one: Requirement) -> Json:
    link = f"{one.link_id}.evidence"
    return {
        "linkId": link,
        "text": f"Evidence for {one.text}",
        "type": "group",
        "repeats": True,
        "item": [
            {"linkId": f"{link}.name", "text": "File name", "type": "string", "maxLength": 255},
            {"linkId": f"{link}.sha256", "text": "SHA-256 of the file", "type": "string", "maxLength": _HASH},
        ],
    }


def _items(node: Mapping[str, Any]) -> Iterator[Json]:
    for item in node.get("item", ()):
        yield item
        yield from _items(item)


def _value(item: Json) -> Any:
    answers = item.get("answer", ())
    return next((value for name, value in answers[0].items() if name.startswith("value")), None) if answers else None
