"""Judge the answer of an accreditation system: was the submission accepted, whole, or what became of it?

HTTP 200 is no receipt. Of a transaction only a ``transaction-response`` Bundle that answers every entry with success is
one; an operation may also say so in its own way. What the system says about its reasons is put into our own words: its
texts may quote what was sent.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

__all__ = ["EntryAnswer", "Verdict", "VerdictKind", "judge", "judge_file", "judge_operation"]

VerdictKind = Literal["accepted", "rejected", "transient", "sent"]

_TRANSIENT_STATUSES: Final = frozenset({401, 407, 408, 409, 421, 423, 425, 429})
_DEFINITE_STATUSES: Final = frozenset({400, 412, 413, 414, 415, 422, 431})
_TRANSIENT_ISSUES: Final = frozenset({"transient", "lock-error", "no-store", "timeout", "incomplete", "throttled"})
_FAILURES: Final = ("error", "fatal")
_RECEIPTS: Final = ("Bundle", "OperationOutcome")
_DONE: Final = frozenset({200, 201, 204})

_ISSUE_WORDS: Final = {
    "invalid": "invalid content",
    "structure": "a structure that is not allowed",
    "required": "a required element is missing",
    "value": "a value that is not allowed",
    "invariant": "a rule of the profile is broken",
    "security": "a security problem",
    "login": "sign-in is needed",
    "unknown": "an unknown user",
    "expired": "the session has expired",
    "forbidden": "not allowed for this facility",
    "suppressed": "something was held back",
    "processing": "could not be processed",
    "not-supported": "not supported",
    "duplicate": "a duplicate",
    "multiple-matches": "more than one stored resource matches",
    "not-found": "a reference leads nowhere",
    "deleted": "a referenced resource was deleted",
    "too-long": "too long",
    "code-invalid": "a code that is not allowed",
    "extension": "an extension that is not allowed",
    "too-costly": "too large to process",
    "business-rule": "a rule of the accreditation system is broken",
    "conflict": "in conflict with what is stored",
    "transient": "a passing fault",
    "lock-error": "the record is locked",
    "no-store": "the store is not available",
    "exception": "a fault in the accreditation system",
    "timeout": "it took too long",
    "incomplete": "not all of it was done",
    "throttled": "too many requests",
    "informational": "a note",
}
_LOCATION: Final = re.compile(r"(?:^|/)([A-Z][A-Za-z]{2,39})/[A-Za-z0-9.-]{1,64}(?:/_history/[A-Za-z0-9.-]{1,64})?$")
_EXPRESSION: Final = re.compile(
    r"[A-Z][A-Za-z]{2,39}(?:\[\d{1,5}\])?(?:\.[a-z][A-Za-z]{0,39}(?:\[\d{1,5}\])?){0,8}", re.ASCII
)
_STATUS_LINE: Final = re.compile(r"\s*([1-5][0-9]{2})\b")


@dataclass(frozen=True)
class EntryAnswer:
    """What was answered to one entry.

    Attributes:
        index: Position in the Bundle that was sent, from 0.
        status: HTTP status of the entry, 0 where none could be read.
        location: ``Type/id/_history/version`` of what is stored now, or empty.
        outcome: What the system said about it, in our words; empty where it said nothing.
    """

    index: int
    status: int
    location: str = ""
    outcome: str = ""


@dataclass(frozen=True)
class Verdict:
    """What became of a submission.

    Attributes:
        kind: ``accepted`` (every entry stored), ``rejected`` (the same bytes will never pass), ``transient`` (no
            verdict by the accreditation system; sending again is safe) or ``sent`` (it left, the receipt comes later).
        sentence: For people; holds nothing of what was sent.
        entries: One answer for each entry, where the system gave them.
        retry_after: Seconds that the receiver asks to wait, or None.
    """

    kind: VerdictKind
    sentence: str
    entries: tuple[EntryAnswer, ...] = ()
    retry_after: float | None = None


def judge(
    status: int, content_type: str, body: bytes, bundle: Mapping[str, Any], *, retry_after: float | None = None
) -> Verdict:
    """The verdict on an answer to ``bundle``; never raises.

    Args:
        status: The HTTP status.
        content_type: The ``Content-Type`` header, or empty.
        body: The whole body, decompressed.
        bundle: The transaction Bundle that was sent.
        retry_after: What ``transport.retry_after_seconds`` made of the header.
    """
    wait, answer = _finite(retry_after), _parsed(body)
    if 200 <= status < 300:
        return _judge_receipt(f"HTTP {status}", content_type, body, answer, _kinds(bundle), wait)
    return _judge_failure(status, answer, wait)


def judge_operation(
    status: int, content_type: str, body: bytes, bundle: Mapping[str, Any], *, retry_after: float | None = None
) -> Verdict:
    """The verdict on an answer to ``bundle`` as the data of ``Measure/$submit-data``; never raises.

    The operation has no output of its own: success is a 200, 201 or 204 that is empty, or that has an OperationOutcome
    or Parameters without an error in them. A server that stores what it was given may answer with the response of its
    own transaction: of the entries, of these and the MeasureReport, or of the two parameters.

    Args:
        status: As of :func:`judge`, like the others.
        content_type: The ``Content-Type`` header, or empty.
        body: The whole body, decompressed.
        bundle: The transaction Bundle that was handed over.
        retry_after: What ``transport.retry_after_seconds`` made of the header.
    """
    wait, answer, said = _finite(retry_after), _parsed(body), f"HTTP {status}"
    if not 200 <= status < 300:
        return _judge_failure(status, answer, wait)
    if status not in _DONE:
        return Verdict("transient", f"{said}, so the operation is not done, and what comes of it is not waited for")
    if not body.strip():
        return Verdict("accepted", f"the operation was done ({said})")
    no_receipt = _why_no_fhir(content_type, body, answer, (*_RECEIPTS, "Parameters"))
    if no_receipt:
        return Verdict("transient", f"{said}, but {no_receipt}", (), wait)
    kinds = _kinds(bundle)
    verdicts = [_judge_output(said, part, kinds, wait) for part in _outputs(answer)]
    refused = [verdict for verdict in verdicts if verdict.kind != "accepted"]
    return (refused or verdicts or [Verdict("accepted", f"the operation was done ({said})")])[0]


def judge_file(body: bytes, bundle: Mapping[str, Any]) -> Verdict:
    """The verdict on a receipt that came as a file; never raises.

    Args:
        body: The file.
        bundle: The transaction Bundle that was laid out.
    """
    return _judge_receipt("the receipt's file is there", "", body, _parsed(body), _kinds(bundle), None)


def _finite(seconds: float | None) -> float | None:
    return seconds if seconds is None or math.isfinite(seconds) else None


def _kinds(bundle: Mapping[str, Any]) -> list[str]:
    """The resource type of each entry that was sent."""
    return [str(entry.get("resource", {}).get("resourceType")) for entry in bundle.get("entry", [])]


def _judge_failure(status: int, answer: Any, wait: float | None) -> Verdict:
    """The verdict on an answer that is no success."""
    said = _outcome_words(answer)
    because = f": {said}" if said else ""
    if status >= 500 or status in _TRANSIENT_STATUSES:
        return Verdict("transient", f"{_status_words(status)} (HTTP {status}){because}", (), wait)
    if 300 <= status < 400:
        return Verdict(
            "transient",
            f"the address answers with a redirect (HTTP {status}), which is not followed; check the configured address",
        )
    if _is_outcome(answer):
        kind: VerdictKind = "transient" if _passing(answer) else "rejected"
        return Verdict(kind, f"the accreditation system refused the submission (HTTP {status}){because}", (), wait)
    if status in _DEFINITE_STATUSES:
        return Verdict("rejected", f"the submission was refused without a reason in FHIR (HTTP {status})")
    return Verdict(
        "transient",
        f"the answer (HTTP {status}) does not come from a FHIR server; check the configured address",
        (),
        wait,
    )


def _status_words(status: int) -> str:
    if status == 429:
        return "the accreditation system asks to slow down"
    if status in (401, 407):
        return "the credentials were not accepted"
    if status >= 500:
        return "the accreditation system has a fault"
    return "the accreditation system cannot take the submission now"


def _parsed(body: bytes) -> Any:
    """The JSON value of the body, or None."""
    try:
        return json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _judge_receipt(
    said: str, content_type: str, body: bytes, answer: Any, kinds: list[str], wait: float | None
) -> Verdict:
    """The verdict on an answer that is a receipt, or the reason why it is none."""
    no_receipt = _why_no_fhir(content_type, body, answer, _RECEIPTS)
    if no_receipt:
        return Verdict("transient", f"{said}, but {no_receipt}", (), wait)
    if _is_outcome(answer):
        return _judge_outcome(said, answer, wait)
    return _judge_response(said, answer, (kinds,), wait)


def _judge_outcome(said: str, outcome: Any, wait: float | None) -> Verdict:
    """The verdict on an OperationOutcome where a transaction-response is due."""
    refused = _failed(outcome) and not _passing(outcome)
    words = _outcome_words(outcome) or "nothing said"
    return Verdict(
        "rejected" if refused else "transient",
        f"{said}, but the answer is an OperationOutcome and no receipt: {words}",
        (),
        None if refused else wait,
    )


def _judge_response(said: str, answer: Any, possible: Iterable[list[str]], wait: float | None) -> Verdict:
    """The verdict on a Bundle.

    Args:
        said: How it came, in words.
        answer: The Bundle.
        possible: The resource types that may have been answered, the expected ones first.
        wait: Seconds that the receiver asks to wait.
    """
    if answer.get("type") != "transaction-response":
        return Verdict("rejected", f"{said}, but the answer is not a transaction-response, so it is no receipt")
    answered = answer.get("entry", [])
    count = len(answered) if isinstance(answered, list) else 0
    expected = list(possible)
    kinds = next((kinds for kinds in expected if len(kinds) == count), None)
    if kinds is None or not isinstance(answered, list):
        return Verdict("transient", f"{count} entries are answered where {len(expected[0])} were sent", (), wait)
    return _judge_entries(kinds, answered, wait)


def _outputs(answer: Any) -> list[Any]:
    """What an operation gave: one resource, or those in its Parameters."""
    if answer.get("resourceType") != "Parameters":
        return [answer]
    parameters = answer.get("parameter")
    parts = parameters if isinstance(parameters, list) else []
    found = [part.get("resource") for part in parts if isinstance(part, dict)]
    return [part for part in found if isinstance(part, dict)]


def _judge_output(said: str, output: Any, kinds: list[str], wait: float | None) -> Verdict:
    """The verdict on one resource that the operation gave."""
    if _failed(output):
        return _judge_outcome(said, output, wait)
    if output.get("resourceType") == "Bundle":
        return _judge_response(said, output, (kinds, ["MeasureReport", *kinds], ["MeasureReport", "Bundle"]), wait)
    return Verdict("accepted", f"the operation was done ({said})")


def _why_no_fhir(content_type: str, body: bytes, answer: Any, kinds: tuple[str, ...]) -> str:
    """Why a body cannot be judged as FHIR of these resource types; empty when it can."""
    if not body.strip():
        return "the body is empty"
    if "html" in content_type.lower() or body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "the answer is a web page, such as a sign-in page; check address and credentials"
    if answer is None:
        return "the answer is cut short or is not JSON"
    if not isinstance(answer, dict) or answer.get("resourceType") not in kinds:
        return "the answer is neither a FHIR Bundle nor an OperationOutcome"
    return ""


def _judge_entries(kinds: list[str], answered: list[Any], wait: float | None) -> Verdict:
    entries = tuple(_entry_answer(index, item) for index, item in enumerate(answered))
    for entry, kind in zip(entries, kinds, strict=True):
        if entry.location and entry.location.split("/")[0] != kind:
            sentence = f"the answer to entry {entry.index} is about another resource type than was sent"
            return Verdict("transient", sentence, entries, wait)
    states = [_entry_state(entry, item) for entry, item in zip(entries, answered, strict=True)]
    stored = states.count("accepted")
    if stored == len(states):
        return Verdict("accepted", f"all {stored} entries were accepted", entries)
    kind_of_failure: VerdictKind = "rejected" if "rejected" in states else "transient"
    first = entries[states.index(kind_of_failure)]
    failed = "refused" if kind_of_failure == "rejected" else "not stored yet"
    sentence = (
        f"{states.count(kind_of_failure)} of {len(states)} entries were {failed}, the first is entry {first.index}"
    )
    sentence += f": {first.outcome}" if first.outcome else " without a reason"
    if stored:
        sentence += f"; {stored} are reported as stored"
    return Verdict(kind_of_failure, sentence, entries, wait if kind_of_failure == "transient" else None)


def _entry_answer(index: int, item: Any) -> EntryAnswer:
    response = item.get("response") if isinstance(item, dict) else None
    if not isinstance(response, dict):
        return EntryAnswer(index, 0, outcome="no answer")
    line = _STATUS_LINE.match(str(response.get("status", "")))
    found = _LOCATION.search(str(response.get("location", "")))
    location = found.group(0).lstrip("/") if found else ""
    return EntryAnswer(index, int(line.group(1)) if line else 0, location, _outcome_words(response.get("outcome")))


def _entry_state(entry: EntryAnswer, item: Any) -> VerdictKind:
    if entry.status == 0:
        return "transient"
    outcome = item["response"].get("outcome")
    if 200 <= entry.status < 300:
        if not _failed(outcome):
            return "accepted"
        return "transient" if _passing(outcome) else "rejected"
    if entry.status >= 500 or entry.status in _TRANSIENT_STATUSES or _passing(outcome):
        return "transient"
    return "rejected"


def _is_outcome(value: Any) -> bool:
    return isinstance(value, dict) and value.get("resourceType") == "OperationOutcome"


def _issues(value: Any) -> list[dict[str, Any]]:
    issues = value.get("issue") if _is_outcome(value) else None
    return [issue for issue in issues if isinstance(issue, dict)] if isinstance(issues, list) else []


def _failed(outcome: Any) -> bool:
    return any(issue.get("severity") in _FAILURES for issue in _issues(outcome))


def _passing(outcome: Any) -> bool:
    """Whether every error in the outcome is one that time may heal."""
    failures = [issue for issue in _issues(outcome) if issue.get("severity") in _FAILURES]
    return bool(failures) and all(issue.get("code") in _TRANSIENT_ISSUES for issue in failures)


def _outcome_words(outcome: Any) -> str:
    """An OperationOutcome in our words: what kind of issue, at which element; never the system's own text."""
    words: list[str] = []
    for issue in _issues(outcome)[:5]:
        code = issue.get("code")
        text = _ISSUE_WORDS.get(code, "an unnamed problem") if isinstance(code, str) else "an unnamed problem"
        places = issue.get("expression") or issue.get("location")
        place = places[0] if isinstance(places, list) and places else ""
        if isinstance(place, str) and _EXPRESSION.fullmatch(place):
            text += f" at {place}"
        if text not in words:
            words.append(text)
    return "; ".join(words)
