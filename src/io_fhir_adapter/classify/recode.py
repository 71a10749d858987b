"""After a change of the code tables: whether a row matches is asked again of every Procedure in the ledger."""

from __future__ import annotations

from itertools import islice

from io_fhir_adapter.classify.findings import read_codes
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.facts import every_procedure
from io_fhir_adapter.ledger.intake import StoredFact, put_facts
from io_fhir_adapter.ledger.runs import read_state, write_state

__all__ = ["recode"]

_STATE = "codes"
_BATCH = 5_000


def recode(ledger: Ledger, ruleset: Ruleset, run: int) -> bool:
    """Marks every Procedure as mapped or not by these tables, once for each change of them.

    It comes before pulling, because what is mapped says whose Conditions and Encounters are read.

    Returns:
        Whether the tables were others than last time.
    """
    with ledger.begin() as connection:
        if read_state(connection, _STATE) == ruleset.digest:
            return False
        procedures = every_procedure(connection)
        while batch := list(islice(procedures, _BATCH)):
            items = []
            for fact in batch:
                found = read_codes(fact, ruleset)
                items.append(StoredFact(fact, bool(found.findings), found.known_system))
            put_facts(connection, items, run)
        write_state(connection, _STATE, ruleset.digest)
    return True
