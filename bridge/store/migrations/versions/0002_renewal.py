"""Indexes for what renewals leave to the sweep: certificates that wait, and certificates that were replaced."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0002"
down_revision: Final = "0001"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    """Add the indexes."""
    _partial("ix_issuance_not_after", "not_after", "state = 'pending' AND not_after IS NOT NULL")
    _partial("ix_issuance_superseded", "device", "state = 'superseded'")


def _partial(name: str, column: str, where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, "issuance", [column], sqlite_where=condition, postgresql_where=condition)
