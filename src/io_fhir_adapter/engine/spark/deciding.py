"""Deciding on executors: all facts of some patients in, decisions and what only deciding could know out."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import pyarrow as pa
from pyspark import Broadcast

from io_fhir_adapter.engine.deciding import Deciding
from io_fhir_adapter.engine.lines import decision_line
from io_fhir_adapter.engine.spark.discretion import Discreet
from io_fhir_adapter.engine.spark.reading import FACT_KINDS, Job
from io_fhir_adapter.engine.spark.rows import ASIDE, DECIDED, DECISION, NOTE, batch_of
from io_fhir_adapter.engine.spool import PatientFacts, Spool
from io_fhir_adapter.model import Decision, PatientFact, Quarantined

__all__ = ["decider"]

_DECODERS: Final = tuple(msgspec.msgpack.Decoder(kind) for kind in FACT_KINDS)
_ROWS_HELD = 2_000
_SPOOLED = 20_000
_Row = dict[str, Any]


def decider(job: Broadcast[Job]) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What decides on a group of patients, of whom all facts are in it: rows of facts in, ``rows.DECIDED`` out."""

    def decide(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with Discreet(), Spool(_SPOOLED) as spool:
            linked = _spooled(batches, spool)
            deciding = Deciding(job.value.terms)
            rows: list[_Row] = []
            for facts in spool.patients():
                rows += _rows(facts, deciding, later=facts.patient in linked)
                if len(rows) >= _ROWS_HELD:
                    yield _batch(rows)
                    rows = []
            if deciding.aside or deciding.ended:
                rows.append({"kind": NOTE, "payload": pickle.dumps((deciding.aside, deciding.ended))})
            yield _batch(rows)

    return decide


def _spooled(batches: Iterator[pa.RecordBatch], spool: Spool) -> set[str]:
    """Spools the facts, and gives the patients who may be one person with another."""
    linked: set[str] = set()
    for batch in batches:
        for kind, payload in zip(batch.column("number").to_pylist(), batch.column("payload"), strict=True):
            fact = _DECODERS[kind].decode(memoryview(payload.as_buffer()))
            spool.add(fact)
            if isinstance(fact, PatientFact) and fact.replaced_by and fact.replaced_by != f"Patient/{fact.id}":
                linked |= {f"Patient/{fact.id}", fact.replaced_by}
    return linked


def _rows(facts: PatientFacts, deciding: Deciding, *, later: bool) -> Iterator[_Row]:
    for number, decision in enumerate(deciding.decisions((facts,))):
        yield {"kind": DECISION, "later": later, "patient": facts.patient, "seq": number, **_columns(decision)}
    for number, entry in enumerate(deciding.quarantined):
        yield {"kind": ASIDE, "later": later, "patient": facts.patient, "seq": number, "payload": _aside(entry)}
    deciding.quarantined.clear()


def _columns(decision: Decision) -> _Row:
    return {
        "date": decision.date,
        "category": decision.category,
        "decision": decision.decision,
        "reason": decision.reason,
        "payload": decision_line(decision),
    }


def _aside(entry: Quarantined) -> bytes:
    return msgspec.json.encode(entry)


def _batch(rows: list[_Row]) -> pa.RecordBatch:
    return batch_of(DECIDED, len(rows), {name: [row.get(name) for row in rows] for name in DECIDED.names})
