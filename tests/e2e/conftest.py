"""Tenants to enroll devices at, and what tests ask again and again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.background import Background
from tests.e2e.processes import Bridge
from tests.e2e.tenants import RealServers, Tenant, embedded_tenant, real_servers, real_tenant


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    made = Background()
    yield made
    made.close()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """A bridge on the embedded stack, shared by the tests of a module: each uses device ids of its own."""
    with Bridge(tmp_path_factory.mktemp("bridge"), {"BRIDGE_PATH_PREFIX": "/api"}) as bridge:
        tenant = embedded_tenant(bridge, tmp_path_factory.mktemp)
        yield tenant
        tenant.eyes.close()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, background: Background) -> Iterator[RealServers]:
    with real_servers(tmp_path_factory.mktemp("real"), background) as made:
        yield made


@pytest.fixture(scope="module")
def real(servers: RealServers, background: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """A bridge on real servers."""
    folder = tmp_path_factory.mktemp("bridge")
    more = {"BRIDGE_PATH_PREFIX": "/api"}
    with real_tenant(servers, background, folder, tmp_path_factory.mktemp, **more) as tenant:
        yield tenant


@pytest.fixture(scope="module", params=["embedded", pytest.param("real", marks=pytest.mark.real)])
def tenant(request: pytest.FixtureRequest) -> Tenant:
    found: Tenant = request.getfixturevalue(request.param)
    return found
