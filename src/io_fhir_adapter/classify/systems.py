"""Code systems: which URI means which system, and how each system's codes are written.

Hospitals write the same system under many URIs and the same code with or without dots, in either case, with
laterality or modifiers behind it. Both are levelled before any table is asked. The aliases are data
(mappings/systems.csv); the shapes of codes are here.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from io_fhir_adapter.errors import MappingError

__all__ = ["SystemNames", "is_written_one_way", "normalise_code", "uri_key"]

_NOT_ALNUM = re.compile(r"[^0-9a-zA-Z]+")
_SNOMED_ID = re.compile(r"\s*(\d{6,18})")
_LATERALITY = re.compile(r"(?::[RLBrlb]|#|[ _-][RLBrlb])\s*\Z")
_MORPHOLOGY = re.compile(r"M?-?([89]\d{3})[/ ]?(\d)", re.ASCII)
_EDITION = re.compile(r"(?:[-/](?:19|20)\d\d|/version/\d+)\Z")


def uri_key(uri: str) -> str:
    """A system URI without what servers vary: case, http or https, ``urn:oid:``, a trailing slash, a ``|version``."""
    key = uri.strip().partition("|")[0].lower().rstrip("/")
    return key.removeprefix("https://").removeprefix("http://").removeprefix("urn:oid:")


class SystemNames:
    """Looks up the short name of a system URI (``ops``, ``icd10pcs``, ``snomed``, ``icd10`` and so on).

    A URI that ends in ``.*`` or ``/*`` in the list stands for everything below it: editions often have an arc or a
    path of their own. A year or a version at the end of a URI is looked past as well.

    Attributes:
        uris: By short name its URIs as they are written; those that stand for everything below them are left out.
    """

    def __init__(self, names: Mapping[str, str], uris: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.uris = dict(uris or {})
        self._names = {key: name for key, name in names.items() if not key.endswith("*")}
        self._below = {key.removesuffix("*"): name for key, name in names.items() if key.endswith("*")}

    @classmethod
    def load(cls, path: Path, extra: Mapping[str, str] | None = None) -> SystemNames:
        """Reads mappings/systems.csv; ``extra`` adds a site's own URIs.

        Raises:
            MappingError: The file cannot be read, or one URI stands for two systems.
        """
        names: dict[str, str] = {}
        written: dict[str, dict[str, str]] = {}
        try:
            with path.open(encoding="utf-8-sig", newline="") as handle:
                for number, row in enumerate(csv.DictReader(handle), start=2):
                    if not row["uri"] or not row["name"]:
                        raise MappingError(
                            "the row lacks its name or its URI",
                            where=f"{path.name}:{number}",
                            do="fill both or delete it",
                            number=2,
                        )
                    key, name = uri_key(row["uri"]), row["name"].strip()
                    if names.setdefault(key, name) != name:
                        raise MappingError(
                            f"the URI stands for {names[key]} and for {name}",
                            where=f"{path.name}:{number}",
                            do="keep one of the two rows",
                            number=2,
                        )
                    written.setdefault(name, {})[key] = row["uri"].strip()
        except (OSError, UnicodeDecodeError, KeyError, csv.Error) as exc:
            raise MappingError(
                f"the list of code systems cannot be read ({type(exc).__name__})", where=str(path), number=2
            ) from exc
        for uri, name in (extra or {}).items():
            names[uri_key(uri)] = name
            written.setdefault(name, {})[uri_key(uri)] = uri
        uris = {name: tuple(uri for uri in one.values() if not uri.endswith("*")) for name, one in written.items()}
        return cls(names, uris)

    def name(self, uri: str) -> str:
        """The short name, empty for a system not known."""
        key = uri_key(uri)
        known = self._names.get(key) or self._names.get(_EDITION.sub("", key))
        return known or next((name for start, name in self._below.items() if key.startswith(start)), "")


def _ops(code: str) -> str:
    plain = _NOT_ALNUM.sub("", _LATERALITY.sub("", code)).lower()
    if len(plain) < 3:
        return plain
    stem = f"{plain[0]}-{plain[1:4]}"
    return f"{stem}.{plain[4:]}" if len(plain) > 4 else stem


def _alnum_upper(code: str) -> str:
    return _NOT_ALNUM.sub("", code).upper()


def _dot_after_third(code: str) -> str:
    plain = _alnum_upper(code)
    return f"{plain[:3]}.{plain[3:]}" if len(plain) > 3 else plain


def _cpt(code: str) -> str:
    return _alnum_upper(code)[:5]  # a two-character modifier may follow


def _ccam(code: str) -> str:
    return _alnum_upper(code)[:7]  # activity, phase and extension may follow


def _snomed(code: str) -> str:
    found = _SNOMED_ID.match(code)  # a post-coordinated expression starts with its focus concept
    return found.group(1) if found else code.strip()


def _icdo3(code: str) -> str:
    plain = code.strip().upper()
    if found := _MORPHOLOGY.fullmatch(plain):  # registries leave out the stroke before the behaviour, or write M-8170/3
        return "/".join(found.groups())
    return plain if "/" in plain else _dot_after_third(plain)


def _chop(code: str) -> str:
    # grouper files append side and date (``55.3A.14:L:20230301``), and many leave out the Z of the published list
    plain = _alnum_upper(_LATERALITY.sub("", code.partition(":")[0])).removeprefix("Z")
    return ".".join(part for part in ("Z" + plain[:2], plain[2:4], plain[4:]) if part) if plain else ""


def _trimmed(code: str) -> str:
    return code.strip()


_SHAPES: Mapping[str, Callable[[str], str]] = {
    "ops": _ops,
    "icd10pcs": _alnum_upper,
    "snomed": _snomed,
    "cpt": _cpt,
    "opcs4": _dot_after_third,
    "ccam": _ccam,
    "chop": _chop,
    "icd10": _dot_after_third,
    "icdo3": _icdo3,
}


def is_written_one_way(system: str) -> bool:
    """Whether the codes of a system are written as the tables write them, give or take blanks.

    Codes of SNOMED CT count as such; a post-coordinated expression, which begins with one, is not found by it.
    """
    return system not in _SHAPES or system == "snomed"


def normalise_code(system: str, code: str) -> str:
    """A code as the tables write it, such as ``8836KA`` → ``8-836.ka`` in OPS.

    Args:
        system: Short name of the system.
        code: As the source wrote it.
    """
    return _SHAPES.get(system, _trimmed)(code)
