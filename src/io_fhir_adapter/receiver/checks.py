"""Is an incoming Bundle a submission that can be stored? Structure, numbers, counts, digest.

Every fault becomes an issue that names entry and element, never a value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

from io_fhir_adapter.canonical_urls import FACILITY_SYSTEM, PROGRAMME_SYSTEM, SUBMISSION_SYSTEM
from io_fhir_adapter.fhir.validity import resource_problems
from io_fhir_adapter.receiver.privacy import privacy_issues
from io_fhir_adapter.receiver.wire import Issue, Limits, RefusedError
from io_fhir_adapter.trust.submission import submission_digest
from io_fhir_adapter.trust.verify import draw_issues, drawn_with, nonce_origin

__all__ = [
    "CODE",
    "RESOURCE_TYPES",
    "EntryTarget",
    "Nonce",
    "Submission",
    "check_submission",
    "entry_target",
    "parse_token",
    "references",
]

RESOURCE_TYPES: Final = frozenset(
    {
        "Condition",
        "Encounter",
        "Group",
        "List",
        "Measure",
        "MeasureReport",
        "Patient",
        "Procedure",
        "Provenance",
        "Questionnaire",
        "QuestionnaireResponse",
    }
)
"""The types that a submission may hold."""

_ENTRY_ELEMENTS: Final = frozenset({"fullUrl", "resource", "request"})
_BY_ID: Final = re.compile(r"([A-Za-z]{1,64})/([A-Za-z0-9.-]{1,64})")
_FULL_URL: Final = re.compile(r"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What the code of a facility or programme looks like."""
_MAX_ISSUES: Final = 50


@dataclass(frozen=True)
class EntryTarget:
    """Which stored resource an entry updates: by logical id, or by ``identifier`` or ``url`` (``system`` empty)."""

    kind: str
    by: Literal["id", "identifier", "url"]
    system: str
    value: str


@dataclass(frozen=True)
class Nonce:
    """What a submission was drawn with: digest of the frame, the nonce, and who gave it (``task`` or ``local``)."""

    frame: str
    value: str
    origin: str


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


def check_submission(
    bundle: dict[str, Any], *, limits: Limits | None = None, programmes: Collection[str] | None = None
) -> Submission:
    """What the Bundle says, once everything about it holds.

    Args:
        bundle: The parsed body.
        limits: How many entries it may have.
        programmes: Codes of the programmes that are accepted, None for any.

    Raises:
        RefusedError: 422 with up to fifty issues.
    """
    entries = _entries(bundle, limits or Limits())
    _raise(_entry_issues(entries))
    targets = tuple(entry_target(entry["request"]["url"]) for entry in entries)
    _raise(_target_issues(entries, targets))
    _raise(_link_issues(entries))
    _raise(issue for index, entry in enumerate(entries) for issue in privacy_issues(entry["resource"], _place(index)))
    index, report = _only(entries, "MeasureReport")
    _raise(_number_issues(report, _place(index)))
    submission = _submission(bundle, report, index, targets, programmes)
    _raise(_draw_issues(bundle, entries))
    if _of_kind(entries, "List"):
        return replace(submission, nonce=Nonce(*drawn_with(bundle), nonce_origin(bundle)))
    return submission


def _place(index: int) -> str:
    return f"Bundle.entry[{index}].resource"


def _raise(issues: Iterator[Issue]) -> None:
    found = tuple(issue for issue, _ in zip(issues, range(_MAX_ISSUES), strict=False))
    if found:
        raise RefusedError(422, *found)


def _entries(bundle: dict[str, Any], limits: Limits) -> list[dict[str, Any]]:
    if bundle.get("resourceType") != "Bundle" or bundle.get("type") != "transaction":
        raise RefusedError(422, Issue("invalid", "send one Bundle of type transaction", "Bundle.type"))
    entries = bundle.get("entry")
    if not isinstance(entries, list) or not entries:
        raise RefusedError(422, Issue("required", "the Bundle has no entries", "Bundle.entry"))
    if len(entries) > limits.entries:
        raise RefusedError(413, Issue("too-long", f"the Bundle has more than {limits.entries} entries", "Bundle.entry"))
    shell = {name: value for name, value in bundle.items() if name != "entry"}
    problems = resource_problems(shell, frozenset({"Bundle"}))
    if problems:
        raise RefusedError(422, *(Issue("structure", problem.words, problem.path) for problem in problems))
    return entries


def _entry_issues(entries: list[Any]) -> Iterator[Issue]:
    for index, entry in enumerate(entries):
        place = f"Bundle.entry[{index}]"
        if not isinstance(entry, dict) or entry.keys() != _ENTRY_ELEMENTS:
            yield Issue("structure", "an entry has fullUrl, resource and request, and nothing else", place)
            continue
        full_url = entry["fullUrl"]
        if not isinstance(full_url, str) or not _FULL_URL.fullmatch(full_url):
            yield Issue("value", "must be a urn:uuid in lower case", f"{place}.fullUrl")
        for problem in resource_problems(entry["resource"], RESOURCE_TYPES):
            path = problem.path.partition(".")[2]
            yield Issue("structure", problem.words, f"{place}.resource.{path}" if path else f"{place}.resource")
        request = entry["request"]
        if not isinstance(request, dict) or request.keys() != {"method", "url"} or request["method"] != "PUT":
            yield Issue("not-supported", "the one request accepted is PUT with a url", f"{place}.request")
        elif not isinstance(request["url"], str):
            yield Issue("value", "must be a string", f"{place}.request.url")


def entry_target(url: str) -> EntryTarget:
    """What ``Type/id``, ``Type?identifier=system|value`` or ``Type?url=…`` asks for.

    Raises:
        RefusedError: 422, the request asks for something else.
    """
    by_id = _BY_ID.fullmatch(url)
    if by_id:
        return EntryTarget(by_id.group(1), "id", "", by_id.group(2))
    kind, _, query = url.partition("?")
    parameters = parse_qsl(query, keep_blank_values=True)
    if len(parameters) == 1 and kind in RESOURCE_TYPES:
        name, text = parameters[0]
        if name == "url" and text:
            return EntryTarget(kind, "url", "", text)
        system, value = parse_token(text)
        if name == "identifier" and system and value:
            return EntryTarget(kind, "identifier", system, value)
    raise RefusedError(
        422,
        Issue("not-supported", "a request names Type/id, Type?identifier=system|value or Type?url=", "Bundle.entry"),
    )


def parse_token(text: str) -> tuple[str | None, str]:
    """System and value of a token search, ``None`` where no system is asked for; unescapes FHIR's backslashes."""
    parts = [re.sub(r"\\(.)", r"\1", part) for part in re.split(r"(?<!\\)\|", text, maxsplit=1)]
    return (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0])


def _target_issues(entries: list[dict[str, Any]], targets: tuple[EntryTarget, ...]) -> Iterator[Issue]:
    """The resource must be what its request says, or sending it again would store it twice."""
    for index, (entry, target) in enumerate(zip(entries, targets, strict=True)):
        resource = entry["resource"]
        if target.kind != resource["resourceType"]:
            yield Issue("invalid", "the request is about another resource type", f"Bundle.entry[{index}].request.url")
        elif target.by == "id" and resource.get("id") != target.value:
            yield Issue("invalid", "the id is not that of the request", f"{_place(index)}.id")
        elif target.by != "id" and "id" in resource:
            yield Issue("invalid", "the receiver gives the id", f"{_place(index)}.id")
        elif target.by == "url" and resource.get("url") != target.value:
            yield Issue("invalid", "the url is not that of the request", f"{_place(index)}.url")
        elif target.by == "identifier" and not any(
            item.get("system") == target.system and item.get("value") == target.value for item in _identifiers(resource)
        ):
            yield Issue("invalid", "the identifier of the request is missing", f"{_place(index)}.identifier")
    if len(set(targets)) != len(targets):
        yield Issue("duplicate", "two entries update the same resource", "Bundle.entry")


def _identifiers(resource: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = resource.get("identifier", [])
    return given if isinstance(given, list) else [given]


def references(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Every literal reference within ``value``, with its FHIRPath."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from references(item, f"{place}[{index}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            if name == "reference" and isinstance(item, str):
                yield item, f"{place}.reference"
            else:
                yield from references(item, f"{place}.{name}")


def _link_issues(entries: list[dict[str, Any]]) -> Iterator[Issue]:
    urls = {entry["fullUrl"] for entry in entries}
    if len(urls) != len(entries):
        yield Issue("duplicate", "two entries have the same fullUrl", "Bundle.entry")
    for index, entry in enumerate(entries):
        for reference, place in references(entry["resource"], _place(index)):
            if reference not in urls and not _BY_ID.fullmatch(reference):
                yield Issue("not-found", "the reference leads to no entry of the Bundle", place)


def _of_kind(entries: list[dict[str, Any]], kind: str) -> list[tuple[int, dict[str, Any]]]:
    return [(index, entry) for index, entry in enumerate(entries) if entry["resource"]["resourceType"] == kind]


def _only(entries: list[dict[str, Any]], kind: str) -> tuple[int, dict[str, Any]]:
    found = _of_kind(entries, kind)
    if len(found) != 1:
        raise RefusedError(422, Issue("business-rule", f"a submission holds exactly one {kind}", "Bundle.entry"))
    return found[0][0], found[0][1]["resource"]


def _draw_issues(bundle: Mapping[str, Any], entries: list[dict[str, Any]]) -> Iterator[Issue]:
    """The draw follows from the frame and the nonce, and there is one case review for each case."""
    for words in draw_issues(bundle):
        yield Issue("business-rule", words, "Bundle.entry")
    patients = {entry["fullUrl"] for _, entry in _of_kind(entries, "Patient")}
    for kind in ("Procedure", "Condition", "Encounter"):
        for place, entry in _of_kind(entries, kind):
            if entry["resource"].get("subject", {}).get("reference") not in patients:
                yield Issue("business-rule", "belongs to no case of the submission", f"{_place(place)}.subject")


def _counts(populations: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """Code (or text) and count of each population."""
    counts: list[tuple[str, int]] = []
    for population in populations:
        concept = population.get("code", {})
        coding = (concept.get("coding") or [{}])[0]
        counts.append((concept.get("text") or coding.get("code", ""), population.get("count", 0)))
    return counts


def _number_issues(report: Mapping[str, Any], place: str) -> Iterator[Issue]:
    """Counts are not negative, and the strata of every stratifier sum to their group."""
    for g, group in enumerate(report.get("group", [])):
        rows = _counts(group.get("population", []))
        totals = dict(rows)
        for p, (_, count) in enumerate(rows):
            if count < 0:
                yield Issue("value", "a count is not negative", f"{place}.group[{g}].population[{p}].count")
        if len(totals) != len(rows):
            yield Issue("business-rule", "two populations have the same code", f"{place}.group[{g}].population")
        for s, stratifier in enumerate(group.get("stratifier", [])):
            sums: dict[str, int] = {}
            for stratum in stratifier.get("stratum", []):
                for code, count in _counts(stratum.get("population", [])):
                    sums[code] = sums.get(code, 0) + count
            if any(totals.get(code) != count for code, count in sums.items()):
                yield Issue(
                    "business-rule", "the strata do not sum to the group", f"{place}.group[{g}].stratifier[{s}]"
                )


def _submission(
    bundle: dict[str, Any],
    report: Mapping[str, Any],
    index: int,
    targets: tuple[EntryTarget, ...],
    programmes: Collection[str] | None,
) -> Submission:
    place = _place(index)
    identifier = bundle.get("identifier", {})
    if identifier.get("system") != SUBMISSION_SYSTEM or identifier.get("value") != _digest(bundle):
        raise RefusedError(
            422, Issue("business-rule", "is not the digest of what the Bundle says", "Bundle.identifier")
        )
    tags = [tag.get("code") for tag in bundle.get("meta", {}).get("tag", []) if tag.get("system") == PROGRAMME_SYSTEM]
    if len(tags) != 1 or not CODE.fullmatch(tags[0] or "") or (programmes is not None and tags[0] not in programmes):
        raise RefusedError(422, Issue("business-rule", "name one programme that is known here", "Bundle.meta.tag"))
    reporter = report.get("reporter", {}).get("identifier", {})
    if reporter.get("system") != FACILITY_SYSTEM or not CODE.fullmatch(reporter.get("value") or ""):
        raise RefusedError(422, Issue("business-rule", "name the facility by its code", f"{place}.reporter.identifier"))
    groups = report.get("group", [])
    return Submission(
        identifier=identifier["value"],
        facility=reporter["value"],
        programme=tags[0],
        period_start=str(report["period"].get("start", ""))[:10],
        period_end=str(report["period"].get("end", ""))[:10],
        populations=tuple(_counts(groups[0].get("population", []))) if groups else (),
        cases=sum(target.kind == "QuestionnaireResponse" for target in targets),
        targets=targets,
        nonce=None,
        bundle=bundle,
    )


def _digest(bundle: Mapping[str, Any]) -> str:
    try:
        return submission_digest(bundle)
    except ValueError as exc:
        raise RefusedError(422, Issue("value", "a number has no canonical JSON form", "Bundle.entry")) from exc
