"""The whole ruleset: tables, rules, indications and a programme, loaded once and asked millions of times."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from io_fhir_adapter.classify.concept_maps import MappedCodes, map_codes, read_concept_map
from io_fhir_adapter.classify.globs import Glob
from io_fhir_adapter.classify.indications import DiagnosisTables, load_diagnoses
from io_fhir_adapter.classify.places import BodySites, load_body_sites
from io_fhir_adapter.classify.programme import Programme, load_programme
from io_fhir_adapter.classify.rules import SessionRules, load_categories, load_session_rules, load_techniques
from io_fhir_adapter.classify.scope import Scope
from io_fhir_adapter.classify.systems import SystemNames, normalise_code
from io_fhir_adapter.classify.tables import CodeRow, GlobIndex, load_code_table
from io_fhir_adapter.classify.text import TechniqueWords, load_technique_words
from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.model import Finding
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.trust.canonical import digest

__all__ = ["Entry", "Ruleset", "SiteTable", "load_ruleset", "rules_for", "rules_now"]

_CACHE_LIMIT = 500_000
_SITE_PREFIX = "site:"
_MOST_KEPT = 4
_MadeOf = tuple[str, Path, tuple["SiteTable", ...], tuple[Path, ...]]
_made: dict[_MadeOf, Ruleset] = {}
"""What was loaded last, by the digest of all it was made of: a page or a command asks for the same again and again."""


@dataclass(frozen=True, slots=True)
class SiteTable:
    """A site's own table: the URI of its local code system and the CSV file."""

    system: str
    file: Path


@dataclass(frozen=True, slots=True)
class Entry:
    """What the tables know of one (system, code): its rows, most specific first.

    ``system`` is the short name, empty where the system is not known; ``code`` is normalised.
    """

    system: str
    code: str
    rows: tuple[CodeRow, ...]

    def row_on(self, day: str) -> CodeRow | None:
        """The most specific row valid on that local date; a partial or missing date takes what may be valid.

        A code that was used outside its years says what it always said, as long as no valid row says otherwise.
        """
        for row in self.rows:
            if (row.valid_from and day and day < row.valid_from[: len(day)]) or (
                row.valid_to and day and day > row.valid_to[: len(day)]
            ):
                continue
            return row
        return self.rows[0] if self.rows else None


class Ruleset:
    """Everything that decides. Make it with :func:`load_ruleset`.

    Attributes:
        systems: Names of code systems.
        rules: Session rules and techniques.
        diagnoses: The indication tables.
        categories: Category code to title, in the order of the contract; ``category_order`` gives the place of each.
        programme: What counts.
        words: Technique words for Procedures that no table knows.
        body_sites: What the codings of a bodySite say.
        digest: Of all files, the programme and the scope.
        scope: Which records are the service's own; None where all are.
        table_systems: Short names of the systems that have a table.
    """

    def __init__(
        self,
        systems: SystemNames,
        tables: dict[str, GlobIndex[CodeRow]],
        site_tables: dict[str, GlobIndex[CodeRow]],
        rules: SessionRules,
        diagnoses: DiagnosisTables,
        categories: dict[str, str],
        programme: Programme,
        words: TechniqueWords,
        body_sites: BodySites,
        digest: str,
        scope: Scope | None = None,
        mapped_codes: MappedCodes | None = None,
    ) -> None:
        self.systems = systems
        self.rules = rules
        self.diagnoses = diagnoses
        self.categories = categories
        self.category_order = {name: place for place, name in enumerate(categories)}
        self._mapped_codes = mapped_codes or MappedCodes()
        self.table_systems = frozenset(tables) | frozenset(site_tables) | self._mapped_codes.systems
        self.programme = programme
        self.words = words
        self.body_sites = body_sites
        self.digest = digest
        self.scope = scope
        self._tables = tables
        self._site_tables = site_tables
        self._cache: dict[tuple[str, str], Entry] = {}

    def text_findings(self, codes: Iterable[tuple[str, str]], texts: Iterable[str]) -> tuple[Finding, ...]:
        """What the text of a Procedure says that its codes do not; empty where its codes are the better witness.

        A row of a table is, and so is a code of a national or international system that has a table; a site's own
        key without a row is as good as unknown.

        Args:
            codes: (system, code) of each coding.
            texts: The text of the code and the displays of its codings.
        """
        for system, code in codes:
            entry = self.entry(system, code)
            if entry.rows or (entry.system in self.table_systems and not entry.system.startswith(_SITE_PREFIX)):
                return ()
        return self.words.findings(texts)

    def patterns(self, system: str) -> tuple[Glob, ...] | None:
        """The patterns of all that the tables and maps list of a system (short name).

        None where a ConceptMap speaks of all its codes.
        """
        if system in self._mapped_codes.otherwise:
            return None
        indices = (self._tables, self._site_tables, self._mapped_codes.elements)
        return tuple(glob for index in indices if system in index for glob in index[system].globs)

    def entry(self, system: str, code: str) -> Entry:
        """What the tables know of a code; remembered, so that the size of the tables costs nothing."""
        key = (system, code)
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) > _CACHE_LIMIT:
                self._cache.clear()
            found = self._cache[key] = self._look_up(system, code)
        return found

    def _look_up(self, system: str, code: str) -> Entry:
        name = self.systems.name(system)
        if not name:
            return Entry("", code, ())
        normal = normalise_code(name, code)
        mapped = self._mapped_codes
        own = mapped.rows(name, normal) + _match(self._site_tables, name, normal)
        return Entry(name, normal, (own or mapped.unmapped(name, normal)) + _match(self._tables, name, normal))


def _match(tables: Mapping[str, GlobIndex[CodeRow]], name: str, code: str) -> tuple[CodeRow, ...]:
    table = tables.get(name)
    return table.match(code) if table is not None else ()


def load_ruleset(
    programme: str | Programme = "iasios",
    site_tables: Sequence[SiteTable] = (),
    folder: Path | None = None,
    scope: Scope | None = None,
    concept_maps: Sequence[Path] = (),
) -> Ruleset:
    """Loads the shipped tables, a site's own on top of them, and a programme.

    Args:
        programme: A programme's id or the path of its file.
        site_tables: A site's own tables, for local code systems or for one of ours; their rows are asked first.
        folder: Another mappings folder than the shipped one.
        scope: Which records are the service's own; None for all.
        concept_maps: A site's own ConceptMaps, asked before its tables.

    Raises:
        MappingError: Anything in them is wrong; file and line are named.
    """
    folder = folder or shipped_path("mappings")
    categories = load_categories(folder / "categories.csv")
    techniques = load_techniques(folder / "techniques.csv")
    rules = load_session_rules(folder / "session-rules.yaml", techniques, categories)
    if isinstance(programme, str):
        programme = load_programme(programme, frozenset(categories))
    for site in site_tables:
        if not site.file.is_file():
            raise MappingError(
                "the site's code table does not exist", where=str(site.file), do="check mappings.site_tables", number=9
            )
    maps = [read_concept_map(path) for path in concept_maps]
    files = {str(path.relative_to(folder)): path for path in [*folder.rglob("*.csv"), folder / "session-rules.yaml"]}
    files.update({f"site/{site.file.name}": site.file for site in site_tables})
    files.update({f"concept-map/{number}/{path.name}": path for number, path in enumerate(concept_maps)})
    made_of = (_digest(files, programme, scope), folder, tuple(site_tables), tuple(concept_maps))
    kept = _made.get(made_of)
    if kept is not None and kept.programme == programme:
        return copy(kept)  # whoever looks with other eyes, at another sample size say, changes their own
    tables: dict[str, GlobIndex[CodeRow]] = {}
    for path in sorted((folder / "codes").glob("*.csv")):
        tables[path.stem] = GlobIndex(load_code_table(path, path.stem, techniques))
    systems = SystemNames.load(folder / "systems.csv", {})
    local: dict[str, str] = {}
    own: dict[str, list[CodeRow]] = {}
    for site in site_tables:
        name = systems.name(site.system) or f"{_SITE_PREFIX}{site.file.stem}"
        local[site.system] = name
        own.setdefault(name, []).extend(load_code_table(site.file, name, techniques, label=site.file.name))
    for path, concept_map in zip(concept_maps, maps, strict=True):
        systems = SystemNames.load(folder / "systems.csv", local)
        for number, uri in enumerate(dict.fromkeys(concept_map.sources())):
            local.setdefault(uri, systems.name(uri) or f"{_SITE_PREFIX}{path.stem}" + (f"-{number}" if number else ""))
    systems = SystemNames.load(folder / "systems.csv", local)
    site_index = {name: GlobIndex(rows) for name, rows in own.items()}
    mapped_codes = map_codes(
        maps,
        systems,
        techniques,
        frozenset(tables) | frozenset(own),
        lambda name, code: _match(site_index, name, code) + _match(tables, name, code),
    )
    diagnoses = load_diagnoses(folder / "indications", systems)
    words = load_technique_words(folder / "technique-words.csv", techniques)
    made = Ruleset(
        systems=systems,
        tables=tables,
        site_tables=site_index,
        rules=rules,
        diagnoses=diagnoses,
        categories=categories,
        programme=programme,
        words=words,
        body_sites=load_body_sites(folder / "body-sites.csv", systems, words, techniques),
        digest=made_of[0],
        scope=scope,
        mapped_codes=mapped_codes,
    )
    if len(_made) >= _MOST_KEPT:
        _made.clear()
    _made[made_of] = copy(made)
    return made


def rules_for(config: Config) -> Ruleset:
    """The ruleset that a configuration asks for."""
    tables = [SiteTable(table.system, table.file) for table in config.mappings.site_tables]
    maps = [item.file for item in config.mappings.concept_maps]
    return load_ruleset(config.programme, tables, scope=Scope.of(config.scope), concept_maps=maps)


def rules_now(config: Config, known: Ruleset) -> Ruleset:
    """The ruleset of a configuration as its files are now; the known one where nothing that decides changed.

    Raises:
        MappingError: Somebody changed a file, and it is wrong now.
    """
    found = rules_for(config)
    return known if found.digest == known.digest else found


def _digest(files: Mapping[str, Path], programme: Programme, scope: Scope | None) -> str:
    parts = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    own = {"scope": scope.digest} if scope is not None else {}
    return digest({"files": parts, "programme": programme.digest, **own})
