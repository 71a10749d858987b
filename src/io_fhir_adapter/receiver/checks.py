"""Is an incoming Bundle a submission that can be stored, or a withdrawal of one? Every check, in order.

Every fault becomes an issue that names entry and element, never a value. Each kind of check has a module of its own:
entries, allow-list, answers, numbers, withdrawals; frame and draw are checked by :mod:`io_fhir_adapter.trust.verify`,
the signature by :mod:`io_fhir_adapter.trust.signature`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from io_fhir_adapter.canonical_urls import (
    FACILITY_SYSTEM,
    PROGRAMME_SYSTEM,
    RULESET_SYSTEM,
    SUBMISSION_SYSTEM,
    structure_definition,
)
from io_fhir_adapter.receiver.allowed import allowed_issues
from io_fhir_adapter.receiver.answers import answer_issues, case_issues, definition_issues, is_of_facility
from io_fhir_adapter.receiver.entries import (
    RESOURCE_TYPES,
    EntryTarget,
    entries_of,
    entry_issues,
    entry_target,
    link_issues,
    of_kind,
    parse_token,
    place_of,
    target_issues,
)
from io_fhir_adapter.receiver.numbers import counts_of, number_issues
from io_fhir_adapter.receiver.published import is_published
from io_fhir_adapter.receiver.wire import CODE, Issue, Limits, RefusedError
from io_fhir_adapter.receiver.withdrawals import is_withdrawal, withdrawal_issues, withdrawn_by
from io_fhir_adapter.trust.signature import ALGORITHMS, check_signature
from io_fhir_adapter.trust.submission import submission_digest
from io_fhir_adapter.trust.verify import draw_issues, drawn_with, nonce_origin

__all__ = [
    "RESOURCE_TYPES",
    "Nonce",
    "Rules",
    "Seal",
    "Submission",
    "Withdrawal",
    "check_submission",
    "check_transaction",
    "parse_token",
]

Json = Mapping[str, Any]
Entries = list[dict[str, Any]]

_MAX_ISSUES: Final = 50
_RULESET: Final = structure_definition("ruleset-digest")


@dataclass(frozen=True)
class Rules:
    """What the body asks of a submission beside the form.

    Attributes:
        limits: How much it may hold.
        programmes: Codes of the programmes that are accepted, None for any.
        keys: Gives the public keys of a facility by its code, a JSON Web Key Set; None where no keys are known.
        require_signature: Whether a submission of a facility without keys is refused too.
        texts: Whether the body asks for texts that people typed, each of which the facility approved.
    """

    limits: Limits = field(default_factory=Limits)
    programmes: Collection[str] | None = None
    keys: Callable[[str], Json] | None = None
    require_signature: bool = False
    texts: bool = False


@dataclass(frozen=True)
class Nonce:
    """What a submission was drawn with: digest of the frame, the nonce, and who gave it (``task`` or ``local``)."""

    frame: str
    value: str
    origin: str


@dataclass(frozen=True)
class Seal:
    """What was found of the signature: ``valid`` with the ``kid`` of the facility's key, ``unchecked`` where there
    is one but no key is known to check it with, or ``none``."""

    signed: Literal["valid", "unchecked", "none"] = "none"
    kid: str = ""


@dataclass(frozen=True)
class Submission:
    """What the receiver needs to know of a Bundle that passed.

    Attributes:
        identifier: Bundle.identifier.value, the digest of the content.
        facility: Code of the facility that reports.
        programme: Code of the accreditation programme.
        period_start: First day of the report's period, ``YYYY-MM-DD``.
        period_end: Last day, inclusive.
        populations: Code and count of each population of the report's first group, in order.
        cases: How many case reviews it holds.
        targets: One for each entry, in order.
        nonce: What was drawn with; None where nothing was drawn.
        bundle: The whole Bundle.
        seal: What was found of its signature.
        replaces: Identifiers of the earlier submissions that it corrects.
    """

    identifier: str
    facility: str
    programme: str
    period_start: str
    period_end: str
    populations: tuple[tuple[str, int], ...]
    cases: int
    targets: tuple[EntryTarget, ...]
    nonce: Nonce | None
    bundle: dict[str, Any]
    seal: Seal = Seal()
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Withdrawal:
    """A Bundle that takes an earlier submission back; elements as of :class:`Submission`.

    Attributes:
        withdrawn: Identifier of the submission that is taken back.
        reason: Code of the reason.
    """

    identifier: str
    facility: str
    programme: str
    withdrawn: str
    reason: str
    targets: tuple[EntryTarget, ...]
    bundle: dict[str, Any]
    seal: Seal = Seal()


def check_submission(
    bundle: dict[str, Any], *, limits: Limits | None = None, programmes: Collection[str] | None = None
) -> Submission:
    """What a submission says, once everything about it holds; no keys are known.

    Raises:
        RefusedError: As :func:`check_transaction`, or the Bundle is a withdrawal.
    """
    checked = check_transaction(bundle, Rules(limits or Limits(), programmes))
    if isinstance(checked, Withdrawal):
        raise RefusedError(422, Issue("business-rule", "a submission holds exactly one MeasureReport", "Bundle.entry"))
    return checked


def check_transaction(bundle: dict[str, Any], rules: Rules) -> Submission | Withdrawal:
    """What a Bundle says, once everything about it holds.

    Args:
        bundle: The parsed body.
        rules: What the body asks for.

    Raises:
        RefusedError: 422 with up to fifty issues; 413, too many entries.
    """
    entries = entries_of(bundle, rules.limits)
    _raise(entry_issues(entries))
    targets = tuple(entry_target(entry["request"]["url"]) for entry in entries)
    _raise(target_issues(entries, targets))
    _raise(link_issues(entries))
    _raise(_unlisted(bundle, entries))
    if is_withdrawal(entries):
        return _withdrawal(bundle, entries, targets, rules)
    index, report = _only(entries, "MeasureReport")
    measures = of_kind(entries, "Measure")
    _raise(number_issues(report, measures[0][1]["resource"] if len(measures) == 1 else None, place_of(index)))
    submission = _submission(bundle, report, index, targets, rules)
    _raise(_draw_issues(bundle, entries))
    drawn = bool(of_kind(entries, "List"))
    nonce = Nonce(*drawn_with(bundle), nonce_origin(bundle)) if drawn else None
    _raise(case_issues(entries))
    _raise(definition_issues(entries))
    _raise(answer_issues(entries, nonce.value if nonce else "", submission.facility, texts=rules.texts))
    return replace(submission, nonce=nonce, seal=_seal(bundle, submission.facility, rules))


def _raise(issues: Iterator[Issue]) -> None:
    found = tuple(issue for issue, _ in zip(issues, range(_MAX_ISSUES), strict=False))
    if found:
        raise RefusedError(422, *found)


def _unlisted(bundle: Json, entries: Entries) -> Iterator[Issue]:
    """What the published allow-list does not name, in the Bundle's own elements and in every entry."""
    words = frozenset(text for _, entry in of_kind(entries, "Measure") for text in _texts(entry["resource"]))
    shell = {name: value for name, value in bundle.items() if name not in ("entry", "type")}
    yield from allowed_issues(shell, "Bundle", words)
    for index, entry in enumerate(entries):
        if not is_published(entry["resource"]):
            yield from allowed_issues(entry["resource"], place_of(index), words)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _only(entries: Entries, kind: str) -> tuple[int, dict[str, Any]]:
    found = of_kind(entries, kind)
    if len(found) != 1:
        raise RefusedError(422, Issue("business-rule", f"a submission holds exactly one {kind}", "Bundle.entry"))
    return found[0][0], found[0][1]["resource"]


def _draw_issues(bundle: Json, entries: Entries) -> Iterator[Issue]:
    """The draw follows from the frame and the nonce, and there is one case review for each case."""
    if any(of_kind(entries, kind) for kind in _OF_A_DRAW) or any(
        not is_of_facility(entry["resource"]) for _, entry in of_kind(entries, "QuestionnaireResponse")
    ):
        for words in draw_issues(bundle):
            yield Issue("business-rule", words, "Bundle.entry")


_OF_A_DRAW: Final = ("Group", "List", "Patient", "Procedure", "Condition", "Encounter")


def _withdrawal(bundle: dict[str, Any], entries: Entries, targets: tuple[EntryTarget, ...], rules: Rules) -> Withdrawal:
    statement = entries[0]["resource"]
    _raise(withdrawal_issues(statement))
    owners = {_facility(agent.get("onBehalfOf", {})) for agent in statement["agent"] if "onBehalfOf" in agent}
    if len(owners) != 1 or "" in owners:
        place = f"{place_of(0)}.agent"
        raise RefusedError(422, Issue("business-rule", "name the facility by its code", place))
    identifier, facility = _identifier(bundle), owners.pop()
    withdrawn, reason = withdrawn_by(statement)
    programme, seal = _programme(bundle, rules), _seal(bundle, facility, rules)
    return Withdrawal(identifier, facility, programme, withdrawn, reason, targets, bundle, seal)


def _submission(
    bundle: dict[str, Any], report: Json, index: int, targets: tuple[EntryTarget, ...], rules: Rules
) -> Submission:
    place = place_of(index)
    facility = _facility(report.get("reporter", {}))
    identifier, programme = _identifier(bundle), _programme(bundle, rules)
    if not facility:
        raise RefusedError(422, Issue("business-rule", "name the facility by its code", f"{place}.reporter.identifier"))
    groups = report.get("group", [])
    entries = bundle["entry"]
    _raise(_owner_issues(entries, report, facility, programme))
    responses = [entry["resource"] for _, entry in of_kind(entries, "QuestionnaireResponse")]
    return Submission(
        identifier=identifier,
        facility=facility,
        programme=programme,
        period_start=str(report["period"].get("start", ""))[:10],
        period_end=str(report["period"].get("end", ""))[:10],
        populations=tuple(counts_of(groups[0].get("population", []))) if groups else (),
        cases=sum(not is_of_facility(response) for response in responses),
        targets=targets,
        nonce=None,
        bundle=bundle,
        replaces=_replaced(entries),
    )


def _owner_issues(entries: Entries, report: Json, facility: str, programme: str) -> Iterator[Issue]:
    """Every part speaks for the one facility and of the same rules; identifiers are of this facility and programme."""
    for index, entry in of_kind(entries, "Provenance"):
        statement, place = entry["resource"], place_of(index)
        if any("onBehalfOf" in agent and _facility(agent["onBehalfOf"]) != facility for agent in statement["agent"]):
            yield Issue("business-rule", "speaks for another facility", f"{place}.agent")
        targets = [target.get("reference") for target in statement["target"]]
        urls = [other["fullUrl"] for other in entries if other is not entry]
        if sorted(map(str, targets)) != sorted(urls):
            yield Issue("business-rule", "names not just the entries of the submission", f"{place}.target")
        if "activity" in statement:
            yield Issue("business-rule", "a submission nullifies nothing", f"{place}.activity")
        if any(digest != _ruleset(report) for digest in _sources(statement, RULESET_SYSTEM) if _ruleset(report)):
            yield Issue("business-rule", "names other rules than the report was made with", f"{place}.entity")
    for kind in ("Procedure", "Condition", "Encounter", "QuestionnaireResponse"):
        for index, entry in of_kind(entries, kind):
            given = entry["resource"].get("identifier", {})
            named = given if isinstance(given, dict) else given[0]
            if not str(named.get("value")).startswith(f"{facility}.{programme}."):
                yield Issue(
                    "business-rule", "is named after another facility or programme", f"{place_of(index)}.identifier"
                )


def _ruleset(report: Json) -> str:
    """The digest of the rules that a report says it was made with; empty where it does not say."""
    return next((str(one.get("valueString")) for one in report.get("extension", []) if one["url"] == _RULESET), "")


def _sources(statement: Json, system: str) -> list[str]:
    """What the method statement names as its sources in an identifier system."""
    named = [
        entity.get("what", {}).get("identifier", {})
        for entity in statement.get("entity", [])
        if entity.get("role") == "source"
    ]
    return [str(one.get("value")) for one in named if one.get("system") == system]


def _replaced(entries: Entries) -> tuple[str, ...]:
    """The earlier submissions that the Provenance names as revised."""
    return tuple(
        str(named.get("value"))
        for _, entry in of_kind(entries, "Provenance")
        for entity in entry["resource"].get("entity", [])
        if entity.get("role") == "revision"
        and (named := entity.get("what", {}).get("identifier", {})).get("system") == SUBMISSION_SYSTEM
    )


def _facility(organisation: Json) -> str:
    """The code that a reference names a facility by; empty where it names none."""
    named = organisation.get("identifier", {})
    value = str(named.get("value") or "")
    return value if named.get("system") == FACILITY_SYSTEM and CODE.fullmatch(value) else ""


def _identifier(bundle: Json) -> str:
    given = bundle.get("identifier", {})
    try:
        said = submission_digest(bundle)
    except ValueError as exc:
        raise RefusedError(422, Issue("value", "a number has no canonical JSON form", "Bundle.entry")) from exc
    if given.get("system") != SUBMISSION_SYSTEM or given.get("value") != said:
        raise RefusedError(
            422, Issue("business-rule", "is not the digest of what the Bundle says", "Bundle.identifier")
        )
    return said


def _programme(bundle: Json, rules: Rules) -> str:
    tags = [tag.get("code") for tag in bundle.get("meta", {}).get("tag", []) if tag.get("system") == PROGRAMME_SYSTEM]
    known = rules.programmes
    if len(tags) != 1 or not CODE.fullmatch(tags[0] or "") or (known is not None and tags[0] not in known):
        raise RefusedError(422, Issue("business-rule", "name one programme that is known here", "Bundle.meta.tag"))
    return str(tags[0])


def _seal(bundle: Json, facility: str, rules: Rules) -> Seal:
    """What the signature is worth.

    Raises:
        RefusedError: 422, it does not hold, or there is none where one is asked for.
    """
    keys = rules.keys(facility).get("keys", []) if rules.keys is not None else []
    signing = [key for key in keys if (key.get("kty"), key.get("crv")) in ALGORITHMS.values()]
    if not signing:
        if rules.require_signature:
            words = "a signature is required, and no key of the facility is registered"
            raise RefusedError(422, Issue("business-rule", words, "Bundle.signature"))
        return Seal("unchecked" if "signature" in bundle else "none")
    try:
        return Seal("valid", check_signature(bundle, {"keys": signing}))
    except ValueError as exc:
        raise RefusedError(422, Issue("business-rule", str(exc), "Bundle.signature")) from exc
