"""Body sites: where bodySite says a Procedure was done, for codes that name no organ (mappings/body-sites.csv)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from io_fhir_adapter.classify.systems import SystemNames, normalise_code
from io_fhir_adapter.classify.tables import SITES
from io_fhir_adapter.classify.text import TechniqueWords
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.model import Code, Finding

__all__ = ["COLUMNS", "BodySites", "load_body_sites"]

COLUMNS = ("code", "site", "look_alike_for", "meaning", "checked")
_SYSTEM = "snomed"
_NONE = "none"
# Words beside a treatment; a place adds nothing to them.
_PLACELESS = frozenset({_NONE, "guidance", "device-count", "drug"})


@dataclass(frozen=True, slots=True)
class _Place:
    site: str
    look_alike_for: frozenset[str]
    rule: str


class BodySites:
    """Refines findings by where they were done. Make it with :func:`load_body_sites`."""

    def __init__(self, systems: SystemNames, words: TechniqueWords, places: Mapping[str, _Place]) -> None:
        self._systems = systems
        self._words = words
        self._places = dict(places)

    def refine(self, finding: Finding, body_sites: Iterable[Code]) -> Finding:
        """The finding with the one site that the codings name; unchanged where it has a site or they name several.

        A place where the technique never treats a tumour makes it a look-alike; no place makes a treatment of one.
        """
        if finding.site or finding.technique in _PLACELESS:
            return finding
        places = [place for code in body_sites if (place := self._place(code)) is not None]
        if any(finding.technique in place.look_alike_for for place in places):
            return msgspec.structs.replace(finding, technique=_NONE, site=places[0].site)
        sites = {place.site for place in places}
        return msgspec.structs.replace(finding, site=sites.pop()) if len(sites) == 1 else finding

    def _place(self, code: Code) -> _Place | None:
        if self._systems.name(code.system) == _SYSTEM:
            return self._places.get(normalise_code(_SYSTEM, code.code))
        site = self._words.place(code.display)
        return _Place(site, frozenset(), "") if site else None


def load_body_sites(
    path: Path, systems: SystemNames, words: TechniqueWords, techniques: Mapping[str, object]
) -> BodySites:
    """Reads mappings/body-sites.csv.

    Raises:
        MappingError: A column or word is wrong, or a code stands twice; file and line are named.
    """
    places: dict[str, _Place] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise MappingError(
                    "the columns are not those of the body sites",
                    where=f"{path.name}:1",
                    do=f"the first line must read {','.join(COLUMNS)}",
                    number=5,
                )
            for record in reader:
                rule = f"{path.name}:{reader.line_num}"
                if None in record or None in record.values():
                    raise MappingError(
                        "the row has too many or too few columns",
                        where=rule,
                        do="quote texts that hold a comma",
                        number=5,
                    )
                code, site = record["code"].strip(), record["site"].strip()
                alike = frozenset(record["look_alike_for"].split())
                strange = sorted(({site} - SITES) | (alike - frozenset(techniques)))
                if strange or not site or not code.isdigit() or code in places:
                    raise MappingError(
                        f"{strange[0]!r} is no site or technique"
                        if strange
                        else "the code or site is wrong or stands twice",
                        where=rule,
                        do="write each SNOMED CT code once, with a site of the code tables",
                        number=6,
                    )
                places[code] = _Place(site, alike, rule)
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise MappingError(
            f"the body sites cannot be read ({type(exc).__name__})",
            where=path.name,
            do="save it as UTF-8 CSV",
            number=5,
        ) from exc
    return BodySites(systems, words, places)
