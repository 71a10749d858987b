"""Pulling from a FHIR server by search: Procedures first, then what their decisions need.

A pull ends complete, with numbers that agree, or fails with the cursor where it was. Pages are written as they
come; writing one twice changes nothing, so a pull that was cut off simply starts again.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import parsedate_to_datetime

import msgspec

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import AdapterError, PullError
from io_fhir_adapter.fhir.references import id_of, reference_key
from io_fhir_adapter.fhir.structs import Bundle, BundleEntry, Header
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.facts import mapped_patients, referenced
from io_fhir_adapter.ledger.runs import cursor, move_cursor
from io_fhir_adapter.pull.decode import Item, decode_resource, has_resource
from io_fhir_adapter.pull.outcome import Progress, SourceOutcome, TypeOutcome
from io_fhir_adapter.pull.store import FactStore
from io_fhir_adapter.transport.client import Answer, FhirClient

__all__ = ["SearchPull", "parse_searchset", "search_pages"]

_BUNDLE = msgspec.json.Decoder(Bundle)
_HEADER = msgspec.json.Decoder(Header)
_MAX_PAGES = 1_000_000


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a search: what matched, and how many the server says there are in all."""

    items: Sequence[tuple[Item, str]]
    total: int | None
    next_link: str


def parse_searchset(answer: Answer, where: str) -> Page:
    """One page out of an answer.

    Raises:
        PullError: The body is no searchset Bundle: a login page, an OperationOutcome, cut off.
    """
    try:
        bundle = _BUNDLE.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        what = "a page that is no FHIR" if not answer.is_json else "a page that ends early or is damaged"
        raise PullError(
            f"the server sent {what}", where=where, do="check proxies and the server's log", number=2
        ) from exc
    if bundle.resourceType != "Bundle":
        raise PullError(
            "the server answered a search with something else than a Bundle",
            where=where,
            do="check the base URL",
            number=2,
        )
    link = next((link.url for link in bundle.link or () if link.relation == "next" and link.url), "")
    items = [found for number, entry in enumerate(bundle.entry or ()) if (found := _item(entry, number, where))]
    return Page(items, bundle.total, link)


def _item(entry: BundleEntry, number: int, where: str) -> tuple[Item, str] | None:
    if not has_resource(entry) or (entry.search is not None and entry.search.mode == "outcome"):
        return None
    item = decode_resource(entry.resource, f"{where} entry {number + 1}")
    if item.resource_type == "OperationOutcome":
        return None
    resource_id = item.resource.id if item.resource is not None else None
    if resource_id is None and item.problem:
        try:
            resource_id = _HEADER.decode(entry.resource).id
        except msgspec.DecodeError:
            resource_id = None
    return item, resource_id or id_of(entry.fullUrl or "")


async def search_pages(client: FhirClient, resource_type: str, params: Mapping[str, str]) -> AsyncIterator[Page]:
    """All pages of a search, next links taken as they are.

    Raises:
        PullError: A page is no searchset, or the links run in a circle.
        TransportError: The server does not answer or refuses.
    """
    answer = await client.get(resource_type, params)
    seen: set[str] = set()
    for number in range(1, _MAX_PAGES):
        page = parse_searchset(answer, f"{client.base_url}/{resource_type} page {number}")
        yield page
        if not page.next_link:
            return
        url = client.resolve(page.next_link, base=answer.url)
        if url in seen:
            raise PullError(
                "the server's next links run in a circle",
                where=f"{client.base_url}/{resource_type} page {number}",
                do="report this to the server's vendor",
                number=3,
            )
        seen.add(url)
        answer = await client.get(url)
    raise PullError("the search does not end", where=f"{client.base_url}/{resource_type}", number=3)


class SearchPull:
    """One pull of one FHIR server.

    Args:
        config: The source.
        client: Its HTTP client.
        ledger: Takes the facts.
        ruleset: Says which Procedures matter.
        tz: The facility's time zone.
        run: Number of the run.
        progress: Told what is being read.
    """

    def __init__(
        self,
        config: FhirSourceConfig,
        client: FhirClient,
        ledger: Ledger,
        ruleset: Ruleset,
        tz: tzinfo,
        run: int,
        progress: Progress,
    ) -> None:
        self._config = config
        self._client = client
        self._ledger = ledger
        self._ruleset = ruleset
        self._tz = tz
        self._run = run
        self._progress = progress
        self._newest = ""
        self.outcome = SourceOutcome(config.name)

    async def pull(self) -> SourceOutcome:
        """Reads what changed since the last complete pull, or everything the first time.

        The outcome tells what was read and whether it is complete; an error that ended it is in ``error``.
        """
        began = time.monotonic()
        try:
            await self._pull()
        except AdapterError as exc:
            self.outcome.error = exc.sentence
        self.outcome.seconds = time.monotonic() - began
        self.outcome.requests = self._client.requests
        self.outcome.retried = self._client.retried
        return self.outcome

    async def _pull(self) -> None:
        name = self._config.name
        with self._ledger.begin() as connection:
            since = cursor(connection, name, "Procedure")
            known = {f"Patient/{i}" for i in referenced(connection, name, "Patient")} if since else set()
        self.outcome.since = since
        encounters = await self._procedures(since)
        with self._ledger.begin() as connection:
            wanted = set(mapped_patients(connection, name))
            missing = encounters - {f"Encounter/{i}" for i in referenced(connection, name, "Encounter")}
        fresh = sorted(wanted - known)
        await self._batches("Encounter", "_id", sorted(id_of(reference) for reference in missing))
        await self._batches("Condition", "patient", fresh)
        # Patients last: a patient on record is one whose Conditions were read
        await self._batches("Patient", "_id", [id_of(patient) for patient in fresh])
        if since:
            for resource_type in ("Patient", "Condition", "Encounter"):
                await self._changes(resource_type, since, known)
        for outcome in self.outcome.types.values():
            outcome.complete = True
        with self._ledger.begin() as connection:
            # never beyond the server's own clock: one record from the future would hide all that follow
            newest = min(self._newest, _utc_from_date(self._client.server_date))
            if newest > since:
                move_cursor(connection, name, "Procedure", newest, self._run)

    def _store(self, resource_type: str, items: Sequence[tuple[Item, str]], outcome: TypeOutcome) -> set[str]:
        """Writes a page; gives the Encounters that its mapped Procedures name."""
        of_type = [pair for pair in items if pair[0].resource_type in {resource_type, ""}]
        with self._ledger.begin() as connection:
            store = FactStore(connection, self._config.name, self._ruleset, self._tz, self._run)
            stored, bad, mapped = store.put(of_type)
        outcome.read += len(of_type)
        outcome.new += stored.new
        outcome.changed += stored.changed
        outcome.unchanged += stored.unchanged
        outcome.quarantined += bad
        self.outcome.touched |= stored.patients
        for item, _ in of_type:
            meta = item.resource.meta if item.resource is not None else None
            if resource_type == "Procedure" and meta is not None and meta.lastUpdated:
                self._newest = max(self._newest, _utc(meta.lastUpdated))
        return {fact.encounter for fact in mapped if fact.encounter.startswith("Encounter/")}

    async def _search(self, resource_type: str, params: Mapping[str, str]) -> set[str]:
        """One whole search, reconciled against the server's own total; gives the Encounters named."""
        outcome = self.outcome.of(resource_type)
        encounters: set[str] = set()
        ids: set[str] = set()
        anonymous = 0
        total: int | None = None
        asked = {"_count": str(self._config.page_size), "_total": "accurate", **params}
        async for page in search_pages(self._client, resource_type, asked):
            outcome.pages += 1
            total = page.total if page.total is not None else total
            encounters |= self._store(resource_type, page.items, outcome)
            for item, resource_id in page.items:
                if resource_id:
                    ids.add(f"{item.resource_type}/{resource_id}")
                else:
                    anonymous += 1
            self._progress(f"{self._config.name} {resource_type}", outcome.read, total)
        if total is not None:
            outcome.total = (outcome.total or 0) + total
            if len(ids) + anonymous < total:
                raise PullError(
                    f"the server says {total} {resource_type} resources and handed over {len(ids) + anonymous}",
                    where=self._client.base_url,
                    do="run again; if it persists, lower page_size or ask the server's vendor",
                    number=4,
                )
        return encounters

    async def _procedures(self, since: str) -> set[str]:
        params: dict[str, str] = {}
        if since:
            params["_lastUpdated"] = f"ge{_earlier(since, self._config.overlap_minutes)}"
        if self._config.since is not None:
            params["date"] = f"ge{self._config.since}"
        return await self._search("Procedure", params)

    async def _batches(self, resource_type: str, parameter: str, values: Sequence[str]) -> None:
        self.outcome.of(resource_type)
        for start in range(0, len(values), self._config.batch_size):
            batch = values[start : start + self._config.batch_size]
            await self._search(resource_type, {parameter: ",".join(_escaped(batch))})

    async def _changes(self, resource_type: str, since: str, known: set[str]) -> None:
        """Later versions of what the decisions of known patients rest on."""
        outcome = self.outcome.of(resource_type)
        params = {
            "_lastUpdated": f"ge{_earlier(since, self._config.overlap_minutes)}",
            "_count": str(self._config.page_size),
        }
        async for page in search_pages(self._client, resource_type, params):
            outcome.pages += 1
            self._store(resource_type, [pair for pair in page.items if _subject(pair[0]) in known], outcome)


def _subject(item: Item) -> str:
    resource = item.resource
    if resource is None:
        return ""
    if item.resource_type == "Patient":
        return f"Patient/{resource.id}"
    return reference_key(getattr(resource, "subject", None), "Patient")


def _escaped(values: Iterable[str]) -> list[str]:
    return [value.replace("\\", "\\\\").replace(",", "\\,").replace("|", "\\|").replace("$", "\\$") for value in values]


def _utc(instant: str) -> str:
    """An instant in UTC, so that instants with different offsets compare; empty where it is none."""
    try:
        moment = datetime.fromisoformat(instant)
    except ValueError:
        return ""
    if moment.tzinfo is None:
        return ""
    return (moment - (moment.utcoffset() or timedelta())).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _utc_from_date(header: str) -> str:
    """An HTTP date as :func:`_utc` writes instants; our own clock where the server sends none."""
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        moment = datetime.now(UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.999999Z")


def _earlier(instant: str, minutes: int) -> str:
    moment = datetime.fromisoformat(instant) - timedelta(minutes=minutes)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
