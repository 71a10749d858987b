"""The key of facts is a unique index instead of a primary key, so that a first load can put it off."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_KEY = ["source", "resource_type", "id"]


def upgrade() -> None:
    """Makes the index; SQLite takes a primary key away only by writing the table anew."""
    if op.get_bind().dialect.name == "sqlite":
        _write_anew(is_key=False)
    else:
        op.drop_constraint("pk_facts", "facts", type_="primary")
        op.create_index("uq_facts_source_resource_type_id", "facts", _KEY, unique=True)


def downgrade() -> None:
    """Puts the primary key back."""
    if op.get_bind().dialect.name == "sqlite":
        _write_anew(is_key=True)
    else:
        op.drop_index("uq_facts_source_resource_type_id", table_name="facts")
        op.create_primary_key("pk_facts", "facts", _KEY)


def _write_anew(*, is_key: bool) -> None:
    """The table with its key as the primary key or as an index."""
    op.rename_table("facts", "facts_before")
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
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_facts_run"),
        *([sa.PrimaryKeyConstraint(*_KEY, name="pk_facts")] if is_key else []),
    )
    columns = "source, resource_type, id, patient, status, day, mapped, known_system, digest, data, run"
    op.execute(f"INSERT INTO facts ({columns}) SELECT {columns} FROM facts_before")  # noqa: S608
    op.drop_table("facts_before")  # and its indexes with it
    if not is_key:
        op.create_index("uq_facts_source_resource_type_id", "facts", _KEY, unique=True)
    op.create_index("ix_facts_resource_type_patient", "facts", ["resource_type", "patient"])
    op.create_index("ix_facts_tally", "facts", ["resource_type", "day", "status", "mapped", "known_system"])
    op.create_index("ix_facts_mapped", "facts", ["source", "patient"], sqlite_where=sa.text("mapped"))
