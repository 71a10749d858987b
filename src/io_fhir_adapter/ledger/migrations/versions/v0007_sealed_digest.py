"""An approval keeps the digest of what was made of the approved body too: with its approver, and signed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the column; what was approved before left exactly as it was looked at."""
    op.add_column("approvals", sa.Column("sealed_digest", sa.String(length=80), nullable=False, server_default=""))
    op.execute("UPDATE approvals SET sealed_digest = digest WHERE verdict = 'approved'")


def downgrade() -> None:
    """Removes it."""
    op.drop_column("approvals", "sealed_digest")
