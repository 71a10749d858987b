"""The chain of draws; a draw may be superseded, a case leaves with a reason."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_REFUSED = "the chain is only ever added to"


def upgrade() -> None:
    """Makes the table, which refuses to be changed, and the columns."""
    op.create_table(
        "chain",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_chain")),
    )
    op.add_column("draws", sa.Column("frame", sa.LargeBinary(), nullable=False, server_default="{}"))
    op.add_column("draws", sa.Column("announced", sa.String(length=32), nullable=False, server_default=""))
    op.add_column("draws", sa.Column("superseded", sa.String(length=32), nullable=False, server_default=""))
    op.add_column("cases", sa.Column("reason", sa.String(length=32), nullable=False, server_default=""))
    op.drop_index("ix_draws_programme_period", table_name="draws")
    op.create_index("ix_draws_programme_period", "draws", ["programme", "period"], unique=False)
    if op.get_bind().dialect.name == "sqlite":
        for act in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER chain_no_{act.lower()} BEFORE {act} ON chain "
                f"BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END"
            )
    elif op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION chain_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{_REFUSED}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER chain_only_added_to BEFORE UPDATE OR DELETE ON chain "
            "FOR EACH ROW EXECUTE FUNCTION chain_refuse()"
        )
