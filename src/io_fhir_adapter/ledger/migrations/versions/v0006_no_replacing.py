"""The chain and the audit refuse what SQLite calls replacing: an insert that takes the place of a row.

An insert with ``OR REPLACE`` removes the row in its way without firing the triggers against removal.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TABLES = ("chain", "audit")


def upgrade() -> None:
    """Makes the triggers; PostgreSQL has no such insert."""
    if op.get_bind().dialect.name != "sqlite":
        return
    for table in _TABLES:
        taken = f"EXISTS (SELECT 1 FROM {table} WHERE number = NEW.number)"  # noqa: S608 - a name of our own
        refuse = f"SELECT RAISE(ABORT, 'the {table} is only ever added to')"
        op.execute(f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN {taken} BEGIN {refuse}; END")


def downgrade() -> None:
    """Removes the triggers."""
    if op.get_bind().dialect.name == "sqlite":
        for table in _TABLES:
            op.execute(f"DROP TRIGGER {table}_no_replace")
