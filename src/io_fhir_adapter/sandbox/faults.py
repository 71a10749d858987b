"""The sandbox's switchable misbehaviour: what real FHIR servers, proxies and networks do to a client.

``Faults`` is a plain value, all off by default. The planner decides per request which of them strikes; how it is
carried out lies with the server (shape of pages) and with replies.py (what happens to a finished answer).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

import msgspec

from io_fhir_adapter.sandbox.auth_plan import AuthPlan
from io_fhir_adapter.sandbox.bulk_faults import BulkFaults
from io_fhir_adapter.sandbox.search import QueryError, is_partial, parameters_for

__all__ = ["FaultPlanner", "Faults", "PageFault", "Refusal", "faults_from_json", "faults_to_json", "refuse_search"]

Kind = Literal[
    "error", "gone", "cut-body", "cut-headers", "cut-gzip", "no-end", "truncated", "empty", "html", "outcome",
    "wrong-content-type", "byte-order-mark", "odd-json", "drip", "no-length", "cut-lines",
]  # fmt: skip


@dataclass(frozen=True)
class PageFault:
    """What happens to single answers.

    Attributes:
        kind: ``error`` an OperationOutcome with ``status``; ``gone`` 410 and the search is forgotten, so that only
            starting again helps; ``cut-body`` the connection ends in mid-body; ``cut-headers`` it ends without an
            answer; ``cut-gzip`` half of the compressed body, cleanly ended; ``no-end`` the whole body in chunks, of
            which the last never comes; ``truncated`` half the JSON, cleanly ended, with status 200; ``empty`` nothing,
            with status 200; ``html`` a login page with status 200; ``outcome`` an OperationOutcome with status 200;
            ``wrong-content-type`` the right body as text/plain; ``byte-order-mark`` before the body; ``odd-json``
            control characters, half a character and ``NaN`` in the JSON; ``drip`` the body in small pieces over
            ``seconds``; ``no-length`` the whole body without a word of its length, as in HTTP/1.0: it ends with the
            connection; ``cut-lines`` the same, not compressed and cut at the end of a line.
        page: Which page of a search it strikes, from 1; 0 what is no page (read, metadata); None everything.
        token: Only requests whose path and query hold this text.
        types: Only answers about these resource types; empty for all.
        times: How often it strikes in all; None for always.
        status: Status of ``error``; 429 and 503 carry the Retry-After of ``Faults``.
        seconds: How long ``drip`` takes.
    """

    kind: Kind
    page: int | None = None
    token: str = ""
    types: tuple[str, ...] = ()
    times: int | None = 1
    status: int = 500
    seconds: float = 1.0


@dataclass(frozen=True)
class Faults:
    """How the server misbehaves.

    Attributes:
        latency_s: Seconds that every FHIR answer waits, except refusals at the door.
        every_nth: Every n-th FHIR request is refused with ``every_nth_status``; 0 for none.
        every_nth_status: 429, or 503 and the like.
        retry_after_s: Retry-After of 429 and 503 answers in seconds; None leaves the header out.
        retry_after_as_date: Retry-After as an HTTP date instead of seconds.
        max_concurrent: More FHIR requests than this at a time are refused with 429; 0 for no limit.
        max_url: Longer request URLs (path and query, in characters) are refused; 0 for no limit.
        max_url_status: The status of that: 414, or 404 as some servers do.
        require_bearer: The token without which everything but metadata is 401; empty for an open server.
        page_faults: Faults of single answers.
        max_page_size: The server's own limit to ``_count``; 0 for its default (1,000).
        max_results: ``next`` vanishes after so many resources although ``total`` says more; 0 for no limit.
        next_links: How ``next`` is written: ``absolute``, ``relative`` to the host, ``query`` alone, with a
            ``fragment``, ``foreign`` (on ``foreign_origin``); or where it leads: in a ``loop`` to the same page again
            from page 2 on, ``endless`` always to the first page, at a new address.
        foreign_origin: The origin of foreign links, such as ``http://localhost:8080``.
        next_padding: Characters added to every ``next`` link, to make it long.
        empty_page: This page (from 1) is empty and has a ``next`` that goes on where it should; 0 for none.
        duplicate_entries: Each page repeats so many of the last resources of the page before.
        total: ``always`` in the Bundle, ``on-request`` only for ``_total=accurate``, ``counts`` only for
            ``_summary=count``, ``never``; with ``page`` it is what the page holds.
        total_off_by: Added to every total.
        total_at_most: Totals stop counting here, as search indexes do; 0 for no limit.
        total_grows: Added to the total with every page of a search, as if more came in while it is read.
        left_out: Code of an issue that pages also hold, an error: something could not be given; empty for none.
        strange_entries: Pages also hold an OperationOutcome without a mode and a resource that was not asked for.
        posted_searches: Searches by POST are taken, ``refused`` (405), or their form is not read (``ignored``).
        no_lists: A comma in a value separates nothing.
        bare_ids: Searches find patients by their id alone: ``Patient/1`` is nobody.
        max_list: Values of one parameter that are looked at; 0 for no limit.
        max_list_status: What a longer list is answered with; 0 where the rest of it is left out without a word.
        no_missing: The modifier ``:missing`` is refused.
        ignored_parameters: Search parameters that have no effect, without a word; ``_count`` and the like too.
        ignored_in_self: Ignored parameters still stand in the self link, as if they had been used.
        unsupported_parameters: Parameters that the server does not know: absent from metadata, 400 where handling
            is strict.
        strict_parameters: Unknown parameters are 400, whatever ``Prefer`` says.
        refused_parameters: Searches with one of them, ``_count`` and the like too, are ``refused_status``.
        refused_status: 400, or 412 and 422 as some servers say.
        refuse_partial_dates: Years and months in date parameters are 400.
        patient_required: Status (400 or 403) of a Procedure search without patient, subject or ``_id``; 0 for none.
        broken_json_pages: Broken texts that are no JSON at all are put into pages, which breaks the page.
        bulk: How ``$export`` behaves.
        auth: Who may ask the token endpoint, and what goes wrong there.
    """

    latency_s: float = 0.0
    every_nth: int = 0
    every_nth_status: int = 429
    retry_after_s: int | None = 1
    retry_after_as_date: bool = False
    max_concurrent: int = 0
    max_url: int = 0
    max_url_status: int = 414
    require_bearer: str = ""
    page_faults: tuple[PageFault, ...] = ()
    max_page_size: int = 0
    max_results: int = 0
    next_links: Literal["absolute", "relative", "query", "fragment", "foreign", "loop", "endless"] = "absolute"
    foreign_origin: str = "https://fhir.invalid"
    next_padding: int = 0
    empty_page: int = 0
    duplicate_entries: int = 0
    total: Literal["always", "on-request", "counts", "never", "page"] = "always"
    total_off_by: int = 0
    total_at_most: int = 0
    total_grows: int = 0
    left_out: str = ""
    strange_entries: bool = False
    posted_searches: Literal["taken", "refused", "ignored"] = "taken"
    no_lists: bool = False
    bare_ids: bool = False
    max_list: int = 0
    max_list_status: int = 0
    no_missing: bool = False
    ignored_parameters: tuple[str, ...] = ()
    ignored_in_self: bool = False
    unsupported_parameters: tuple[str, ...] = ()
    strict_parameters: bool = False
    refused_parameters: tuple[str, ...] = ()
    refused_status: int = 400
    refuse_partial_dates: bool = False
    patient_required: int = 0
    broken_json_pages: bool = False
    bulk: BulkFaults = field(default_factory=BulkFaults)
    auth: AuthPlan = field(default_factory=AuthPlan)


@dataclass(frozen=True)
class Refusal:
    """An error answer instead of the right one: status, OperationOutcome issue type, text, further headers."""

    status: int
    code: str
    diagnostics: str
    headers: tuple[tuple[str, str], ...] = ()


def _known_only(content: Any, kind: type[Any]) -> None:
    unknown = set(content) - {one.name for one in fields(kind)} if isinstance(content, dict) else set()
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(map(str, unknown)))}")


def faults_from_json(data: bytes) -> Faults:
    """Faults from a JSON object of their attributes; what it does not name is off.

    Raises:
        ValueError: It is no JSON, or names or values do not fit.
    """
    content = msgspec.json.decode(data)
    _known_only(content, Faults)
    page_faults = content.get("page_faults") if isinstance(content, dict) else None
    for one in page_faults if isinstance(page_faults, list) else ():
        _known_only(one, PageFault)
    _known_only(content.get("bulk") if isinstance(content, dict) else None, BulkFaults)
    _known_only(content.get("auth") if isinstance(content, dict) else None, AuthPlan)
    return msgspec.convert(content, Faults)


def faults_to_json(faults: Faults) -> dict[str, Any]:
    """All attributes as JSON values; secrets are only said to be there."""
    content = asdict(faults)
    content["require_bearer"] = "***" if faults.require_bearer else ""
    content["auth"]["client_secret"] = "***" if faults.auth.client_secret else ""
    return content


class FaultPlanner:
    """Decides, request by request, which fault strikes; counts what may strike only so often.

    Args:
        faults: What is switched on.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._requests = 0
        self._struck: Counter[int] = Counter()

    @property
    def faults(self) -> Faults:
        """What is switched on now."""
        return self._faults

    def switch(self, faults: Faults) -> None:
        """Take other faults; all counting starts again."""
        self._faults = faults
        self._requests = 0
        self._struck.clear()

    def retry_after(self) -> tuple[tuple[str, str], ...]:
        """The Retry-After header of a refusal, if it carries one."""
        seconds = self._faults.retry_after_s
        if seconds is None:
            return ()
        if self._faults.retry_after_as_date:
            moment = datetime.now(UTC) + timedelta(seconds=seconds)
            return (("Retry-After", format_datetime(moment.replace(microsecond=0), usegmt=True)),)
        return (("Retry-After", str(seconds)),)

    def before(self, *, target: str, authorization: str, is_metadata: bool, in_flight: int) -> Refusal | None:
        """Whether a FHIR request is refused before it is looked at.

        Args:
            target: Path and query.
            authorization: The Authorization header, or empty.
            is_metadata: Whether it asks for the CapabilityStatement, which is open to all.
            in_flight: How many FHIR requests are being answered, this one included.
        """
        faults = self._faults
        self._requests += 1
        if faults.require_bearer and not is_metadata and authorization != f"Bearer {faults.require_bearer}":
            return Refusal(401, "login", "a bearer token is required", (("WWW-Authenticate", "Bearer"),))
        if faults.max_url and len(target) > faults.max_url:
            return Refusal(faults.max_url_status, "too-long", "the URL is too long")
        if faults.every_nth and self._requests % faults.every_nth == 0:
            return self.error(faults.every_nth_status)
        if faults.max_concurrent and in_flight > faults.max_concurrent:
            return self.error(429)
        return None

    def error(self, status: int) -> Refusal:
        """An error answer of this status, with Retry-After where such answers carry it."""
        if status in (429, 503):
            return Refusal(status, "throttled", "too many requests, try again later", self.retry_after())
        return Refusal(status, "exception", "the server failed")

    def after(self, *, page: int, resource_type: str, target: str) -> PageFault | None:
        """The fault that strikes a finished answer, if any; the first that fits, and it counts as struck.

        Args:
            page: The page of its search, from 1; 0 for what is no page.
            resource_type: What it is about, or empty.
            target: Path and query of the request.
        """
        for position, fault in enumerate(self._faults.page_faults):
            fits = fault.page in (None, page) and fault.token in target
            fits = fits and (not fault.types or resource_type in fault.types)
            if fits and (fault.times is None or self._struck[position] < fault.times):
                self._struck[position] += 1
                return fault
        return None


def refuse_search(
    faults: Faults, resource_type: str, pairs: Iterable[tuple[str, str]], unknown: Collection[str], *, strict: bool
) -> Refusal | None:
    """Whether a search is refused for what it asks.

    Args:
        faults: What is switched on.
        resource_type: The type searched.
        pairs: The search's parameters.
        unknown: Those of them that the server does not know.
        strict: Whether the client asked for strict handling.
    """
    pairs = list(pairs)
    given = [(name.partition(":")[0], value) for name, value in pairs]
    unwelcome = _unwelcome(faults, given)
    if unwelcome is not None:
        return unwelcome
    needed = faults.patient_required and resource_type == "Procedure"
    if needed and not any(name in ("patient", "subject", "_id") and value for name, value in given):
        code = "forbidden" if faults.patient_required == 403 else "required"
        return Refusal(faults.patient_required, code, "Procedure searches must name a patient, subject or _id")
    if faults.refuse_partial_dates:
        known = parameters_for(resource_type)
        for name, value in given:
            if name in known and known[name].kind == "date" and any(_partial(part) for part in value.split(",")):
                return Refusal(400, "value", f"{name}: a whole date is needed")
    if faults.no_missing and any(name.endswith(":missing") for name, _ in pairs):
        return Refusal(400, "not-supported", "the modifier 'missing' is not supported")
    if unknown and (strict or faults.strict_parameters):
        return Refusal(400, "not-supported", f"unknown search parameter: {', '.join(sorted(unknown))}")
    return None


def _unwelcome(faults: Faults, given: Iterable[tuple[str, str]]) -> Refusal | None:
    """Refuses a parameter that the server does not want at all, or not with so many values."""
    for name, value in given:
        if name in faults.refused_parameters:
            return Refusal(faults.refused_status, "not-supported", f"{name} is not supported")
        if faults.max_list and faults.max_list_status and value.count(",") >= faults.max_list:
            return Refusal(faults.max_list_status, "too-costly", f"a list has more than {faults.max_list} values")
    return None


def _partial(text: str) -> bool:
    try:
        return is_partial(text)
    except QueryError:
        return False
