"""The audit trail's seals: who may seal and where the trail ends, the signed heads, the keys they are signed with.

The entries themselves stay as they are: their columns ``sequence`` and ``hash`` waited for this.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0003"
down_revision: Final = "0002"
branch_labels: Final = None
depends_on: Final = None

STRING: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "audit_sequencer",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("holder", STRING, nullable=True),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", STRING, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_audit_sequencer_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_sequencer")),
    )
    op.create_table(
        "audit_head",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("jws", STRING, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit_head")),
    )
    op.create_table(
        "signing_key",
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("public_key", STRING, nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_signing_key")),
    )
