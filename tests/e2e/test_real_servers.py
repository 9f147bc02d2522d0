"""Three phases and the end on step-ca, hawkBit, Mosquitto, WireGuard and PostgreSQL as others made them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compose.real.postgresql import RealPostgresql
from tests.e2e.background import Background
from tests.e2e.broker import Mosquitto
from tests.e2e.processes import Device, wait_for
from tests.e2e.tenants import RealServers, Tenant, real_tenant

pytestmark = pytest.mark.real


@pytest.fixture(params=["sqlite", "postgresql"])
def on_database(
    request: pytest.FixtureRequest,
    servers: RealServers,
    background: Background,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Tenant]:
    """A bridge on real servers, with either database."""
    if request.param == "sqlite":
        with real_tenant(servers, background, tmp_path, tmp_path_factory.mktemp) as tenant:
            yield tenant
        return
    with RealPostgresql() as cluster:
        more = {"BRIDGE_DATABASE_URL": cluster.create_database()}
        with real_tenant(servers, background, tmp_path, tmp_path_factory.mktemp, **more) as tenant:
            yield tenant


@pytest.fixture
def mosquitto(servers: RealServers, tmp_path: Path) -> Iterator[Mosquitto]:
    made = Mosquitto(servers, tmp_path / "mosquitto")
    with made.broker:
        yield made


@pytest.fixture
def wg_quick(servers: RealServers) -> Iterator[Callable[[Device], None]]:
    """Brings up a device's `wg0.conf` in the client's namespace; takes it down in the end."""
    raised: list[Path] = []

    def bring_up(device: Device) -> None:
        raised.append(servers.tunnel.bring_up(device.path("wg0.conf").read_text()))

    yield bring_up
    for path in raised:
        servers.tunnel.take_down(path)


def test_three_phases_and_the_end(
    on_database: Tenant, servers: RealServers, mosquitto: Mosquitto, wg_quick: Callable[[Device], None]
) -> None:
    tenant, road = on_database, servers.tunnel
    device = tenant.device("real")

    # Phase 1: step-ca's strict profile, our serial, the chain up to the pinned root; OpenSSL is the referee.
    boot = device.run()
    assert boot.status == 0, boot.errors
    told = boot.event("enrolled")
    shown = tenant.bridge.show(device.id)
    assert [one["serial"] for one in shown["issuances"]] == [str(device.serial)] == [told["serial"]]
    assert openssl_verify(device, servers).returncode == 0

    # Phase 2: the connect event, then hawkBit's target and ThingsBoard's attributes, read back.
    target = wait_for(lambda: tenant.eyes.hawkbit.target(device.id))
    attributes = wait_for(lambda: tenant.eyes.thingsboard.attributes(device.id) or {})
    wait_for(lambda: "wireguard_ip" in (tenant.eyes.thingsboard.attributes(device.id) or {}))
    assert target["description"] == f"iot-bridge:{attributes['iot_bridge']}"
    assert boot.event("mqtt")["accepted"] is True

    # The same certificate at a broker that checks chain and CRL.
    published = mosquitto.publish(device)
    assert published.returncode == 0, (published.stderr, mosquitto.broker.log)
    assert f"u'{device.id}'" in mosquitto.broker.log

    # Phase 3: packets both ways through the device's own wg0.conf.
    address = told["address"]
    wait_for(lambda: f"{address}/32" in tenant.applied())
    wg_quick(device)
    assert road.answers(road.client, road.pool.server_address)
    assert road.answers(road.server, address)
    assert peers(servers) == {f"{address}/32"}

    ended = tenant.bridge.command("decommission", device.id, "--wait", "--json")

    assert ended.status == 0, ended.errors
    assert json.loads(ended.output)["state"] == "retired"
    assert peers(servers) == set()
    assert not road.answers(road.server, address, attempts=3)
    assert not road.answers(road.client, road.pool.server_address, attempts=3)
    assert tenant.eyes.hawkbit.target(device.id) is None
    assert device.serial in servers.revoked()
    revoked = openssl_verify(device, servers)
    assert revoked.returncode != 0
    assert "certificate revoked" in revoked.stdout + revoked.stderr
    # Mosquitto knows nothing yet: the list that it reads decides, from the next connection on.
    assert mosquitto.publish(device).returncode == 0
    mosquitto.read_crl_again()
    assert mosquitto.publish(device).returncode != 0
    assert "certificate verify failed" in mosquitto.broker.log
    other = tenant.booted("other")
    published = mosquitto.publish(other)
    assert published.returncode == 0, (published.stderr, mosquitto.broker.log)
    assert device.wiped().run().event("stopped")["code"] == "retired"


def openssl_verify(device: Device, servers: RealServers) -> subprocess.CompletedProcess[str]:
    """Judge leaf and chain, with step-ca's own revocation list."""
    crl = device.folder.with_name("crl.pem")
    crl.write_bytes(servers.crl_pem())
    trust = ["-CAfile", device.path("root.crt"), "-untrusted", device.path("ca-chain.crt"), "-no-CApath"]
    # step-ca's list says for which address it is; extended support tells OpenSSL that this one is meant.
    options = ["-purpose", "sslclient", "-crl_check", "-extended_crl", "-CRLfile", crl]
    command = ["openssl", "verify", *options, *trust, device.path("device.crt")]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def peers(servers: RealServers) -> set[str]:
    """Allowed addresses of the peers that `wg show` prints in the server's namespace."""
    return {str(network) for peer in servers.tunnel.server_tool().dump().peers for network in peer.allowed_ips}
