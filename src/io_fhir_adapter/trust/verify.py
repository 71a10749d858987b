"""Checking a submission from its Bundle alone, as an accreditation body would: identifier, frame, draw, cases.

Everything is computed again from what the Bundle says; no key and no other file is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from io_fhir_adapter.canonical_urls import (
    DRAW_ORDER,
    DRAW_ROLE,
    DRAW_SYSTEM,
    ENTRY_SYSTEM,
    FACILITY_SYSTEM,
    FRAME_CODES,
    FRAME_DESIGN,
    FRAME_SYSTEM,
    NONCE_SYSTEM,
    PATIENT_TOKEN,
    PROGRAMME_SYSTEM,
    RULESET_SYSTEM,
    SUBMISSION_SYSTEM,
    SUPERSEDING_REASON,
)
from io_fhir_adapter.trust.drawn import SUPERSEDING, Place, draw_problems
from io_fhir_adapter.trust.frame import Commitment, draw_digest
from io_fhir_adapter.trust.signature import check_signature
from io_fhir_adapter.trust.submission import submission_digest

__all__ = [
    "CHECKS",
    "NONCE_ORIGINS",
    "Finding",
    "draw_issues",
    "drawn_with",
    "nonce_origin",
    "signature_finding",
    "verify_submission",
]

Json = Mapping[str, Any]

NONCE_ORIGINS: Final = ("task", "local")
"""Who gave the nonce of a draw: the accreditation system in a Task, or the facility itself."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check; ``words`` says what was found, or what is wrong."""

    check: str
    holds: bool
    words: str


class _WrongError(Exception):
    """Something in the Bundle does not hold; the message says what, and nothing about a person."""


def _of_kind(bundle: Json, kind: str) -> list[tuple[str, Json]]:
    """Full URL and resource of every entry of a type."""
    found = []
    for entry in bundle.get("entry", []):
        resource = entry.get("resource", {}) if isinstance(entry, Mapping) else {}
        if isinstance(resource, Mapping) and resource.get("resourceType") == kind:
            found.append((str(entry.get("fullUrl", "")), resource))
    return found


def _only(bundle: Json, kind: str) -> Json:
    found = _of_kind(bundle, kind)
    if len(found) != 1:
        raise _WrongError(f"there is not exactly one {kind}")
    return found[0][1]


def _identified(items: Any, system: str) -> str:
    """The one value that identifiers have in a system."""
    values = {item.get("value") for item in items or () if item.get("system") == system}
    if len(values) != 1:
        raise _WrongError(f"there is not exactly one identifier of {system}")
    return str(values.pop())


def _code(concept: Any, system: str) -> str:
    return next(
        (str(item.get("code")) for item in (concept or {}).get("coding", []) if item.get("system") == system), ""
    )


def _facility(bundle: Json) -> str:
    reporter = _only(bundle, "MeasureReport").get("reporter", {})
    return _identified([reporter.get("identifier", {})], FACILITY_SYSTEM)


def _programmes(resource: Json) -> list[Any]:
    """The programmes that a resource's tags name."""
    return [tag.get("code") for tag in resource.get("meta", {}).get("tag", []) if tag.get("system") == PROGRAMME_SYSTEM]


def _programme(bundle: Json) -> str:
    tags = _programmes(bundle)
    if len(tags) != 1:
        raise _WrongError("the Bundle does not name one programme")
    return str(tags[0])


def _stated(bundle: Json, system: str) -> str:
    """What the method statement (the Provenance) names as a source."""
    entities = _only(bundle, "Provenance").get("entity", [])
    return _identified([e.get("what", {}).get("identifier", {}) for e in entities if e.get("role") == "source"], system)


def _commitment(bundle: Json) -> Commitment:
    """The commitment, put together again from the Group, the programme and the facility."""
    group = _only(bundle, "Group")
    if "managingEntity" in group:
        owner = group["managingEntity"].get("identifier", {})
        if _identified([owner], FACILITY_SYSTEM) != _facility(bundle):
            raise _WrongError("the frame is another facility's")
    windows = [
        item.get("period", {}) for item in group.get("characteristic", [])
        if _code(item.get("code"), FRAME_CODES) == "review-window"
    ]  # fmt: skip
    if len(windows) != 1:
        raise _WrongError("the frame does not name its window")
    members = [member.get("entity", {}).get("identifier", {}) for member in group.get("member", [])]
    try:
        return Commitment(
            programme=_programme(bundle),
            facility_code=_facility(bundle),
            start=str(windows[0].get("start")),
            end=str(windows[0].get("end")),
            ruleset_digest=_identified(group.get("identifier"), RULESET_SYSTEM),
            tokens=tuple(_identified([member], PATIENT_TOKEN) for member in members),
            design=_design(group),
        )
    except ValueError as exc:
        raise _WrongError(str(exc)) from exc


def _design(group: Json) -> tuple[int, int] | None:
    """How many cases and reserves the frame was committed to with; None in frames that do not say."""
    said = {
        code: item.get("valueQuantity", {}).get("value")
        for item in group.get("characteristic", [])
        if (code := _code(item.get("code"), FRAME_CODES)) in FRAME_DESIGN
    }
    if not said:
        return None
    cases, reserves = (said.get(code) for code in FRAME_DESIGN)
    if not isinstance(cases, int) or not isinstance(reserves, int):
        raise _WrongError("the frame does not say how many cases and reserves are drawn from it")
    return cases, reserves


def nonce_origin(bundle: Json) -> str:
    """Where the draw of a submission says that its nonce came from, one of :data:`NONCE_ORIGINS`, or empty."""
    drawn = _of_kind(bundle, "List")
    return _code(drawn[0][1].get("orderedBy"), DRAW_ORDER).removeprefix("nonce-") if drawn else ""


def drawn_with(bundle: Json) -> tuple[str, str]:
    """Digest of the frame, and nonce, of a submission that :func:`draw_issues` finds nothing wrong with."""
    return _stated(bundle, FRAME_SYSTEM), _stated(bundle, NONCE_SYSTEM)


def _places(bundle: Json) -> list[Place]:
    return [
        Place(
            _identified([entry.get("item", {}).get("identifier", {})], PATIENT_TOKEN),
            _code(entry.get("flag"), DRAW_ROLE),
        )
        for entry in _only(bundle, "List").get("entry", [])
    ]


def _identifier_check(bundle: Json) -> str:
    try:
        made = submission_digest(bundle)
    except ValueError as exc:
        raise _WrongError(str(exc)) from exc
    if _identified([bundle.get("identifier", {})], SUBMISSION_SYSTEM) != made:
        raise _WrongError("the Bundle's identifier is not the digest of what it says: it was changed after sealing")
    return made


def _frame_check(bundle: Json) -> str:
    group, commitment = _only(bundle, "Group"), _commitment(bundle)
    if group.get("type") != "person" or group.get("actual") is not True:
        raise _WrongError("the frame is no group of actual persons")
    if _programmes(group) not in ([], [commitment.programme]):
        raise _WrongError("the frame is another programme's")
    if _identified(group.get("identifier"), FRAME_SYSTEM) != commitment.digest:
        raise _WrongError("the frame's digest does not follow from programme, facility, window, ruleset and tokens")
    if group.get("quantity") != len(commitment.tokens):
        raise _WrongError("the frame says another number of patients than it has tokens")
    if _stated(bundle, FRAME_SYSTEM) != commitment.digest:
        raise _WrongError("the method statement names another frame")
    return f"{len(commitment.tokens)} patients, {commitment.start} to {commitment.end}"


def _draw_check(bundle: Json) -> str:
    commitment, nonce, drawn = _commitment(bundle), _stated(bundle, NONCE_SYSTEM), _only(bundle, "List")
    if _identified(drawn.get("identifier"), DRAW_SYSTEM) != draw_digest(commitment.digest, nonce):
        raise _WrongError("the draw is not known by the digest of frame and nonce")
    places = _places(bundle)
    if not places:
        raise _WrongError("nobody was drawn")
    for problem in draw_problems(commitment, nonce, places):
        raise _WrongError(problem)
    if not _leads_to(drawn.get("subject", {}), _of_kind(bundle, "Group")[0][0]):
        raise _WrongError("the draw is from another frame")
    statement = _only(bundle, "Provenance")
    reasons = [_code(reason, SUPERSEDING_REASON) for reason in statement.get("reason", [])]
    earlier = [
        entity
        for entity in statement.get("entity", [])
        if entity.get("role") == "revision"
        and entity.get("what", {}).get("identifier", {}).get("system") == DRAW_SYSTEM
    ]
    if len(reasons) != len(earlier) or any(reason not in SUPERSEDING for reason in reasons):
        raise _WrongError("an earlier draw was superseded without a reason from the list")
    roles = [place.role for place in places]
    cases, reserves = roles.count("case"), roles.count("reserve")
    origin = nonce_origin(bundle)
    if origin not in NONCE_ORIGINS:
        raise _WrongError("the draw does not say where the nonce came from")
    words = f"{cases} cases, {reserves} reserves, {len(roles) - cases - reserves} left; nonce: {origin}"
    if len(roles) == len(commitment.tokens):
        words += "; the whole frame"
    return words + (f"; {len(reasons)} earlier draw superseded ({', '.join(reasons)})" if reasons else "")


def _is_of_the_facility(response: Json) -> bool:
    """Whether a QuestionnaireResponse is the standards self-assessment, which is about no patient."""
    named = response.get("identifier", {})
    own = named.get("system") == ENTRY_SYSTEM and str(named.get("value")).endswith(".standards")
    return own and "reference" not in response.get("subject", {})


def _leads_to(reference: Json, url: str | None) -> bool:
    """Whether a Reference leads there and nowhere else; one without a literal reference leads nowhere."""
    return reference.get("reference") == url


def _case_check(bundle: Json) -> str:
    """The cases of the draw are the patients of the submission, each with one review."""
    patients = {
        _identified(patient.get("identifier"), PATIENT_TOKEN): url for url, patient in _of_kind(bundle, "Patient")
    }
    cases = [place.token for place in _places(bundle) if place.role == "case"]
    if set(patients) != set(cases) or len(_of_kind(bundle, "Patient")) != len(cases):
        raise _WrongError("the patients of the submission are not the cases of the draw")
    for entry, place in zip(_only(bundle, "List").get("entry", []), _places(bundle), strict=True):
        if not _leads_to(entry.get("item", {}), patients.get(place.token)):
            raise _WrongError("a place of the draw leads to another patient")
    subjects = sorted(
        str(response.get("subject", {}).get("reference"))
        for _, response in _of_kind(bundle, "QuestionnaireResponse")
        if not _is_of_the_facility(response)
    )
    if subjects != sorted(patients.values()):
        raise _WrongError("there is not one case review for each case")
    return f"{len(cases)} cases, each with its review"


CHECKS: Final[Mapping[str, Callable[[Json], str]]] = {
    "identifier": _identifier_check,
    "frame": _frame_check,
    "draw": _draw_check,
    "cases": _case_check,
}
"""The checks in order: each says in words what it found, or raises."""

_OF_THE_DRAW: Final = ("frame", "draw", "cases")


def signature_finding(bundle: Json, jwks: Json | None) -> Finding:
    """Whether a submission is signed, and by which key.

    Args:
        bundle: The submission.
        jwks: The facility's public keys, None where they are not at hand: then a signature is only named.
    """
    if jwks is None:
        signed = "signature" in bundle
        return Finding("signature", True, "signed, not checked: no keys given" if signed else "not signed")
    try:
        return Finding("signature", True, f"signed by kid {check_signature(bundle, jwks)}")
    except ValueError as exc:
        return Finding("signature", False, str(exc))


def verify_submission(bundle: Json) -> list[Finding]:
    """The outcome of every check; those of the draw are left out where nothing was drawn."""
    drawn = _is_drawn(bundle)
    return [_outcome(bundle, name) for name in CHECKS if drawn or name not in _OF_THE_DRAW]


def _is_drawn(bundle: Json) -> bool:
    drawn = any(_of_kind(bundle, kind) for kind in ("Group", "List", "Patient"))
    return drawn or not all(_is_of_the_facility(one) for _, one in _of_kind(bundle, "QuestionnaireResponse"))


def draw_issues(bundle: Json) -> Iterator[str]:
    """What is wrong with frame, draw and cases of a valid submission, for an endpoint that takes it."""
    findings = (_outcome(bundle, name) for name in _OF_THE_DRAW if _is_drawn(bundle))
    return (finding.words for finding in findings if not finding.holds)


def _outcome(bundle: Json, name: str) -> Finding:
    try:
        return Finding(name, True, CHECKS[name](bundle))
    except _WrongError as exc:
        return Finding(name, False, str(exc))
    except (AttributeError, TypeError, KeyError, ValueError):
        return Finding(name, False, "an element that it rests on is not of its FHIR type")
