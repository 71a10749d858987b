"""The first schema: runs, facts, stale, decisions, cursors, quarantine, draws, cases, outbox, receipts, state."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "decisions",
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("date", sa.String(length=10), nullable=False),
        sa.Column("category", sa.String(length=24), nullable=False),
        sa.Column("decision", sa.String(length=12), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("patient", "number", name=op.f("pk_decisions")),
    )
    op.create_index("ix_decisions_date", "decisions", ["date"], unique=False)
    op.create_index("ix_decisions_decision_date", "decisions", ["decision", "date"], unique=False)
    op.create_table(
        "draws",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("programme", sa.String(length=40), nullable=False),
        sa.Column("period", sa.String(length=32), nullable=False),
        sa.Column("window_start", sa.String(length=10), nullable=False),
        sa.Column("window_end", sa.String(length=10), nullable=False),
        sa.Column("committed", sa.String(length=32), nullable=False),
        sa.Column("commitment", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("frame_size", sa.Integer(), nullable=False),
        sa.Column("nonce", sa.String(length=64), nullable=False),
        sa.Column("nonce_origin", sa.String(length=12), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_draws")),
    )
    op.create_index("ix_draws_programme_period", "draws", ["programme", "period"], unique=True)
    op.create_table(
        "outbox",
        sa.Column("identifier", sa.String(length=80), nullable=False),
        sa.Column("period", sa.String(length=32), nullable=False),
        sa.Column("created", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt", sa.String(length=32), nullable=False),
        sa.Column("lease_until", sa.String(length=32), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("identifier", name=op.f("pk_outbox")),
    )
    op.create_index("ix_outbox_state_next_attempt", "outbox", ["state", "next_attempt"], unique=False)
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("started", sa.String(length=32), nullable=False),
        sa.Column("finished", sa.String(length=32), nullable=True),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_table(
        "stale",
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("patient", name=op.f("pk_stale")),
    )
    op.create_table(
        "state",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_state")),
    )
    op.create_table(
        "cases",
        sa.Column("draw", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("date", sa.String(length=10), nullable=False),
        sa.Column("category", sa.String(length=24), nullable=False),
        sa.Column("procedures", sa.Text(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=True),
        sa.Column("sources", sa.Text(), nullable=False),
        sa.Column("missing", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["draw"], ["draws.id"], name=op.f("fk_cases_draw")),
        sa.PrimaryKeyConstraint("draw", "number", name=op.f("pk_cases")),
    )
    op.create_table(
        "cursors",
        sa.Column("source", sa.String(length=40), nullable=False),
        sa.Column("resource_type", sa.String(length=24), nullable=False),
        sa.Column("value", sa.String(length=64), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_cursors_run")),
        sa.PrimaryKeyConstraint("source", "resource_type", name=op.f("pk_cursors")),
    )
    op.create_table(
        "facts",
        sa.Column("source", sa.String(length=40), nullable=False),
        sa.Column("resource_type", sa.String(length=24), nullable=False),
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("status", sa.String(length=24), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("mapped", sa.Boolean(), nullable=False),
        sa.Column("known_system", sa.Boolean(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_facts_run")),
        sa.PrimaryKeyConstraint("source", "resource_type", "id", name=op.f("pk_facts")),
    )
    op.create_index(
        "ix_facts_mapped",
        "facts",
        ["source", "patient"],
        unique=False,
        sqlite_where=sa.column("mapped"),
        postgresql_where=sa.column("mapped"),
    )
    op.create_index(
        "ix_facts_tally", "facts", ["resource_type", "day", "status", "mapped", "known_system"], unique=False
    )
    op.create_index("ix_facts_resource_type_patient", "facts", ["resource_type", "patient"], unique=False)
    op.create_table(
        "quarantine",
        sa.Column("source", sa.String(length=40), nullable=False),
        sa.Column("resource_type", sa.String(length=24), nullable=False),
        sa.Column("position", sa.String(length=400), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("code", sa.String(length=16), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_quarantine_run")),
        sa.PrimaryKeyConstraint("source", "resource_type", "position", name=op.f("pk_quarantine")),
    )
    op.create_table(
        "receipts",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("identifier", sa.String(length=80), nullable=False),
        sa.Column("received", sa.String(length=32), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(length=12), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["identifier"], ["outbox.identifier"], name=op.f("fk_receipts_identifier")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_receipts")),
    )
    op.create_index("ix_receipts_identifier", "receipts", ["identifier"], unique=False)


def downgrade() -> None:
    """Removes the tables."""
    op.drop_index("ix_receipts_identifier", table_name="receipts")
    op.drop_table("receipts")
    op.drop_table("quarantine")
    op.drop_index("ix_facts_resource_type_patient", table_name="facts")
    op.drop_index("ix_facts_tally", table_name="facts")
    op.drop_index("ix_facts_mapped", table_name="facts")
    op.drop_table("facts")
    op.drop_table("cursors")
    op.drop_table("cases")
    op.drop_table("state")
    op.drop_table("stale")
    op.drop_table("runs")
    op.drop_index("ix_outbox_state_next_attempt", table_name="outbox")
    op.drop_table("outbox")
    op.drop_index("ix_draws_programme_period", table_name="draws")
    op.drop_table("draws")
    op.drop_index("ix_decisions_decision_date", table_name="decisions")
    op.drop_index("ix_decisions_date", table_name="decisions")
    op.drop_table("decisions")
