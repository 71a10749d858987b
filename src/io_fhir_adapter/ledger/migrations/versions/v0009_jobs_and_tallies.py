"""When the service does what, and the numbers that stay of what was removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "jobs",
        sa.Column("name", sa.String(length=24), nullable=False),
        sa.Column("rule", sa.String(length=120), nullable=False),
        sa.Column("due", sa.String(length=32), nullable=False),
        sa.Column("started", sa.String(length=32), nullable=False),
        sa.Column("finished", sa.String(length=32), nullable=False),
        sa.Column("outcome", sa.String(length=12), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_jobs")),
    )
    op.create_table(
        "tallied",
        sa.Column("what", sa.String(length=12), nullable=False),
        sa.Column("month", sa.String(length=10), nullable=False),
        sa.Column("said", sa.String(length=100), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("what", "month", "said", name=op.f("pk_tallied")),
    )


def downgrade() -> None:
    """Removes them."""
    op.drop_table("tallied")
    op.drop_table("jobs")
