"""One bridge for all cases of a worker, and one server that forks devices; each case has a device id of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.devicecrash.field import Field, devices
from tests.e2e.processes import Bridge
from tests.e2e.tenants import embedded_tenant


@pytest.fixture(scope="session")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    folder = tmp_path_factory.mktemp("devices")
    bridge = Bridge(tmp_path_factory.mktemp("bridge"), {"BRIDGE_ADMISSION": "open"})
    with devices(folder / "server.log") as server, bridge:
        tenant = embedded_tenant(bridge, tmp_path_factory.mktemp)
        yield Field(tenant, server, folder)
        tenant.eyes.close()
