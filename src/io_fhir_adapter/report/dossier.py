"""The dossier: what people need who type an application into a body's web form, taken from one sealed submission.

Numbers and case sheets come out of the sealed Bundle alone, never from the record; beside them stand the year before,
as the ledger counts it, and the facility's own answers to the standards. No body publishes forms for any of it that
this project could read: layout and selection are its proposal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from io_fhir_adapter.canonical_urls import (
    DRAW_SYSTEM,
    FRAME_SYSTEM,
    NONCE_SYSTEM,
    RULESET_SYSTEM,
    SUBMISSION_SYSTEM,
)
from io_fhir_adapter.classify.programme import Programme
from io_fhir_adapter.errors import LedgerError, SubmitError
from io_fhir_adapter.report.case_sheets import CaseSheet, case_sheets
from io_fhir_adapter.report.standards import Line
from io_fhir_adapter.report.wording import day_words
from io_fhir_adapter.trust.canonical import digest_bytes
from io_fhir_adapter.trust.submission import submission_digest
from io_fhir_adapter.trust.verify import Finding, nonce_origin, verify_submission
from io_fhir_adapter.volume.count import Volume

__all__ = ["Dossier", "MethodLine", "VolumeLine", "make_dossier"]

Json = Mapping[str, Any]

_ORIGINS: Final = {
    "task": "given by the accreditation system after it took note of the frame",
    "local": "drawn by the facility itself after the frame was committed to",
}


@dataclass(frozen=True, slots=True)
class VolumeLine:
    """Sessions of one of the body's groups, or of one category in it.

    ``before_counted`` and ``before_review`` are the year before, as the ledger counts it.
    """

    title: str
    counted: int
    review: int
    before_counted: int
    before_review: int
    is_group: bool = False


@dataclass(frozen=True, slots=True)
class MethodLine:
    """One fact of the method statement; ``is_code`` for what is compared character by character, such as a digest."""

    name: str
    value: str
    is_code: bool = False


@dataclass(frozen=True)
class Dossier:
    """All that the dossier shows.

    Attributes:
        facility: Name of the facility.
        code: Its code.
        programme: Title of the programme.
        period: Label of the year.
        before: Label of the year before.
        threshold: What the programme asks for.
        counted: Sessions counted, as sealed.
        review: Sessions for review, as sealed.
        before_counted: Sessions counted in the year before.
        before_review: Sessions for review in the year before.
        volume: Groups, each followed by its categories.
        cases: The case sheets by number.
        standards: The checklist, empty where the programme has none.
        assessed: When and with which digest the self-assessment was taken, empty where there is none.
        method: The method statement.
        checks: What a stranger finds who checks the submission.
        identifier: Identifier of the submission, the digest of what it says.
        sealed: When it was sealed, ISO 8601.
        draft: Why it must not be handed on yet, empty where it may.
        charted: The volume that charts may be drawn from; None where the ledger has moved on since the sealing.
        previous: The year before, for charts.
        notes: What the reader should know.
        signer: Who signs the volume statement, and what for.
    """

    facility: str
    code: str
    programme: str
    period: str
    before: str
    threshold: int
    counted: int
    review: int
    before_counted: int
    before_review: int
    volume: tuple[VolumeLine, ...]
    cases: tuple[CaseSheet, ...]
    standards: tuple[Line, ...]
    assessed: str
    method: tuple[MethodLine, ...]
    checks: tuple[Finding, ...]
    identifier: str
    sealed: str
    draft: str
    charted: Volume | None
    previous: Volume
    notes: tuple[str, ...]
    signer: tuple[str, str]


def make_dossier(
    body: bytes,
    programme: Programme,
    categories: Mapping[str, str],
    volume: Volume,
    previous: Volume,
    *,
    standards: Sequence[Line] = (),
    assessed: str = "",
    approval: str = "",
    delivery: str = "",
    draft: str = "",
) -> Dossier:
    """The dossier of one sealed submission.

    Args:
        body: The Bundle as it is in the outbox.
        programme: Its programme.
        categories: Category code to title.
        volume: The same year as the ledger counts it now.
        previous: The year before.
        standards: The checklist.
        assessed: When and with which digest it was taken.
        approval: Who approved the submission, in words.
        delivery: What became of the submission, in words.
        draft: Why it must not be handed on yet.

    Raises:
        LedgerError: The Bundle is not the one that its identifier names.
        SubmitError: It is of another programme.
    """
    bundle: Json = json.loads(body)
    identifier = str(bundle["identifier"]["value"])
    if bundle["identifier"]["system"] != SUBMISSION_SYSTEM or submission_digest(bundle) != identifier:
        raise LedgerError(
            "the sealed submission does not say what its identifier is the digest of", where="outbox",
            do="the ledger was changed by hand or damaged; restore a backup", number=40,
        )  # fmt: skip
    if not any(tag.get("code") == programme.id for tag in bundle["meta"]["tag"]):
        raise SubmitError(
            f"the submission of {volume.period.label} is not of the programme {programme.id}", where="outbox",
            do="let the submit command seal one", number=41,
        )  # fmt: skip
    kinds = _by_kind(bundle)
    report = kinds["MeasureReport"][0]
    sealed = _strata(report)
    now = {code: (tally.counted, tally.review) for code, tally in volume.by_category.items()}
    agrees = now == sealed and volume.period.start == str(report["period"]["start"])[:10]
    role = next((role for role in programme.roles if role.id == "authorised-representative"), None)
    notes = [
        "Sessions are counted: one patient on one local day. Unit, period and the assignment of categories to the "
        "body's groups are this project's proposal where the body does not say.",
        "Those for review are not counted; a responsible person may add them and then says so.",
    ]
    if not agrees:
        notes.append(
            f"The ledger has changed since the sealing and now counts {volume.counted} for {volume.period.label}; the "
            "numbers here are those of the submission, without charts."
        )
    return Dossier(
        facility=str(report["reporter"].get("display", report["reporter"]["identifier"]["value"])),
        code=str(report["reporter"]["identifier"]["value"]),
        programme=programme.title,
        period=volume.period.label,
        before=previous.period.label,
        threshold=programme.threshold,
        counted=sum(counted for counted, _ in sealed.values()),
        review=sum(review for _, review in sealed.values()),
        before_counted=previous.counted,
        before_review=previous.review,
        volume=tuple(_lines(programme, categories, sealed, previous)),
        cases=tuple(case_sheets(kinds)),
        standards=tuple(standards),
        assessed=assessed,
        method=tuple(_method(bundle, kinds, body, identifier, programme, approval, delivery)),
        checks=tuple(verify_submission(bundle)),
        identifier=identifier,
        sealed=str(bundle["timestamp"]),
        draft=draft,
        charted=volume if agrees else None,
        previous=previous,
        notes=tuple(notes),
        signer=(role.title, role.duty) if role is not None else ("Authorised representative", ""),
    )


def _by_kind(bundle: Json) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for entry in bundle["entry"]:
        found.setdefault(entry["resource"]["resourceType"], []).append({**entry["resource"], "_": entry["fullUrl"]})
    return found


def _code_of(concept: Json) -> str:
    codings = concept.get("coding") or [{}]
    return str(codings[0].get("code", ""))


def _strata(report: Json) -> dict[str, tuple[int, int]]:
    """Category to (counted, for review), as the MeasureReport says."""
    for group in report["group"]:
        for stratifier in group.get("stratifier", ()):
            if _code_of(stratifier["code"][0]) == "category":
                found = {}
                for stratum in stratifier.get("stratum", ()):
                    counts = {_code_of(one["code"]): int(one["count"]) for one in stratum["population"]}
                    found[_code_of(stratum["value"])] = (counts.get("numerator", 0), counts.get("review", 0))
                return found
    return {}


def _lines(
    programme: Programme, titles: Mapping[str, str], sealed: Mapping[str, tuple[int, int]], previous: Volume
) -> Iterator[VolumeLine]:
    groups = [(group.title, group.categories) for group in programme.groups]
    rest = tuple(code for code in sealed if programme.group_of(code) is None and code != "none")
    groups += [("In no group of the body's", rest)] if rest else []
    for title, codes in groups:
        rows = []
        for code in codes:
            counted, review = sealed.get(code, (0, 0))
            before = previous.by_category.get(code)
            old = (before.counted, before.review) if before is not None else (0, 0)
            if counted or review or any(old):
                rows.append(VolumeLine(titles.get(code, code), counted, review, *old))
        if codes is rest and not rows:
            continue
        yield VolumeLine(
            title,
            sum(row.counted for row in rows),
            sum(row.review for row in rows),
            sum(row.before_counted for row in rows),
            sum(row.before_review for row in rows),
            is_group=True,
        )
        yield from rows


def _method(
    bundle: Json,
    kinds: Mapping[str, list[Json]],
    body: bytes,
    identifier: str,
    programme: Programme,
    approval: str,
    delivery: str,
) -> Iterator[MethodLine]:
    """How the numbers came about; the digests are those of the FHIR submission, so that both can be shown to be one."""
    provenance = kinds["Provenance"][0]
    stated = {
        entity["what"]["identifier"]["system"]: str(entity["what"]["identifier"]["value"])
        for entity in provenance["entity"]
        if entity["role"] == "source"
    }
    yield MethodLine("Submission (digest of what it says)", identifier, is_code=True)
    yield MethodLine("SHA-256 of the Bundle as sealed", digest_bytes(body), is_code=True)
    yield MethodLine("Sealed at", str(bundle["timestamp"]))
    yield MethodLine("Approval", approval or "none recorded")
    yield MethodLine("Delivery", delivery)
    yield MethodLine("Programme", f"{programme.title}, data version {programme.version}")
    yield MethodLine("Software", str(provenance["agent"][0]["who"]["display"]))
    yield MethodLine("Rules and code tables", stated.get(RULESET_SYSTEM, ""), is_code=True)
    for group in kinds.get("Group", ()):
        (window,) = (one["period"] for one in group["characteristic"] if _code_of(one["code"]) == "review-window")
        yield MethodLine("Window of the draw", f"{day_words(window['start'])} to {day_words(window['end'])}")
        yield MethodLine("Sampling frame", f"{group['quantity']} patients, each a pseudonym")
        yield MethodLine("Digest of the frame", stated.get(FRAME_SYSTEM, ""), is_code=True)
    for drawn in kinds.get("List", ()):
        origin = nonce_origin(bundle)
        yield MethodLine("Nonce of the draw", stated.get(NONCE_SYSTEM, ""), is_code=True)
        yield MethodLine("Origin of the nonce", _ORIGINS.get(origin, origin))
        value = next((i["value"] for i in drawn["identifier"] if i["system"] == DRAW_SYSTEM), "")
        yield MethodLine("Digest of the draw", str(value), is_code=True)
        roles = [_code_of(entry["flag"]) for entry in drawn.get("entry", ())]
        left = len(roles) - roles.count("case") - roles.count("reserve")
        yield MethodLine("Drawn", f"{roles.count('case')} cases, {roles.count('reserve')} reserves, {left} left")
    superseded = sum(1 for entity in provenance["entity"] if entity["role"] == "revision")
    if superseded:
        yield MethodLine("Earlier draws that this one replaces", str(superseded))
