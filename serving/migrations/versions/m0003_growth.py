"""A log that outgrows four bytes, and names of living keys that the database itself keeps apart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

LIVING = sa.text("revoked_at IS NULL")


def upgrade() -> None:
    op.create_index(
        "uq_keys_living_name", "keys", ["name"], unique=True,
        sqlite_where=LIVING, postgresql_where=LIVING,
    )  # fmt: skip
    _number("BIGINT")


def downgrade() -> None:
    _number("INTEGER")
    op.drop_index("uq_keys_living_name", "keys")


def _number(kind: str) -> None:
    if op.get_bind().dialect.name == "postgresql":  # SQLite's numbers have eight bytes anyway
        op.execute(f"ALTER TABLE audit ALTER COLUMN id TYPE {kind}")
        op.execute(f"ALTER SEQUENCE audit_id_seq AS {kind}")
