"""One stage for all scenarios of a database: what outlives the victims is started once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from compose.real.postgresql import RealPostgresql
from tests.crash.stage import Stage, raised


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealPostgresql]:
    with RealPostgresql() as server:
        yield server


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)],
)
async def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    cluster = None if request.param == "sqlite" else request.getfixturevalue("cluster")
    async with raised(tmp_path_factory.mktemp("stage"), cluster) as running:
        yield running
