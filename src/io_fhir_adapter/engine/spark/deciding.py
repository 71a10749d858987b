"""Deciding on executors: all facts of some patients in, decisions and what only deciding could know out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import pyarrow as pa
from pyspark import Broadcast

from io_fhir_adapter.engine.deciding import Deciding
from io_fhir_adapter.engine.lines import decision_line
from io_fhir_adapter.engine.spark.discretion import Discreet
from io_fhir_adapter.engine.spark.reading import FACT_KINDS, Job
from io_fhir_adapter.engine.spark.rows import ASIDE, DECIDED, DECISION, ENDED, SHAPE, UNSEEN, batch_of
from io_fhir_adapter.engine.spool import PatientFacts, Spool
from io_fhir_adapter.engine.worker import Shape
from io_fhir_adapter.model import PatientFact, Quarantined

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
            shapes: Counter[Shape] = Counter()
            for facts in spool.patients():
                rows += _rows(facts, deciding, shapes, later=facts.patient in linked)
                if len(rows) >= _ROWS_HELD:
                    yield _batch(rows)
                    rows = []
            yield _batch([*rows, *_numbers(deciding, shapes)])

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


def _rows(facts: PatientFacts, deciding: Deciding, shapes: Counter[Shape], *, later: bool) -> Iterator[_Row]:
    for number, decision in enumerate(deciding.decisions((facts,))):
        shapes[decision.date, decision.category, decision.decision, decision.reason] += 1
        yield {
            "kind": DECISION, "later": later, "patient": facts.patient, "seq": number,
            "payload": decision_line(decision),
        }  # fmt: skip
    for number, entry in enumerate(deciding.quarantined):
        yield {"kind": ASIDE, "later": later, "patient": facts.patient, "seq": number, "payload": _aside(entry)}
    deciding.quarantined.clear()


def _numbers(deciding: Deciding, shapes: Counter[Shape]) -> Iterator[_Row]:
    for (date, category, decision, reason), times in shapes.items():
        yield {
            "kind": SHAPE, "date": date, "category": category, "decision": decision, "reason": reason, "times": times
        }  # fmt: skip
    for (day, status), times in deciding.aside.items():
        yield {"kind": UNSEEN, "date": day, "category": status, "times": times}
    for day, times in deciding.ended.items():
        yield {"kind": ENDED, "date": day, "times": times}


def _aside(entry: Quarantined) -> bytes:
    return msgspec.json.encode(entry)


def _batch(rows: list[_Row]) -> pa.RecordBatch:
    return batch_of(DECIDED, len(rows), {name: [row.get(name) for row in rows] for name in DECIDED.names})
