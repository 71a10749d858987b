"""Commands on the mappings: check, measure, propose, exchange, compare. They change no table and no ledger."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from io_fhir_adapter.classify.rules import load_techniques
from io_fhir_adapter.classify.ruleset import Ruleset, SiteTable, load_ruleset
from io_fhir_adapter.classify.scope import Scope
from io_fhir_adapter.classify.sessions import latest
from io_fhir_adapter.classify.workbench.coverage import Coverage, survey
from io_fhir_adapter.classify.workbench.diff import Side, compare_rulesets, ruleset_in
from io_fhir_adapter.classify.workbench.exchange import ExportedTable, export_resources, import_concept_map
from io_fhir_adapter.classify.workbench.lint import Fault, lint_rules, lint_tables
from io_fhir_adapter.classify.workbench.rows import (
    TableFile,
    TableRow,
    canonical_uris,
    read_code_list,
    read_rows,
    shipped_tables,
    short_name,
    write_rows,
)
from io_fhir_adapter.classify.workbench.suggest import LocalCode, is_local, load_spellings, suggest_rows
from io_fhir_adapter.config import Config, LedgerConfig, load_config
from io_fhir_adapter.engine.scan import scan_files
from io_fhir_adapter.engine.spool import Spool
from io_fhir_adapter.errors import InputError, LedgerError, MappingError, UsageError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.ledger.facts import every_procedure
from io_fhir_adapter.model import ProcedureFact
from io_fhir_adapter.pipeline import rules_for
from io_fhir_adapter.pull.files import find_inputs
from io_fhir_adapter.report.gather import DISPLAY_FROM, unmapped_codes
from io_fhir_adapter.report.nightly import UnmappedCode
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.volume.count import Period

__all__ = ["register"]

_ALL_TIME = Period("0001-01-01", "9999-12-31", "all")
_LEFT_OUT_SHOWN = 20

Paths = Annotated[
    list[str] | None,
    typer.Argument(help="Files, folders or globs with FHIR JSON, Bundles or NDJSON (.gz too); - reads stdin."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration: the site's tables, its ledger where no path is given."),
]
SystemOption = Annotated[
    str | None,
    typer.Option("--system", help="Code system of --table and --codes: its URI, or a short name such as ops."),
]
CodesOption = Annotated[
    Path | None, typer.Option("--codes", help="CSV or TSV list of the codes that the system has.", metavar="LIST")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="File to write.")]


def register(app: typer.Typer) -> None:
    """Adds the group of commands."""
    group = typer.Typer(no_args_is_help=True, help="Check, measure, propose, exchange and compare the mappings.")
    group.command(epilog="Example: io-fhir-adapter mappings lint --config hospital.yaml")(lint)
    group.command(epilog="Example: io-fhir-adapter mappings coverage export/")(coverage)
    group.command(epilog="Example: io-fhir-adapter mappings suggest export/ --out suggestions.csv")(suggest)
    group.command("export", epilog="Example: io-fhir-adapter mappings export --out terminology/")(export)
    group.command("import", epilog="Example: io-fhir-adapter mappings import map.json --out table.csv")(import_map)
    group.command(epilog="Example: io-fhir-adapter mappings diff old/ new/ --config hospital.yaml")(diff)
    app.add_typer(group, name="mappings")


def lint(
    config: ConfigOption = None,
    table: Annotated[Path | None, typer.Option("--table", help="Check this table alone; needs --system.")] = None,
    system: SystemOption = None,
    codes: CodesOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check tables and say every fault with file and line; exit code 1 where one is an error."""
    folder = shipped_path("mappings")
    settings = load_config(config) if config is not None else None
    tables = [_table_at(table, system)] if table is not None else _tables(settings)
    faults: list[Fault] = []
    if table is None:
        faults += lint_rules(folder, settings.programme if settings is not None else "iasios")
    techniques = load_techniques(folder / "techniques.csv")
    faults += lint_tables(tables, techniques, datetime.now(UTC).date(), _listed(codes, system))
    errors = sum(fault.level == "error" for fault in faults)
    if as_json:
        typer.echo(json.dumps([msgspec.to_builtins(fault) for fault in faults], indent=2, ensure_ascii=False))
    else:
        for fault in faults:
            typer.echo(f"{fault.place}: {fault.level}: {fault.text} [{fault.kind}]")
        typer.echo(f"{errors} errors, {len(faults) - errors} warnings in {len(tables)} tables")
    return 1 if errors else 0


def coverage(
    paths: Paths = None,
    config: ConfigOption = None,
    top: Annotated[int, typer.Option("--top", help="How many codes without a row are listed.", min=0)] = 30,
    as_json: JsonOption = False,
) -> int:
    """Say how many completed Procedures have a known code system and a row, and which codes have none.

    A code's display is shown where at least five patients share it.
    """
    rules, found, unmapped, code = _surveyed(paths, config, DISPLAY_FROM)
    if as_json:
        typer.echo(json.dumps(_coverage_json(found, unmapped, rules), indent=2, ensure_ascii=False))
        return code
    whole = found.procedures or 1
    typer.echo(f"{found.procedures:,} completed Procedures, {found.without_code:,} without any code")
    typer.echo(f"known code system  {found.known:>9,}  {found.known / whole:6.1%}")
    typer.echo(f"with a row         {found.mapped:>9,}  {found.mapped / whole:6.1%}")
    for item in found.systems:
        known = "" if item.known else "  (no table)"
        typer.echo(f"  {item.procedures:>9,}  {item.mapped / item.procedures:6.1%} with a row  {item.name}{known}")
    for row in unmapped[:top]:
        shown = f"  {row.display}" if row.display else ""
        typer.echo(f"no row  {row.procedures:>7,} Procedures  {row.system} {row.code}{shown}")
    if len(unmapped) > top:
        typer.echo(f"no row  and {len(unmapped) - top:,} more codes")
    return code


def suggest(
    out: OutOption,
    paths: Paths = None,
    config: ConfigOption = None,
    accept_above: Annotated[
        int | None,
        typer.Option("--accept-above", help="Write only rows with this score or more, ready to use.", min=0, max=100),
    ] = None,
    shared_by: Annotated[
        int, typer.Option("--shared-by", help="Read only displays that so many patients share.", min=1)
    ] = 1,
) -> int:
    """Propose rows for local codes from their displays: a table with score and display beside each row.

    To accept, look at each row, delete what is wrong, then the columns score and display. Of several code systems
    each gets a file of its own.
    """
    _keep_ours(out, load_config(config) if config is not None else None)
    rules, _, unmapped, code = _surveyed(paths, config, shared_by)
    folder = shipped_path("mappings")
    known = [row for table in _tables(None) for row in read_rows(table.path, table.label).rows]
    codes = [LocalCode(row.system, row.code, row.display, row.procedures) for row in unmapped]
    local = [item for item in codes if is_local(item.system, rules)]
    made = suggest_rows(local, known, rules, load_spellings(folder / "technique-words.csv"))
    kept = [item for item in made if accept_above is None or item.score >= accept_above]
    beside = [{"score": str(item.score), "display": item.display} for item in kept]
    _write_tables(out, [(item.system, item.row) for item in kept], beside if accept_above is None else None)
    said = sum(item.display is not None for item in local)
    typer.echo(f"{len(kept)} rows proposed; {len(local)} local codes have no row, {said} of them a display to read")
    return code


def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")],
    form: Annotated[str, typer.Option("--format", help="What to write: fhir.")] = "fhir",
    config: ConfigOption = None,
    system: SystemOption = None,
    codes: CodesOption = None,
) -> int:
    """Publish the mappings as FHIR R4: CodeSystem, ValueSets and ConceptMaps; --codes spells patterns out."""
    if form != "fhir":
        raise UsageError(f"there is no format {form!r}", do="use --format fhir", number=11)
    _keep_ours(out, None)
    settings = load_config(config) if config is not None else None
    rules = rules_for(settings) if settings is not None else load_ruleset()
    uris, listed = canonical_uris(shipped_path("mappings", "systems.csv")), _listed(codes, system)
    tables: dict[tuple[bool, str], ExportedTable] = {}
    for table in _tables(settings):
        uri = uris.get(table.system, table.system)
        name = f"site-{table.path.stem}" if table.site else table.system
        rows = read_rows(table.path, table.label).rows
        tables[table.site, name] = ExportedTable(name, uri, rows, listed.get(table.system))
    made = export_resources(
        list(tables.values()), rules.categories, rules.rules, rules.digest, datetime.now(UTC).date()
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for resource in made:
            path = out / f"{resource['resourceType']}-{resource['id']}.json"
            path.write_text(json.dumps(resource, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as exc:
        raise MappingError(
            f"the resources cannot be written ({type(exc).__name__})",
            where=str(out),
            do="check the folder and its permissions",
            number=20,
        ) from exc
    typer.echo(f"written {len(made)} resources to {out}")
    return 0


def import_map(
    concept_map: Annotated[Path, typer.Argument(help="A FHIR ConceptMap in JSON.", metavar="CONCEPTMAP.json")],
    out: OutOption,
) -> int:
    """Read a ConceptMap as a code table: one that export wrote, or any that points to our categories."""
    _keep_ours(out, None)
    try:
        resource = json.loads(concept_map.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as exc:
        raise InputError(
            f"the ConceptMap cannot be read ({type(exc).__name__})",
            where=str(concept_map),
            do="name a FHIR ConceptMap in JSON",
            number=10,
        ) from exc
    rules = load_ruleset()
    found = import_concept_map(resource, rules.categories, rules.rules.techniques, str(concept_map))
    for text in found.left_out[:_LEFT_OUT_SHOWN]:
        typer.echo(f"left out: {text}", err=True)
    if len(found.left_out) > _LEFT_OUT_SHOWN:
        typer.echo(f"left out: {len(found.left_out) - _LEFT_OUT_SHOWN:,} more", err=True)
    if not found.rows:
        raise MappingError(
            "nothing of the ConceptMap can be used", where=str(concept_map), do="see what was left out", number=24
        )
    _write_tables(out, found.rows)
    typer.echo(f"{len(found.rows)} rows read, {len(found.left_out)} elements left out")
    return 0


def diff(
    old: Annotated[Path, typer.Argument(help="A mappings folder.", metavar="OLD")],
    new: Annotated[Path, typer.Argument(help="Another one.", metavar="NEW")],
    config: ConfigOption = None,
    ledger: Annotated[
        Path | None, typer.Option("--ledger", help="A ledger's SQLite file, in place of --config.")
    ] = None,
    examples: Annotated[int, typer.Option("--examples", help="How many changes are shown.", min=0)] = 10,
    as_json: JsonOption = False,
) -> int:
    """Say which decisions would change if the mappings of NEW came in place of those of OLD; nothing is written."""
    if config is None and ledger is None:
        raise UsageError("no ledger is named", do="add --config, or --ledger with a file", number=4)
    settings = load_config(config) if config is not None else None
    programme = settings.programme if settings is not None else "iasios"
    sites = [SiteTable(item.system, item.file) for item in settings.mappings.site_tables] if settings else []
    maps = [item.file for item in settings.mappings.concept_maps] if settings else []
    scope = Scope.of(settings.scope) if settings is not None else None
    before, after = (ruleset_in(folder, programme, sites, maps, scope) for folder in (old, new))
    place = LedgerConfig(path=ledger) if ledger is not None or settings is None else settings.ledger
    with _ledger_at(place) as opened, opened.read() as connection:
        found = compare_rulesets(connection, before, after, examples)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return 0
    typer.echo(
        f"{found.changed:,} sessions would be decided otherwise, {found.same:,} as before "
        f"({found.patients:,} patients, {found.decisions:,} sessions of the old mappings)"
    )
    for (was, will), number in found.kinds:
        typer.echo(f"  {number:>7,}  {_kind(was)} → {_kind(will)}{'  (for another reason)' if was == will else ''}")
    for change in found.examples:
        reasons = f"{change.before.reason or 'no row'} → {change.after.reason or 'no row'}"
        typer.echo(f"{change.date or '(undated)'}  {_side(change.before)} → {_side(change.after)}  ({reasons})")
        typer.echo(f"            {', '.join(change.procedures)}")
    return 0


def _kind(kind: tuple[str, str]) -> str:
    return " ".join(kind) if any(kind) else "no session"


def _side(side: Side) -> str:
    return _kind((" + ".join(side.categories) or side.category, side.decision))


def _coverage_json(found: Coverage, unmapped: Sequence[UnmappedCode], rules: Ruleset) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(found),
        "unmapped": [
            {
                "system": row.system, "code": row.code, "display": row.display, "procedures": row.procedures,
                "patients": row.patients, "known_system": rules.systems.name(row.system) in rules.table_systems,
            }
            for row in unmapped
        ],
    }  # fmt: skip


def _tables(settings: Config | None) -> list[TableFile]:
    """The shipped tables and a site's own."""
    own = settings.mappings.site_tables if settings is not None else ()
    sites = [TableFile(item.file, _short_name(item.system), item.file.name, site=True) for item in own]
    return [*shipped_tables(shipped_path("mappings")), *sites]


def _table_at(path: Path, system: str | None) -> TableFile:
    if system is None:
        raise UsageError("the table's code system is not named", do="add --system with its URI", number=12)
    return TableFile(path, _short_name(system), path.name, site=True)


def _short_name(system: str) -> str:
    return short_name(system, shipped_path("mappings", "systems.csv"))


def _listed(codes: Path | None, system: str | None) -> dict[str, tuple[str, ...]]:
    if codes is None:
        return {}
    if system is None:
        raise UsageError("the code system of the list is not named", do="add --system, such as --system ops", number=12)
    name = _short_name(system)
    return {name: read_code_list(codes, name)}


def _keep_ours(out: Path, settings: Config | None) -> None:
    """Refuses to write into the shipped mappings or over a table that the site uses."""
    ours = shipped_path("mappings").resolve()
    used = {item.file.resolve() for item in settings.mappings.site_tables} if settings is not None else set()
    if out.resolve().is_relative_to(ours) or out.resolve() in used:
        raise UsageError(
            "this is a table in use", where=str(out), do="write elsewhere and take rows over by hand", number=13
        )


def _write_tables(
    out: Path, rows: Iterable[tuple[str, TableRow]], extra: Sequence[Mapping[str, str]] | None = None
) -> None:
    """Writes the rows of each code system to a file of its own, numbered where there are several."""
    groups: dict[str, list[int]] = {}
    items = list(rows)
    for place, (uri, _) in enumerate(items):
        groups.setdefault(_short_name(uri), []).append(place)
    for number, places in enumerate(groups.values(), start=1):
        path = out if len(groups) == 1 else out.with_name(f"{out.stem}-{number}{out.suffix}")
        beside = [extra[place] for place in places] if extra is not None else None
        write_rows(path, [items[place][1] for place in places], beside)
        typer.echo(f"written {path}: {len(places)} rows of {items[places[0]][0]}")
    if not groups:
        write_rows(out, [])
        typer.echo(f"written {out}: no rows")


@contextmanager
def _ledger_at(place: LedgerConfig) -> Iterator[Ledger]:
    if place.url is None and place.path is not None and not place.path.is_file():
        raise LedgerError("there is no ledger yet", where=str(place.path), do="run pull first", number=7)
    ledger = open_ledger(place)
    try:
        yield ledger
    finally:
        ledger.close()


def _surveyed(
    paths: list[str] | None, config: Path | None, shared_by: int
) -> tuple[Ruleset, Coverage, list[UnmappedCode], int]:
    """What the tables know of Procedures in files or in the ledger, and the exit code that the reading asks for.

    What no row matches is put into a ledger that lives as long as this call: the report's own list of such codes is
    made from it, with the tables as they are now.
    """
    settings = load_config(config) if config is not None else None
    rules = rules_for(settings) if settings is not None else load_ruleset()
    with tempfile.TemporaryDirectory(prefix="io-fhir-adapter-") as folder:
        scratch = open_ledger(LedgerConfig(path=Path(folder) / "unmapped.sqlite"))
        try:
            with scratch.begin() as connection:
                refused: list[str] = []
                if paths:
                    tz = zone(settings.facility.time_zone) if settings is not None else None
                    found = survey(_in_files(paths, rules, tz, refused), rules, connection)
                elif settings is not None:
                    with _ledger_at(settings.ledger) as ledger, ledger.read() as reading:
                        found = survey(every_procedure(reading), rules, connection)
                else:
                    raise UsageError("no input is named", do="name files, or a configuration with --config", number=4)
                unmapped = unmapped_codes(connection, rules, shared_by)
        finally:
            scratch.close()
    for sentence in refused:
        typer.echo(sentence, err=True)
    return rules, found, unmapped, 1 if refused else 0


def _in_files(paths: list[str], rules: Ruleset, tz: tzinfo | None, refused: list[str]) -> Iterator[ProcedureFact]:
    """Every Procedure in files, each once."""
    with Spool() as spool:
        scan = scan_files(find_inputs(paths), rules, spool, tz=tz, period=_ALL_TIME, keep_all=True)
        refused += [report.refused for report in scan.files if report.refused]
        for patient in spool.patients():
            yield from latest(patient.procedures)
