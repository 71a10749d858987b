"""Export jobs under way, so that a run that was cut off goes on with them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "bulk_jobs",
        sa.Column("source", sa.String(length=40), nullable=False),
        sa.Column("purpose", sa.String(length=12), nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("status_url", sa.Text(), nullable=False),
        sa.Column("started", sa.String(length=32), nullable=False),
        sa.Column("asked", sa.String(length=64), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("ingested", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("source", "purpose", name=op.f("pk_bulk_jobs")),
    )


def downgrade() -> None:
    """Removes the table."""
    op.drop_table("bulk_jobs")
