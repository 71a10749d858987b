"""A look before the first night: everything that would fail at half past two, said now, with what to fix."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from io_fhir_adapter.classify.findings import read_codes
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import Config, FhirSourceConfig, SubmissionConfig, load_config
from io_fhir_adapter.errors import AdapterError, ConfigError, PullError, ResourceError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.fhir.facts import procedure_fact
from io_fhir_adapter.fhir.structs import Procedure
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.pipeline import rules_for
from io_fhir_adapter.pull.files import find_inputs
from io_fhir_adapter.pull.searchset import parse_searchset
from io_fhir_adapter.pull.strategy import abilities_of, choose, objects_in
from io_fhir_adapter.report.output import check_folder
from io_fhir_adapter.report.typeset import REPORT_PDF, needs_typst
from io_fhir_adapter.review.keys import pseudonym_key
from io_fhir_adapter.shipped import FORMS_LACKING, lacking_forms
from io_fhir_adapter.submit.channels import OPERATION
from io_fhir_adapter.submit.signing import signature_words
from io_fhir_adapter.transport.client import FhirClient
from io_fhir_adapter.transport.hints import Hint, connection_hints, failure_hints

__all__ = ["Check", "run_checks", "signature_check"]

_SAMPLE = 200
_LOW_COVERAGE = 0.8
_LEAST_FREE = 1 << 30
_NEEDED = {"Procedure": ("date", "_lastUpdated"), "Condition": ("patient",), "Patient": ("_id",), "Encounter": ("_id",)}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at; ``do`` says what to fix where something is wrong."""

    name: str
    state: Literal["ok", "warn", "fail"]
    text: str
    do: str = ""

    def to_json(self) -> dict[str, str]:
        """The check as JSON values."""
        return asdict(self)


async def run_checks(path: Path) -> list[Check]:
    """All checks, in the order in which things are needed; a failed one does not keep the others from being made.

    Raises:
        ConfigError: The configuration itself cannot be used; nothing else can be looked at.
    """
    config = load_config(path)
    checks = [Check("configuration", "ok", f"{path}, facility {config.facility.code}, {config.facility.time_zone}")]
    try:
        rules = rules_for(config)
    except AdapterError as exc:
        return [*checks, Check("mappings", "fail", exc.what, exc.sentence)]
    checks.append(
        Check("mappings", "ok", f"programme {rules.programme.id}, tables for {', '.join(sorted(rules.table_systems))}")
    )
    checks += _local(config)
    for source in config.sources:
        if isinstance(source, FhirSourceConfig):
            checks += await _server(source, rules, config)
            checks += await _export_sign_in(source)
        else:
            checks.append(_files(source.name, source.paths))
    if config.submission is None:
        checks.append(Check("submission", "warn", "no accreditation system is configured", "add a submission section"))
    else:
        checks.append(signature_check(config.submission))
        checks.append(await _endpoint(config.submission))
    return checks


def signature_check(submission: SubmissionConfig) -> Check:
    """Whether what leaves is signed, and whether the key can be used."""
    try:
        words = signature_words(submission)
    except AdapterError as exc:
        return Check("signature", "fail", f"{exc.where}: {exc.what}", exc.do)
    if submission.signing_key is None:
        return Check("signature", "warn", words, "make one with keys new, and register its public half with the body")
    return Check("signature", "ok", words)


def _local(config: Config) -> Iterator[Check]:
    try:
        open_ledger(config.ledger).close()
        yield Check("ledger", "ok", str(config.ledger.url or config.ledger.path))
    except AdapterError as exc:
        yield Check("ledger", "fail", exc.what, exc.do)
    try:
        pseudonym_key(config.review.key_file)
        yield Check("pseudonym key", "ok", f"{config.review.key_file} (keep a copy in a safe place)")
    except AdapterError as exc:
        yield Check("pseudonym key", "fail", exc.what, exc.do)
    if config.sign_in is not None:
        lacking = lacking_forms()
        do = "install the wheel of a release; in a checkout, run make assets"
        yield Check("case forms", "fail", FORMS_LACKING, do) if lacking else Check("case forms", "ok", "LHC-Forms")
    if config.output.pdf:
        try:
            needs_typst(REPORT_PDF, "output.pdf")
            yield Check("report", "ok", "typst sets its PDF")
        except AdapterError as exc:
            yield Check("report", "fail", exc.what, exc.do)
    if config.ledger.path is not None and config.ledger.url is None:
        try:
            free = shutil.disk_usage(config.ledger.path.parent).free
        except OSError:  # then there is no such folder, which the check of the ledger says
            return
        text = f"{free / (1 << 30):.1f} GiB free"
        low = free < _LEAST_FREE
        yield Check("disk", "warn" if low else "ok", text, "make room for the ledger" if low else "")


def _files(name: str, paths: tuple[str, ...]) -> Check:
    try:
        return Check(f"source {name}", "ok", f"{len(find_inputs(paths)):,} files")
    except AdapterError as exc:
        return Check(f"source {name}", "fail", exc.what, exc.do)


async def _server(source: FhirSourceConfig, rules: Ruleset, config: Config) -> list[Check]:
    name = f"source {source.name}"
    checks: list[Check] = []
    try:
        async with FhirClient(source, f"sources.{source.name}") as client:
            statement = await client.fhirpy.execute("metadata", method="get")
            checks += _capabilities(name, statement)
            checks += _hinted(name, connection_hints(client, source, datetime.now(UTC)))
            checks.append(way := await _strategy(name, source, client))
            if way.text.startswith("search") and way.state == "ok":
                checks.append(await _coverage(name, client, rules, config))
    except AdapterError as exc:
        checks.append(Check(name, "fail", exc.what, exc.do))
        checks += _hinted(name, failure_hints(exc, source, datetime.now(UTC)))
    except ValueError:
        checks.append(Check(name, "fail", "the server's answer is no JSON", "check the base URL and proxies"))
    return checks


async def _export_sign_in(source: FhirSourceConfig) -> list[Check]:
    """What keeps an export from signing in for itself; whether the server takes that shows when it exports."""
    if source.bulk.auth is None or source.strategy not in {"bulk", "auto"}:
        return []
    try:
        async with FhirClient(source, f"sources.{source.name}.bulk", auth=source.bulk.auth):
            return []
    except ConfigError as exc:
        return [Check(f"source {source.name} export", "fail", exc.what, exc.do)]


def _hinted(name: str, hints: Iterable[Hint]) -> Iterator[Check]:
    for hint in hints:
        yield Check(f"{name} {hint.about}", hint.state, hint.text, hint.do)


async def _strategy(name: str, source: FhirSourceConfig, client: FhirClient) -> Check:
    """Which way the source will be read, and why; what is configured is tried too."""
    auto = source.model_copy(update={"strategy": "auto"})
    try:
        possible = await choose(auto, client)
    except PullError as exc:
        if source.strategy in {"bulk", "patient"}:
            return Check(f"{name} strategy", "ok", f"{source.strategy}: as configured; {exc.what}")
        return Check(f"{name} strategy", "fail", exc.what, exc.do)
    if source.strategy in {"auto", possible.way}:
        return Check(f"{name} strategy", "ok", f"{possible.way}: {possible.why}")
    if source.strategy == "search":
        do = f"set strategy to {possible.way} or auto"
        return Check(f"{name} strategy", "fail", f"search: {possible.why}", do)
    return Check(f"{name} strategy", "ok", f"{source.strategy}: as configured; {possible.why}")


def _capabilities(name: str, statement: Any) -> Iterator[Check]:
    abilities = abilities_of(statement)
    if abilities is None:
        yield Check(name, "fail", "the address has no CapabilityStatement", "check the base URL")
        return
    exports = f", exports {', '.join(sorted(abilities.exports))}" if abilities.exports else ""
    version = abilities.version or "unknown version"
    yield Check(name, "ok", f"{abilities.software or 'unnamed software'}, FHIR {version}{exports}")
    offered = abilities.parameters
    for resource_type, parameters in _NEEDED.items():
        if resource_type not in offered:
            state: Literal["warn", "fail"] = "fail" if resource_type == "Procedure" else "warn"
            yield Check(f"{name} {resource_type}", state, "not offered", "ask the server's administrator to offer it")
            continue
        lacking = [parameter for parameter in parameters if parameter not in offered[resource_type]]
        if lacking:
            text = f"search by {', '.join(lacking)} is not declared"
            yield Check(f"{name} {resource_type}", "warn", text, "every night will read everything where it is ignored")


async def _coverage(name: str, client: FhirClient, rules: Ruleset, config: Config) -> Check:
    answer = await client.get("Procedure", {"_count": str(_SAMPLE)})
    page = parse_searchset(answer, f"{client.base_url}/Procedure")
    seen = known = mapped = 0
    for item, _ in page.items:
        if not isinstance(item.resource, Procedure):
            continue
        try:
            fact = procedure_fact(item.resource, name, zone(config.facility.time_zone), item.fallback_id)
        except ResourceError:
            continue
        reading = read_codes(fact, rules)
        seen += 1
        known += reading.known_system
        mapped += bool(reading.findings)
    if not seen:
        return Check(f"{name} sample", "warn", "no Procedure could be read", "check what the sign-in may see")
    text = f"{seen} Procedures: {known / seen:.0%} of a known code system, {mapped} with a row in the tables"
    low = known / seen < _LOW_COVERAGE
    return Check(f"{name} sample", "warn" if low else "ok", text, "map the local codes in a site table" if low else "")


async def _endpoint(submission: SubmissionConfig) -> Check:
    """Tries what can be tried of the way on which submissions leave."""
    sends = "sent automatically" if submission.automatic else "sent by the submit command"
    try:
        if submission.folder is not None:
            check_folder(submission.folder)
            return Check("submission", "ok", f"file-drop: laid into {submission.folder}, {sends}")
        async with FhirClient(submission, "submission") as client:
            statement = await client.fhirpy.execute("metadata", method="get")
    except AdapterError as exc:
        return Check("submission", "fail", exc.what, exc.do)
    except ValueError:
        return Check("submission", "fail", "the answer is no JSON", "check the URL and proxies")
    if not isinstance(statement, dict) or statement.get("resourceType") != "CapabilityStatement":
        return Check("submission", "fail", "the address has no CapabilityStatement", "check the URL")
    text = f"{submission.channel}: {submission.base_url}, FHIR {statement.get('fhirVersion', '?')}, {sends}"
    if submission.channel == "submit-data" and not _offers_operation(statement):
        do = "ask the body, or set submission.channel to transaction"
        return Check("submission", "warn", f"{text}; the endpoint does not declare {OPERATION}", do)
    return Check("submission", "ok", text)


def _offers_operation(statement: Mapping[str, Any]) -> bool:
    """Whether a CapabilityStatement names the operation, of Measures or of the whole server."""
    declared = [
        operation
        for rest in objects_in(statement.get("rest"))
        for place in (rest, *objects_in(rest.get("resource")))
        for operation in objects_in(place.get("operation"))
    ]
    return any(str(operation.get("name")).lstrip("$") == OPERATION.rpartition("$")[2] for operation in declared)
