"""What reviewers write into the cases' forms and sign, and what an approver says of a submission."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "reviews",
        sa.Column("draw", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("answers", sa.LargeBinary(), nullable=True),
        sa.Column("reviewer", sa.String(length=255), nullable=False),
        sa.Column("saved", sa.String(length=32), nullable=False),
        sa.Column("signed", sa.String(length=32), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("returned_by", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["draw"], ["draws.id"], name=op.f("fk_reviews_draw")),
        sa.PrimaryKeyConstraint("draw", "number", name=op.f("pk_reviews")),
    )
    op.create_table(
        "signatures",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("draw", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("account", sa.String(length=255), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.ForeignKeyConstraint(["draw"], ["draws.id"], name=op.f("fk_signatures_draw")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signatures")),
    )
    op.create_index("ix_signatures_draw_number", "signatures", ["draw", "number"], unique=False)
    op.create_table(
        "approvals",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("identifier", sa.String(length=80), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("account", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("verdict", sa.String(length=12), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["identifier"], ["outbox.identifier"], name=op.f("fk_approvals_identifier")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approvals")),
    )
    op.create_index("ix_approvals_identifier", "approvals", ["identifier"], unique=False)
    op.create_table(
        "cleared",
        sa.Column("draw", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("what", sa.String(length=80), nullable=False),
        sa.Column("account", sa.String(length=255), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["draw"], ["draws.id"], name=op.f("fk_cleared_draw")),
        sa.PrimaryKeyConstraint("draw", "number", "what", name=op.f("pk_cleared")),
    )
