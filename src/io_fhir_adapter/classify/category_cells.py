"""What a code must say so that it is of a category by itself, and how a row of a table travels in a ConceptMap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from io_fhir_adapter.canonical_urls import structure_definition
from io_fhir_adapter.classify.tables import COLUMNS

__all__ = ["CATEGORY_CELLS", "CODE_PATTERN", "TABLE_ROW", "is_pattern", "items", "literal_pattern", "own_cells"]

TABLE_ROW: Final = structure_definition("code-table-row")
"""Extension of ConceptMap.group.element: the row of the code table, column by column."""
CODE_PATTERN: Final = structure_definition("code-pattern")
"""Extension of ConceptMap.group.element: its code is a pattern; of ValueSet.compose: a pattern that it means too."""

_CELLS = tuple(name for name in COLUMNS if name != "code")
_NEEDLE = "percutaneous"
CATEGORY_CELLS: Final[Mapping[str, tuple[str, str, str, str, str, str]]] = {
    "ablation-rfa": ("radiofrequency", "", _NEEDLE, "none", "main", "expected"),
    "ablation-mwa": ("microwave", "", _NEEDLE, "none", "main", "expected"),
    "ablation-cryo": ("cryotherapy", "", _NEEDLE, "none", "main", "expected"),
    "ablation-ire": ("electroporation", "", _NEEDLE, "none", "main", "expected"),
    "ablation-laser": ("laser", "", _NEEDLE, "none", "main", "expected"),
    "ablation-hifu": ("focused-ultrasound", "", "external", "none", "main", "expected"),
    "ablation-chemical": ("chemical", "", _NEEDLE, "alcohol", "main", "expected"),
    "ablation-other": ("ablation", "", _NEEDLE, "none", "main", "expected"),
    "tace": ("embolisation", "liver", _NEEDLE, "cytostatic", "main", "expected"),
    "deb-tace": ("embolisation", "liver", _NEEDLE, "drug-loaded-particles", "main", "expected"),
    "tare": ("embolisation", "liver", _NEEDLE, "radionuclide", "main", "expected"),
    "bland-embolisation": ("embolisation", "", _NEEDLE, "particles", "main", "required"),
    "pve": ("embolisation", "portal-vein", _NEEDLE, "none", "main", "expected"),
    "ia-chemo": ("arterial-infusion", "", _NEEDLE, "cytostatic", "main", "expected"),
    "electrochemotherapy": ("electrochemotherapy", "", _NEEDLE, "cytostatic", "main", "expected"),
    "brachy-interstitial": ("brachytherapy", "", _NEEDLE, "radionuclide", "main", "expected"),
    "venous-stent": ("stent", "vena-cava", _NEEDLE, "none", "main", "required"),
    "biliary": ("biliary-drainage", "bile-duct", _NEEDLE, "none", "main", "required"),
    "urinary": ("urinary-drainage", "urinary-tract", _NEEDLE, "none", "main", "required"),
    "effusion-drain": ("effusion-drainage", "", _NEEDLE, "none", "main", "required"),
    "vte": ("thrombectomy", "", _NEEDLE, "none", "main", "required"),
    "cementoplasty": ("cementoplasty", "", _NEEDLE, "cement", "main", "required"),
    "neurolysis": ("neurolysis", "nerve", _NEEDLE, "unspecified", "main", "required"),
    "gi-access": ("gastrostomy", "", _NEEDLE, "none", "main", "required"),
    "venous-access": ("venous-access", "", _NEEDLE, "none", "main", "required"),
    "marker": ("marker", "", _NEEDLE, "none", "main", "required"),
    "biopsy": ("biopsy", "", _NEEDLE, "none", "main", "required"),
    "planning": ("angiography", "", _NEEDLE, "none", "planning", "required"),
    "none": ("none", "", "unspecified", "none", "main", "required"),
}
"""Category to technique, site, approach, agent, role and indication of a code that has it by itself."""


def items(resource: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The objects in a list of a resource; empty where there is no such list."""
    found = resource.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def own_cells(element: Mapping[str, Any]) -> dict[str, str] | None:
    """The row that our own export put into an element, column to text; None where there is none."""
    for extension in items(element, "extension"):
        if extension.get("url") == TABLE_ROW and isinstance(element.get("code"), str):
            cells = dict.fromkeys(COLUMNS, "") | {"code": element["code"].strip()}
            for part in items(extension, "extension"):
                if part.get("url") in _CELLS and isinstance(part.get("valueString"), str):
                    cells[part["url"]] = part["valueString"].strip()
            return cells
    return None


def is_pattern(element: Mapping[str, Any]) -> bool:
    """Whether the code of an element is a pattern."""
    marks = items(element, "extension")
    return any(mark.get("url") == CODE_PATTERN and mark.get("valueBoolean") is True for mark in marks)


def literal_pattern(code: str) -> str:
    """The pattern that matches a local code, whatever characters it holds."""
    return "".join("?" if char in "[]" else f"[{char}]" if char in "?*" else char for char in code)
