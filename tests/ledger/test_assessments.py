from __future__ import annotations

from datetime import UTC, datetime

from io_fhir_adapter.ledger.assessments import assessment_of, put_assessment
from io_fhir_adapter.ledger.chain import check_chain, links
from io_fhir_adapter.ledger.database import Ledger

NOW, LATER = datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 7, 1, tzinfo=UTC)
FIRST = {"resourceType": "QuestionnaireResponse", "status": "in-progress"}
SECOND = {**FIRST, "status": "completed"}


def test_the_last_answers_stand_and_the_chain_remembers_each(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        assert assessment_of(connection, "iasios") is None
        made = put_assessment(connection, "iasios", FIRST, NOW)
        assert put_assessment(connection, "iasios", FIRST, LATER) == made  # the same again is nothing new
        new = put_assessment(connection, "iasios", SECOND, LATER)
        assert assessment_of(connection, "iasios") == new
        assert assessment_of(connection, "degir") is None
        said = [link.body["digest"] for link in links(connection) if link.kind == "self-assessment"]
        assert said == [made.digest, new.digest]
        assert check_chain(connection) == 2
    assert (made.at[:10], new.at[:10], new.response) == ("2025-06-01", "2025-07-01", SECOND)
