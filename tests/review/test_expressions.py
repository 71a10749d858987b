"""Expressions of a form: read once for both their check and their evaluation, and as the library itself reads them."""

from __future__ import annotations

from typing import Any

import fhirpathpy
import pytest
from fhirpathpy.models import models

from io_fhir_adapter.errors import MappingError, ReviewError
from io_fhir_adapter.review.expressions import check_expression, evaluate

ENVIRONMENT: dict[str, Any] = {
    "patient": {
        "resourceType": "Patient", "birthDate": "1950-02-03", "name": [{"given": ["A", "B"]}, {"given": ["C"]}],
    },
    "a-b": [1, 2, 3],
    "dose": {"resourceType": "Observation", "valueQuantity": {"value": 4, "code": "mg"}},
}  # fmt: skip


@pytest.mark.parametrize(
    "expression",
    [
        "1 + 2.5 * 3",
        "'it\\'s' & 'x'",
        "%patient.name.given",
        "%patient . name /* every one */ . given.first() // the first",
        "%patient.name.where(given = 'C' or given.count() > 1).given",
        "%patient.name[1].`given`",
        "iif(%patient.birthDate < @1960-01-01, 'old', {})",
        "%`a-b`.where($this > 1).select($this * $index)",
        "%`a-b`.exists($this = 2) implies %`a-b`.all($this < 3)",
        "(%dose.value as Quantity).value",
        "%dose.value.ofType(Quantity).code | 'g' | 'mg'",
        "%patient is Patient and %patient.birthDate.exists().not()",
        "-%`a-b`.first() in (1 | -1)",
    ],
)
def test_an_expression_means_what_it_means_to_the_library(expression: str) -> None:
    check_expression(expression, "here")
    expected = fhirpathpy.evaluate({}, expression, ENVIRONMENT, models["r4"])
    assert evaluate(expression, ENVIRONMENT) == expected


@pytest.mark.parametrize("text", ["", "1 +", "a b", "%patient.name.where(", "'open"])
def test_what_is_no_whole_expression_is_refused_and_never_evaluated(text: str) -> None:
    with pytest.raises(MappingError, match="not valid at character"):
        check_expression(text, "here")
    with pytest.raises(ReviewError):
        evaluate(text, ENVIRONMENT)
