"""The steps by which a database was brought to the present schema; one module a version."""

from __future__ import annotations

from typing import Final

HEAD: Final = "0003"
"""The version that this code speaks. A test compares it with the newest step, so that starting needs no Alembic."""
