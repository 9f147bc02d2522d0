"""An empty database of each kind, for the tests that hold both to one behaviour."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.real.postgresql import RealPostgresql


@pytest.fixture(scope="session")
def cluster() -> Iterator[RealPostgresql]:
    with RealPostgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | Path]:
    """An empty database: a path, or a URL."""
    if request.param == "sqlite":
        yield tmp_path / "registry.db"
        return
    server: RealPostgresql = request.getfixturevalue("cluster")
    url = server.create_database()
    yield url
    server.drop_database(url)
