"""The tables of the ledger, as SQLAlchemy Core. Migrations build them; this module only describes them.

Times are UTC, ISO 8601 text to the microsecond, so that they sort and compare the same in every database.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table, Text

__all__ = [
    "METADATA",
    "accounts",
    "approvals",
    "audit",
    "bulk_jobs",
    "cases",
    "chain",
    "cleared",
    "cursors",
    "decisions",
    "draws",
    "facts",
    "jobs",
    "outbox",
    "quarantine",
    "receipts",
    "reviews",
    "runs",
    "sign_ins",
    "signatures",
    "stale",
    "state",
    "tallied",
    "verdicts",
]

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

runs: Final = Table(
    "runs",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("started", String(32), nullable=False),
    Column("finished", String(32)),
    Column("state", String(12), nullable=False),  # running, complete, failed
    Column("summary", Text, nullable=False, default="{}"),  # JSON: per source and type what was read, and the proof
    Column("error", Text, nullable=False, default=""),
)

facts: Final = Table(
    "facts",
    METADATA,
    Column("source", String(40), nullable=False),
    Column("resource_type", String(24), nullable=False),
    Column("id", String(255), nullable=False),
    Column("patient", String(255), nullable=False),
    Column("status", String(24), nullable=False),
    Column("day", String(10), nullable=False),
    Column("mapped", Boolean, nullable=False),  # a row of the code tables matches
    Column("known_system", Boolean, nullable=False),  # a coding is of a system that has a table
    Column("digest", String(64), nullable=False),  # of data without updated: what did not change is not written
    Column("data", LargeBinary, nullable=False),  # the fact, MessagePack
    Column("run", Integer, ForeignKey("runs.id"), nullable=False),
    # the key; no primary key, which a first load could not put off
    Index("uq_facts_source_resource_type_id", "source", "resource_type", "id", unique=True),
    Index("ix_facts_resource_type_patient", "resource_type", "patient"),
    # the tally of all Procedures reads nothing but this index
    Index("ix_facts_tally", "resource_type", "day", "status", "mapped", "known_system"),
)

FACTS_KEY: Final = next(index for index in facts.indexes if index.unique)
"""What tells facts apart."""

# few Procedures are mapped, and every night asks for those
FACTS_MAPPED: Final = Index(
    "ix_facts_mapped", facts.c.source, facts.c.patient, sqlite_where=facts.c.mapped, postgresql_where=facts.c.mapped
)

stale: Final = Table(
    "stale",
    METADATA,
    Column("patient", String(255), primary_key=True),  # facts changed since the decisions on this patient were made
)

decisions: Final = Table(
    "decisions",
    METADATA,
    Column("patient", String(255), primary_key=True),
    Column("number", Integer, primary_key=True),  # within the patient, by date
    Column("date", String(10), nullable=False),
    Column("category", String(24), nullable=False),
    Column("decision", String(12), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("data", LargeBinary, nullable=False),  # the whole decision with its trail, JSON
    Index("ix_decisions_alike", "category", "decision", "reason", "date"),
    Index("ix_decisions_listed", "date", "patient", "number", "category", "decision", "reason"),
    Index("ix_decisions_decision_date", "decision", "date"),
)

cursors: Final = Table(
    "cursors",
    METADATA,
    Column("source", String(40), primary_key=True),
    Column("resource_type", String(24), primary_key=True),
    Column("value", String(64), nullable=False),  # server time up to which everything was read
    Column("run", Integer, ForeignKey("runs.id"), nullable=False),
)

bulk_jobs: Final = Table(
    "bulk_jobs",
    METADATA,
    Column("source", String(40), primary_key=True),
    Column("purpose", String(12), primary_key=True),  # changes, or background of patients who are new
    Column("key", String(32), nullable=False),  # names the folder of its files
    Column("request", Text, nullable=False),  # what was asked for, JSON: another wish does not go on with this job
    Column("status_url", Text, nullable=False),
    Column("started", String(32), nullable=False),
    Column("asked", String(64), nullable=False),  # the same by the server's clock
    Column("manifest", Text, nullable=False),  # all its pages, JSON; empty until the export is done
    Column("ingested", Boolean, nullable=False),  # in the ledger; only the clearing up is left
)

quarantine: Final = Table(
    "quarantine",
    METADATA,
    Column("source", String(40), primary_key=True),
    Column("resource_type", String(24), primary_key=True),
    Column("position", String(400), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("code", String(16), nullable=False),
    Column("run", Integer, ForeignKey("runs.id"), nullable=False),
)

draws: Final = Table(
    "draws",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("programme", String(40), nullable=False),
    Column("period", String(32), nullable=False),
    Column("window_start", String(10), nullable=False),
    Column("window_end", String(10), nullable=False),
    Column("committed", String(32), nullable=False),
    Column("commitment", LargeBinary, nullable=False),  # canonical JSON of the frame, written before the nonce
    Column("digest", String(80), nullable=False),  # of the commitment
    Column("frame_size", Integer, nullable=False),
    Column("frame", LargeBinary, nullable=False, default=b"{}", server_default="{}"),  # who that is, JSON; local only
    Column("announced", String(32), nullable=False, default="", server_default=""),  # when the frame was, if it was
    Column("nonce", String(64), nullable=False, default=""),  # hexadecimal, empty until drawn
    Column("nonce_origin", String(12), nullable=False, default=""),
    Column("superseded", String(32), nullable=False, default="", server_default=""),  # why another draw replaced it
    Index("ix_draws_programme_period", "programme", "period"),
)

cases: Final = Table(
    "cases",
    METADATA,
    Column("draw", Integer, ForeignKey("draws.id"), primary_key=True),
    Column("number", Integer, primary_key=True),  # 1 to size are cases, those after are reserves
    Column("role", String(8), nullable=False),  # case, reserve, left
    Column("token", String(64), nullable=False),
    Column("patient", String(255), nullable=False),
    Column("date", String(10), nullable=False),
    Column("category", String(24), nullable=False),
    Column("procedures", Text, nullable=False),  # JSON list of references
    Column("response", LargeBinary),  # the QuestionnaireResponse, JSON
    Column("sources", Text, nullable=False, default="{}"),  # linkId to reference, local only
    Column("missing", Text, nullable=False, default="{}"),  # linkId to why it is empty
    Column("reason", String(32), nullable=False, default="", server_default=""),  # why it left
)

reviews: Final = Table(
    "reviews",
    METADATA,
    Column("draw", Integer, ForeignKey("draws.id"), primary_key=True),
    Column("number", Integer, primary_key=True),  # of the case
    Column("state", String(12), nullable=False),  # open, draft, signed, returned
    Column("answers", LargeBinary),  # the QuestionnaireResponse as a person left it, JSON
    Column("reviewer", String(255), nullable=False),  # account of who works on it, or signed it
    Column("saved", String(32), nullable=False),
    Column("signed", String(32), nullable=False),
    Column("comment", Text, nullable=False),  # why it came back
    Column("revision", Integer, nullable=False),  # one more with each change
    Column("returned_by", String(255), nullable=False),
)

signatures: Final = Table(
    "signatures",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("draw", Integer, ForeignKey("draws.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("account", String(255), nullable=False),
    Column("at", String(32), nullable=False),
    Column("digest", String(80), nullable=False),  # of what was signed
    Index("ix_signatures_draw_number", "draw", "number"),
)

cleared: Final = Table(
    "cleared",
    METADATA,
    Column("draw", Integer, ForeignKey("draws.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("what", String(80), primary_key=True),  # digest of a text, or how rare a case may leave
    Column("account", String(255), nullable=False),
    Column("at", String(32), nullable=False),
    Column("reason", String(40), nullable=False),
)

chain: Final = Table(
    "chain",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("body", LargeBinary, nullable=False),  # canonical JSON
    Column("digest", String(80), nullable=False),  # over this link and the digest before it
)

outbox: Final = Table(
    "outbox",
    METADATA,
    Column("identifier", String(80), primary_key=True),
    Column("period", String(32), nullable=False),
    Column("created", String(32), nullable=False),
    Column("state", String(12), nullable=False),  # see ledger/outbox.py
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt", String(32), nullable=False),
    Column("lease_until", String(32), nullable=False, default=""),
    Column("body", LargeBinary, nullable=False),
    Column("cause", Text, nullable=False, default=""),
    Column("asked", String(32), nullable=False, server_default=""),  # when for a verdict, if ever
    Index("ix_outbox_state_next_attempt", "state", "next_attempt"),
)

approvals: Final = Table(
    "approvals",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("identifier", String(80), ForeignKey("outbox.identifier"), nullable=False),
    Column("digest", String(80), nullable=False),  # of the very bytes that were looked at
    Column("sealed_digest", String(80), nullable=False, server_default=""),  # of those made of them, which leave
    Column("account", String(255), nullable=False),
    Column("role", String(20), nullable=False),
    Column("at", String(32), nullable=False),
    Column("verdict", String(12), nullable=False),  # approved, returned
    Column("comment", Text, nullable=False),
    Index("ix_approvals_identifier", "identifier"),
)

receipts: Final = Table(
    "receipts",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("identifier", String(80), ForeignKey("outbox.identifier"), nullable=False),
    Column("received", String(32), nullable=False),
    Column("status", Integer, nullable=False),
    Column("verdict", String(12), nullable=False),
    Column("sentence", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("ix_receipts_identifier", "identifier"),
)

# what the accreditation body says of an accepted submission; one row with each change
verdicts: Final = Table(
    "verdicts",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("identifier", String(80), ForeignKey("outbox.identifier"), nullable=False),
    Column("state", String(20), nullable=False),  # see ledger/verdicts.py
    Column("note", Text, nullable=False),  # the body's own text
    Column("at", String(32), nullable=False),  # when the body said it, as its Task has it
    Column("seen", String(32), nullable=False),
    Column("task", LargeBinary, nullable=False),  # the Task, JSON
    Index("ix_verdicts_identifier", "identifier"),
)

state: Final = Table(
    "state",
    METADATA,
    Column("name", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)

# when the service does what; see ledger/jobs.py
jobs: Final = Table(
    "jobs",
    METADATA,
    Column("name", String(24), primary_key=True),
    Column("rule", String(120), nullable=False),  # when it is due, as configured: another rule, another time
    Column("due", String(32), nullable=False),
    Column("started", String(32), nullable=False),
    Column("finished", String(32), nullable=False),  # empty while it runs, and where it was cut off
    Column("outcome", String(12), nullable=False),
    Column("tries", Integer, nullable=False),  # in a row that were cut off
)

# what was removed once it need not be kept any longer, as numbers that name nobody
tallied: Final = Table(
    "tallied",
    METADATA,
    Column("what", String(12), primary_key=True),  # procedure, session
    Column("month", String(10), primary_key=True),  # or the year, where no more was known
    Column("said", String(100), primary_key=True),  # what they have in common, by spaces
    Column("number", Integer, nullable=False),
)

accounts: Final = Table(
    "accounts",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("display", String(120), nullable=False),
    Column("hash", String(255), nullable=False),  # argon2id, with its parameters and salt
    Column("roles", String(80), nullable=False),  # by comma
    Column("disabled", Boolean, nullable=False),
    Column("one_time", Boolean, nullable=False),  # the password was given by another and must be changed
    Column("failures", Integer, nullable=False),  # wrong passwords since the last right one
    Column("locked_until", String(32), nullable=False),  # empty where not locked
    Column("changed", String(32), nullable=False),  # when the password was
)

# who is signed in at the service; not sessions, which are what is counted
sign_ins: Final = Table(
    "sign_ins",
    METADATA,
    Column("id", String(64), primary_key=True),  # SHA-256 of what the cookie holds
    Column("account", String(300), nullable=False),
    Column("display", String(120), nullable=False),
    Column("roles", String(80), nullable=False),
    Column("one_time", Boolean, nullable=False),
    Column("began", String(32), nullable=False),
    Column("seen", String(32), nullable=False),
    Index("ix_sign_ins_account", "account"),
)

audit: Final = Table(
    "audit",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),
    Column("action", String(1), nullable=False),  # as FHIR AuditEvent.action: C, R, U, D, E
    Column("outcome", String(2), nullable=False),  # as AuditEvent.outcome: 0, 4, 8, 12
    Column("agent", String(300), nullable=False),
    Column("role", String(80), nullable=False),
    Column("entity", String(300), nullable=False),
    Column("detail", String(400), nullable=False),
    Column("digest", String(80), nullable=False),  # over this entry and the digest before it
)
