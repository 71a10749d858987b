"""A site's own ConceptMaps as tables: what a local code is mapped to decides what it says.

A target is a category of ours, with the whole row where our own export wrote the map, or a code of a system that has a
table, whose row then holds. How source and target are related decides how far that goes: the same or a narrower code
says all that its target says; a wider or merely similar one does too, but never counts without a person; one that is
mapped to nothing is known to be none of ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from io_fhir_adapter.canonical_urls import CATEGORY_CODES
from io_fhir_adapter.classify.category_cells import CATEGORY_CELLS, is_pattern, items, literal_pattern, own_cells
from io_fhir_adapter.classify.globs import Glob, parse_glob
from io_fhir_adapter.classify.systems import SystemNames, normalise_code
from io_fhir_adapter.classify.tables import COLUMNS, CodeRow, GlobIndex, read_row
from io_fhir_adapter.errors import MappingError

__all__ = ["INEXACT", "ConceptMapFile", "MappedCodes", "map_codes", "read_concept_map"]

INEXACT: Final = "mapping-inexact"
"""The reason of a review where a map says that a code and its target do not mean the same."""

_Rows = tuple[CodeRow, ...]
_Find = Callable[[str, str], _Rows]
# ConceptMap.group.element.target: equivalence in R4, where wider and narrower speak of the target; relationship in R5
_SAME: Final = frozenset({"equal", "equivalent", "wider", "subsumes", "source-is-narrower-than-target"})
_SIMILAR: Final = frozenset(
    {"narrower", "specializes", "inexact", "relatedto", "related-to", "source-is-broader-than-target"}
)
_NONE: Final = frozenset({"unmatched", "disjoint", "not-related-to"})
_TELLING_AGENTS: Final = frozenset({"cytostatic", "drug-loaded-particles", "radionuclide"})
_NOTHING: Final = ("none", "", "unspecified", "none", "main", "required")


@dataclass(frozen=True, slots=True)
class ConceptMapFile:
    """A ConceptMap that could be read: how it is named, and its groups with elements."""

    label: str
    groups: tuple[Mapping[str, Any], ...]
    default_source: str

    def sources(self) -> Iterator[str]:
        """The URI of the code system that each group maps from."""
        for number, group in enumerate(self.groups):
            uri = _uri(group.get("source")) or self.default_source
            if not uri:
                raise _fault(f"{self.label}:group[{number}]", "the group names no source", "name its code system")
            yield uri


@dataclass(frozen=True, slots=True)
class _Element:
    """What the elements for one code say; it stands in an index like a row of a table."""

    glob: Glob
    rows: _Rows
    rule: str
    valid_from: str = ""
    valid_to: str = ""


@dataclass(frozen=True, slots=True)
class MappedCodes:
    """What the ConceptMaps of a site say, by short name of the code system."""

    elements: Mapping[str, GlobIndex[_Element]] = field(default_factory=dict)
    otherwise: Mapping[str, Callable[[str], _Rows]] = field(default_factory=dict)

    @property
    def systems(self) -> frozenset[str]:
        """The code systems that a map speaks of."""
        return frozenset(self.elements) | frozenset(self.otherwise)

    def rows(self, system: str, code: str) -> _Rows:
        """The rows for a normalised code, the most specific element first."""
        index = self.elements.get(system)
        return tuple(row for element in index.match(code) for row in element.rows) if index is not None else ()

    def unmapped(self, system: str, code: str) -> _Rows:
        """What a map says of all codes that it does not list."""
        say = self.otherwise.get(system)
        return say(code) if say is not None else ()


def read_concept_map(path: Path) -> ConceptMapFile:
    """Reads the file of a ConceptMap, R4 or R5.

    Raises:
        MappingError: It cannot be read, or is no ConceptMap with a group.
    """
    label = path.name
    try:
        resource = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as exc:
        raise MappingError(
            "the ConceptMap does not exist or cannot be read",
            where=str(path),
            do="check mappings.concept_maps",
            number=12,
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise MappingError("the ConceptMap is no JSON", where=label, do="save it as JSON in UTF-8", number=12) from exc
    if not isinstance(resource, dict) or resource.get("resourceType") != "ConceptMap":
        raise MappingError("this is no ConceptMap", where=label, do="name a FHIR ConceptMap in JSON", number=12)
    groups = tuple(items(resource, "group"))
    if not any(items(group, "element") or group.get("unmapped") for group in groups):
        raise MappingError("the ConceptMap maps nothing", where=label, do="it needs a group with elements", number=12)
    return ConceptMapFile(label, groups, _uri(resource.get("sourceUri")))


def map_codes(
    maps: Iterable[ConceptMapFile],
    systems: SystemNames,
    techniques: Mapping[str, object],
    tables: frozenset[str],
    find: _Find,
) -> MappedCodes:
    """The tables that ConceptMaps stand for.

    Args:
        maps: In the order of the configuration.
        systems: Names of code systems, those that the maps speak of included.
        techniques: The known technique words.
        tables: Short names of the systems that have a table.
        find: Their rows for a short name and a normalised code, most specific first.

    Raises:
        MappingError: An element is wrong; file, group and element are named.
    """
    reader = _Reader(systems, techniques, tables, find)
    found: dict[tuple[str, str], list[_Said]] = {}
    otherwise: dict[str, Callable[[str], _Rows]] = {}
    for concept_map in maps:
        for number, (group, uri) in enumerate(zip(concept_map.groups, concept_map.sources(), strict=True)):
            name, place = systems.name(uri), f"{concept_map.label}:group[{number}]"
            for pattern, said in reader.elements(group, name, place):
                found.setdefault((name, pattern), []).append(said)
            rest = reader.otherwise(group, name, f"{place}.unmapped")
            if rest is not None:
                otherwise.setdefault(name, rest)
    by_system: dict[str, list[_Element]] = {}
    for (name, pattern), all_said in found.items():
        by_system.setdefault(name, []).append(_joined(pattern, all_said))
    return MappedCodes({name: GlobIndex(elements) for name, elements in by_system.items()}, otherwise)


@dataclass(frozen=True, slots=True)
class _Said:
    """What one target says of a code.

    Attributes:
        rows: At least one.
        nothing: Whether it says that there is no target.
        inexact: Whether it is not what the code means.
        whole: Whether the rows are those of a table that travelled in the map.
    """

    rows: _Rows
    nothing: bool = False
    inexact: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class _Reader:
    systems: SystemNames
    techniques: Mapping[str, object]
    tables: frozenset[str]
    find: _Find

    def elements(self, group: Mapping[str, Any], name: str, place: str) -> Iterator[tuple[str, _Said]]:
        """(pattern, what is said) of every element and target."""
        target_uri = _uri(group.get("target"))
        for number, element in enumerate(items(group, "element")):
            here = f"{place}.element[{number}]"
            code = element.get("code")
            if not isinstance(code, str) or not code.strip():
                raise _fault(here, "the element has no code", "give it the code that Procedures carry")
            own = own_cells(element)
            pattern = code if is_pattern(element) or own else literal_pattern(normalise_code(name, code))
            targets = items(element, "target")
            if own is not None:
                yield pattern, _Said((read_row(own, name, self.techniques, here),), whole=True)
            elif element.get("noMap") is True or not targets:
                yield pattern, self._nothing(pattern, name, f"{here} (no target)")
            else:
                for target in targets:
                    yield pattern, self._target(target, pattern, name, target_uri, here)

    def _target(self, target: Mapping[str, Any], pattern: str, name: str, target_uri: str, here: str) -> _Said:
        relation = str(target.get("equivalence") or target.get("relationship") or "")
        if relation in _NONE:
            return self._nothing(pattern, name, f"{here} ({relation})")
        if relation not in _SAME | _SIMILAR:
            known = ", ".join(sorted(_SAME | _SIMILAR | _NONE))
            what = f"its target is related as {relation!r}" if relation else "its target does not say how it is related"
            raise _fault(here, what, f"use one of {known}")
        code = target.get("code")
        if not isinstance(code, str) or not code.strip():
            raise _fault(here, "its target has no code", "name the code, or say unmatched")
        rows = self._rows_of(code.strip(), target_uri, pattern, name, here)
        depends = bool(target.get("dependsOn") or target.get("product"))
        inexact = relation in _SIMILAR or depends
        note = f"{here} ({relation}{', depends on more' if depends else ''})"
        return _Said(tuple(_placed(row, pattern, name, note, inexact=inexact) for row in rows), inexact=inexact)

    def _rows_of(self, code: str, target_uri: str, pattern: str, name: str, here: str) -> _Rows:
        """The rows that a target stands for; where its table has none, one that says that it is none of ours."""
        if target_uri == CATEGORY_CODES:
            if code not in CATEGORY_CELLS:
                raise _fault(here, f"no code has the category {code!r} by itself", "write a row in a table of your own")
            return (self._row(pattern, name, CATEGORY_CELLS[code], ""),)
        target_name = self.systems.name(target_uri)
        if target_name not in self.tables:
            what = (
                f"its target {target_uri or '(no system)'} is neither {CATEGORY_CODES} nor a system with a code table"
            )
            raise _fault(here, what, "correct group.target, or leave the group out")
        rows = self.find(target_name, normalise_code(target_name, code))
        return rows or (self._row(pattern, name, _NOTHING, f"{target_name} {code}, which has no row"),)

    def otherwise(self, group: Mapping[str, Any], name: str, here: str) -> Callable[[str], _Rows] | None:
        """What group.unmapped says of all other codes; another map is for the configuration to name."""
        unmapped = group.get("unmapped")
        if not isinstance(unmapped, dict):
            return None
        mode, target_uri = unmapped.get("mode"), _uri(group.get("target"))
        if mode == "fixed":
            code = str(unmapped.get("code") or "")
            rows = self._rows_of(code, target_uri, "*", name, here)
            relation = str(unmapped.get("relationship") or "")
            fixed = tuple(_placed(row, "*", name, f"{here} (fixed)", inexact=relation in _SIMILAR) for row in rows)
            return lambda _: fixed
        if mode in {"provided", "use-source-code"}:
            target = self.systems.name(target_uri)
            return lambda code: tuple(
                _placed(row, row.glob.text, name, f"{here} (the code itself)", inexact=False)
                for row in self.find(target, normalise_code(target, code))
            )
        return None

    def _nothing(self, pattern: str, name: str, rule: str) -> _Said:
        return _Said((self._row(pattern, name, _NOTHING, rule),), nothing=True)

    def _row(self, pattern: str, name: str, cells: Sequence[str], rule: str) -> CodeRow:
        names = ("technique", "site", "approach", "agent", "role", "indication")
        record = dict.fromkeys(COLUMNS, "") | {"code": pattern} | dict(zip(names, cells, strict=True))
        return read_row(record, name, self.techniques, rule)


def _placed(row: CodeRow, pattern: str, name: str, note: str, *, inexact: bool) -> CodeRow:
    """A target's row as one of the mapped code, which names the element and the row that it led to."""
    rule = f"{note} > {row.rule}" if row.rule else note
    finding = msgspec.structs.replace(
        row.finding, system=name, code=pattern, rule=rule, review=INEXACT if inexact else ""
    )
    return replace(row, finding=finding, rule=rule)


def _joined(pattern: str, all_said: Sequence[_Said]) -> _Element:
    """One element of all that is said of a code: the first exact target; for review where another says otherwise."""
    whole = tuple(row for said in all_said if said.whole for row in said.rows)
    something = [said for said in all_said if not said.nothing] or list(all_said)
    rows = whole or next((said for said in something if not said.inexact), something[0]).rows
    if not whole and any(_gist(said.rows[0]) != _gist(rows[0]) for said in something):
        rows = tuple(replace(row, finding=msgspec.structs.replace(row.finding, review=INEXACT)) for row in rows)
    return _Element(parse_glob(pattern), rows, rows[0].rule)


def _gist(row: CodeRow) -> tuple[str, str, str]:
    """What tells treatments apart, whatever else one system says and another does not."""
    finding = row.finding
    return finding.technique, finding.role, finding.agent if finding.agent in _TELLING_AGENTS else ""


def _uri(value: object) -> str:
    return value.partition("|")[0].strip() if isinstance(value, str) else ""


def _fault(where: str, what: str, do: str) -> MappingError:
    return MappingError(what, where=where, do=do, number=13)
