"""The mappings as FHIR R4 terminology: CodeSystem, ValueSets and ConceptMaps out; ConceptMaps in.

What is made is this project's proposal and says so. It holds code numbers and our own words, never the titles that
their owners license. FHIR has no patterns of codes: a row with a pattern is an element whose code is the pattern,
marked by an extension, unless a list of codes says what the pattern stands for. A second extension holds the whole
row, so that a table that went out comes back with nothing lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import groupby
from typing import Any

from io_fhir_adapter import __version__
from io_fhir_adapter.canonical_urls import BASE, CATEGORY_CODES
from io_fhir_adapter.classify.category_cells import (
    CATEGORY_CELLS,
    CODE_PATTERN,
    TABLE_ROW,
    is_pattern,
    items,
    literal_pattern,
    own_cells,
)
from io_fhir_adapter.classify.rules import SessionContext, SessionRules
from io_fhir_adapter.classify.tables import COLUMNS, CodeRow, GlobIndex
from io_fhir_adapter.classify.workbench.lint import row_faults
from io_fhir_adapter.classify.workbench.rows import TableRow, code_row
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.fhir.validity import resource_problems
from io_fhir_adapter.model import Finding

__all__ = [
    "CODE_PATTERN",
    "TABLE_ROW",
    "ExportedTable",
    "Imported",
    "category_alone",
    "export_resources",
    "import_concept_map",
]

Json = dict[str, Any]

_CPT, _HCPCS = "cpt", "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"
_PUBLISHER = "io-fhir-adapter"
_PROPOSAL = "A proposal of the io-fhir-adapter project; no accreditation body has published or adopted it."
_NO_TITLES = "Codes belong to their owners and may need a licence; titles are left out, meanings are our own words."
_NOT_IO_APPROACH = frozenset({"open", "laparoscopic", "endoscopic"})
_TYPES = frozenset({"CodeSystem", "ValueSet", "ConceptMap"})
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9]+")
_LONGEST_NAME = 40  # an id has 64 characters at most, and more stands behind the name
_CELLS = tuple(name for name in COLUMNS if name != "code")
_ACCEPTED = {
    "equal", "equivalent", "wider",  # ConceptMap.group.element.target.equivalence, R4
    "source-is-narrower-than-target",  # relationship, R5
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExportedTable:
    """A table on its way out: short name and URI of its code system, its rows, and codes to expand patterns with."""

    system: str
    uri: str
    rows: tuple[TableRow, ...]
    codes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """What a ConceptMap held: (URI of the code system, row) in order, and what was left out with the reason."""

    rows: tuple[tuple[str, TableRow], ...]
    left_out: tuple[str, ...]


def category_alone(finding: Finding, rules: SessionRules) -> str:
    """The category that a code has by itself: ``none`` for what is no treatment of ours, empty for an add-on."""
    if finding.technique == "none" or finding.role == "revision" or finding.approach in _NOT_IO_APPROACH:
        return "none"
    found = rules.categories((finding,), SessionContext())
    return found[0].category if found else ""


def export_resources(
    tables: Sequence[ExportedTable], categories: Mapping[str, str], rules: SessionRules, digest: str, day: date
) -> list[Json]:
    """The CodeSystem of the categories, one ValueSet for all and one for each, one ConceptMap per table.

    Args:
        tables: Tables that load; see lint.
        categories: Category code to title.
        rules: Say which category a code has by itself.
        digest: Of the mappings; its beginning is part of the version.
        day: Date of the edition.

    Raises:
        MappingError: Something that was made is not valid FHIR R4, which names the element.
    """
    version = f"{__version__}-{digest.removeprefix('sha256:')[:12]}"
    frame = {
        "version": version, "status": "draft", "experimental": True, "date": day.isoformat(), "publisher": _PUBLISHER,
    }  # fmt: skip
    sorted_out = [(table, _elements(table, rules)) for table in tables]
    made = [_code_system(categories, frame), _all_categories(frame)]
    made += [_value_set(category, title, sorted_out, frame) for category, title in categories.items()]
    made += [_concept_map(table, elements, frame) for table, elements in sorted_out if elements]
    for resource in made:
        problems = resource_problems(resource, _TYPES)
        if problems:
            raise MappingError(
                f"what was made is not valid FHIR: {problems[0].path} {problems[0].words}",
                where=str(resource["id"]),
                do="correct the table, starting with mappings lint",
                number=22,
            )
    return made


@dataclass(frozen=True, slots=True)
class _Element:
    uri: str
    row: TableRow
    is_pattern: bool
    category: str


def _elements(table: ExportedTable, rules: SessionRules) -> list[_Element]:
    """Every row with the category that its codes have by themselves, patterns expanded where there is a list."""
    read = [(row, code_row(row, table.system)) for row in table.rows]
    if table.codes is not None:
        read = _expanded(read, table)
    return [
        _Element(_uri_of(table, row), row, not seen.glob.is_literal or seen.glob.prefix != row.code, category)
        for row, seen in read
        for category in (category_alone(seen.finding, rules),)
    ]


def _expanded(read: Sequence[tuple[TableRow, CodeRow]], table: ExportedTable) -> list[tuple[TableRow, CodeRow]]:
    """Literal rows as they are, and for every other code of the list the most specific row that matches it."""
    literal = [(row, seen) for row, seen in read if seen.glob.is_literal]
    index = GlobIndex([seen for _, seen in read])
    by_pattern = {id(seen): row for row, seen in read}
    taken = {seen.glob.prefix for _, seen in literal}
    for code in table.codes or ():
        matching = index.match(code)
        if matching and code not in taken:
            row = replace(by_pattern[id(matching[0])], code=literal_pattern(code))
            literal.append((row, code_row(row, table.system)))
    return literal


def _uri_of(table: ExportedTable, row: TableRow) -> str:
    """HCPCS codes stand in the CPT table and have a code system of their own."""
    return _HCPCS if table.system == _CPT and row.code[:1].isalpha() else table.uri


def _code_system(categories: Mapping[str, str], frame: Json) -> Json:
    return {
        "resourceType": "CodeSystem", "id": "procedure-category", "url": CATEGORY_CODES, **frame,
        "name": "ProcedureCategory", "title": "Categories of interventional-oncology procedures",
        "description": _PROPOSAL, "caseSensitive": True, "content": "complete", "count": len(categories),
        "concept": [{"code": code, "display": title} for code, title in categories.items()],
    }  # fmt: skip


def _all_categories(frame: Json) -> Json:
    return {
        "resourceType": "ValueSet", "id": "procedure-categories", "url": f"{BASE}/ValueSet/procedure-categories",
        **frame, "name": "ProcedureCategories", "title": "All categories of interventional-oncology procedures",
        "description": _PROPOSAL, "compose": {"include": [{"system": CATEGORY_CODES}]},
    }  # fmt: skip


def _value_set(
    category: str, title: str, tables: Sequence[tuple[ExportedTable, Sequence[_Element]]], frame: Json
) -> Json:
    """A category and the codes that have it by themselves; patterns among them are named in extensions."""
    own = [element for _, elements in tables for element in elements if element.category == category]
    include: list[Json] = [{"system": CATEGORY_CODES, "concept": [{"code": category}]}]
    codes: dict[str, dict[str, None]] = {}
    patterns: list[Json] = []
    for element in own:
        if element.is_pattern:
            parts = [{"url": "system", "valueUri": element.uri}, {"url": "code", "valueString": element.row.code}]
            patterns.append({"url": CODE_PATTERN, "extension": parts})
        else:
            codes.setdefault(element.uri, {})[element.row.code] = None
    include += [{"system": uri, "concept": [{"code": code} for code in found]} for uri, found in codes.items()]
    also = " Patterns that no list of codes spelled out are named in extensions." if patterns else ""
    return {
        "resourceType": "ValueSet", "id": f"procedures-{category}", "url": f"{BASE}/ValueSet/procedures-{category}",
        **frame, "name": f"Procedures{category.title().replace('-', '')}", "title": f"Procedure codes: {title}",
        "description": f"Codes that have the category {category} by themselves.{also} {_PROPOSAL}",
        "copyright": _NO_TITLES,
        "compose": {**({"extension": patterns} if patterns else {}), "include": include},
    }  # fmt: skip


def _concept_map(table: ExportedTable, elements: Sequence[_Element], frame: Json) -> Json:
    name = _NOT_IN_IDS.sub("-", table.system)[:_LONGEST_NAME].strip("-")
    by_uri = sorted(elements, key=lambda element: element.uri)
    return {
        "resourceType": "ConceptMap", "id": f"{name}-to-procedure-category",
        "url": f"{BASE}/ConceptMap/{name}-to-procedure-category", **frame,
        "name": f"{''.join(part.title() for part in name.split('-'))}ToProcedureCategory",
        "title": f"Procedure codes of {table.system} by category",
        "description": f"The category that each code has by itself; what codes mean together is for session rules. "
        f"{_PROPOSAL}",
        "copyright": _NO_TITLES,
        "targetCanonical": f"{BASE}/ValueSet/procedure-categories",
        "group": [
            {"source": uri, "target": CATEGORY_CODES, "element": [_element(element) for element in group]}
            for uri, group in groupby(by_uri, key=lambda element: element.uri)
        ],
    }  # fmt: skip


def _element(element: _Element) -> Json:
    cells = element.row.cells()
    parts = [{"url": name, "valueString": cells[name]} for name in _CELLS if cells[name]]
    extension: list[Json] = [{"url": TABLE_ROW, "extension": parts}]
    if element.is_pattern:
        extension.append({"url": CODE_PATTERN, "valueBoolean": True})
    target = {"code": element.category, "equivalence": "wider"} if element.category else {"equivalence": "unmatched"}
    return {"extension": extension, "code": element.row.code, "target": [target]}


def import_concept_map(
    resource: object, categories: Mapping[str, str], techniques: Iterable[str], where: str
) -> Imported:
    """The rows that a ConceptMap stands for: our own as they were, another's by the categories that it points to.

    Args:
        resource: A parsed ConceptMap, R4 or R5.
        categories: Category code to title.
        techniques: The known technique words.
        where: Its file, for errors.

    Raises:
        MappingError: It is no ConceptMap, or has no group.
    """
    if not isinstance(resource, dict) or resource.get("resourceType") != "ConceptMap":
        raise MappingError("this is no ConceptMap", where=where, do="name a FHIR ConceptMap in JSON", number=23)
    groups = [group for group in items(resource, "group") if items(group, "element")]
    if not groups:
        raise MappingError("the ConceptMap maps nothing", where=where, do="it needs a group with elements", number=23)
    source = "|".join(str(resource[name]) for name in ("url", "version") if isinstance(resource.get(name), str))
    known = frozenset(techniques)
    rows: list[tuple[str, TableRow]] = []
    left_out: list[str] = []
    for group in groups:
        uri = str(group.get("source") or resource.get("sourceUri") or "").partition("|")[0]
        for element in items(group, "element"):
            row = _own_row(element) or _foreign_row(element, str(group.get("target") or ""), categories, source)
            place = f"{uri or '(no system)'} {element.get('code')}"
            if isinstance(row, str) or not uri:
                left_out.append(f"{place}: {row if isinstance(row, str) else 'its group names no source'}")
                continue
            wrong = [fault for fault in row_faults(row, "", known, date.min) if fault.level == "error"]
            if wrong:
                left_out.append(f"{place}: {wrong[0].text}")
            else:
                rows.append((uri, row))
    return Imported(tuple(rows), tuple(left_out))


def _own_row(element: Mapping[str, Any]) -> TableRow | None:
    cells = own_cells(element)
    return TableRow(**cells) if cells is not None else None


def _foreign_row(
    element: Mapping[str, Any], target_system: str, categories: Mapping[str, str], source: str
) -> TableRow | str:
    """The row that an element of another's map stands for, or why there is none."""
    targets = items(element, "target")
    target = targets[0] if targets else {}
    code, category = element.get("code"), str(target.get("code") or "")
    relation = str(target.get("equivalence") or target.get("relationship") or "")
    if not isinstance(code, str) or not code.strip():
        return "the element has no code"
    hindrances = (
        (
            target_system.partition("|")[0] != CATEGORY_CODES,
            f"its target is {target_system or '(no system)'} and not {CATEGORY_CODES}",
        ),
        (len(targets) != 1, f"it has {len(targets)} targets, and one is needed"),
        (bool(target.get("dependsOn") or target.get("product")), "its target depends on other elements"),
        (
            relation not in _ACCEPTED,
            f"its target is related as {relation or '(not said)'}, and equal, equivalent or wider is needed",
        ),
        (category not in categories, f"{category!r} is no category"),
        (category not in CATEGORY_CELLS, f"no code has the category {category} by itself; write the row by hand"),
    )
    hindrance = next((text for hinders, text in hindrances if hinders), "")
    if hindrance:
        return hindrance
    pattern = code if is_pattern(element) else literal_pattern(code.strip())
    note = f"{relation} in {source}" if source else relation
    return TableRow(pattern, *CATEGORY_CELLS[category], meaning=categories[category], note=note)
