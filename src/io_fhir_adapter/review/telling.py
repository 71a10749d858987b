"""Which items of a form say what makes a person recognisable: read off the expressions that answer them.

The profile names the items of the shipped form. A body's own form calls them otherwise, so that what an item is
answered from counts as well: its expression, and all variables that this reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from io_fhir_adapter.review.expressions import variables_of
from io_fhir_adapter.review.forms import expression_of, items, variables
from io_fhir_adapter.review.profile import Quasi

__all__ = ["said_by", "telling_items"]

_SAYS: Final[Mapping[Quasi, re.Pattern[str]]] = {
    "age": re.compile(r"birthDate|['\"]age-band['\"]"),
    "sex": re.compile(r"\bgender\b"),
    "quarter": re.compile(r"['\"](quarter|index-date)['\"]|\bperformed"),
    "tumour-group": re.compile(r"['\"]indication(-kind|-organ)?['\"]"),
}


def telling_items(questionnaire: dict[str, Any]) -> dict[str, frozenset[Quasi]]:
    """linkId to what an item's answer may say of age, sex, tumour group or quarter; other items are left out.

    Args:
        questionnaire: R4 JSON of a form that was checked.
    """
    named = dict(variables(questionnaire))
    found: dict[str, frozenset[Quasi]] = {}
    for item in items(questionnaire):
        expression = expression_of(item)
        said = said_by(expression, named) if expression else frozenset()
        if said:
            found[item["linkId"]] = said
    return found


def said_by(expression: str, named: Mapping[str, str]) -> frozenset[Quasi]:
    """What of age, sex, tumour group and quarter an expression reads, itself or by the form's variables."""
    texts = _reads(expression, named)
    return frozenset(quasi for quasi, says in _SAYS.items() if any(says.search(text) for text in texts))


def _reads(expression: str, named: Mapping[str, str]) -> Iterable[str]:
    """The expression and those of all variables that it reads, directly or by others."""
    texts, waiting, seen = [], [expression], set[str]()
    while waiting:
        text = waiting.pop()
        texts.append(text)
        for name in variables_of(text):
            if name in named and name not in seen:
                seen.add(name)
                waiting.append(named[name])
    return texts
