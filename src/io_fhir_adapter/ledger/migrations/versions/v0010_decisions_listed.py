"""Indexes for looking through the decisions: one counts them by what they have in common, one lists them by date."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes both; the second begins with the date and takes the place of the one that held it alone."""
    op.create_index("ix_decisions_alike", "decisions", ["category", "decision", "reason", "date"], unique=False)
    op.create_index(
        "ix_decisions_listed", "decisions", ["date", "patient", "number", "category", "decision", "reason"],
        unique=False,
    )  # fmt: skip
    op.drop_index("ix_decisions_date", table_name="decisions")


def downgrade() -> None:
    """Puts the earlier one back."""
    op.create_index("ix_decisions_date", "decisions", ["date"], unique=False)
    op.drop_index("ix_decisions_listed", table_name="decisions")
    op.drop_index("ix_decisions_alike", table_name="decisions")
