"""What the accreditation body says of a submission that it has accepted, and when it was last asked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table and the column."""
    op.add_column("outbox", sa.Column("asked", sa.String(length=32), nullable=False, server_default=""))
    op.create_table(
        "verdicts",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("identifier", sa.String(length=80), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("seen", sa.String(length=32), nullable=False),
        sa.Column("task", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["identifier"], ["outbox.identifier"], name=op.f("fk_verdicts_identifier")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verdicts")),
    )
    op.create_index("ix_verdicts_identifier", "verdicts", ["identifier"], unique=False)


def downgrade() -> None:
    """Removes them."""
    op.drop_table("verdicts")
    op.drop_column("outbox", "asked")
