"""Systems that are away, a database that does not take writes, a VPN without addresses: nothing lost, nothing half."""

from __future__ import annotations

import json
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e.background import Background
from tests.e2e.observers import open_eyes
from tests.e2e.processes import Bridge, wait_for
from tests.e2e.requests import csr
from tests.e2e.standins import USER, StandIns, standins
from tests.e2e.tenants import Tenant, embedded_tenant, signed_by_embedded_ca
from wireguard.keys import PrivateKey

LINKS = ("thingsboard", "hawkbit")


def link(tenant: Tenant, device: str, system: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in tenant.bridge.show(device)["links"] if one["system"] == system)
    return found


def failing(tenant: Tenant, device: str, system: str) -> dict[str, Any]:
    """The link once its last error is kept."""

    def look() -> dict[str, Any]:
        found = link(tenant, device, system)
        assert found["state"] == "failing", found
        return found

    return wait_for(look)


def agreed(tenant: Tenant, device: str, system: str) -> bool:
    return bool(link(tenant, device, system)["state"] == "agreed")


# -- outside systems -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory, background: Background) -> Iterator[StandIns]:
    with standins(tmp_path_factory.mktemp("systems"), background) as made:
        yield made


@pytest.fixture(scope="module")
def outside(systems: StandIns, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """A bridge whose systems can be taken away; it has no VPN."""
    with ExitStack() as stack:
        bridge = stack.enter_context(Bridge(tmp_path_factory.mktemp("bridge"), systems.variables()))
        systems.point_webhook(bridge, stack)
        eyes = open_eyes(bridge, USER, USER)
        stack.callback(eyes.close)
        root = systems.ca.anchor.root_pem
        yield Tenant(bridge, root, eyes, bridge.data, systems.signed, tmp_path_factory.mktemp)


def test_enrollment_goes_on_without_thingsboard(outside: Tenant, systems: StandIns) -> None:
    device = outside.device("away", registered=False)
    systems.take_thingsboard_away()
    try:
        boot = device.run(budget=1)
        kept = failing(outside, device.id, "thingsboard")
    finally:
        systems.bring_thingsboard_back()

    # Phase 1 is done; only the broker is not there yet.
    assert boot.event("enrolled")["generation"] == 1
    assert (boot.status, boot.event("mqtt")["accepted"]) == (75, False)
    assert "ThingsBoard" in kept["last_error"]
    assert kept["next_at"] is not None
    wait_for(lambda: agreed(outside, device.id, "thingsboard"))
    again = device.run()
    assert again.status == 0, again.output
    assert again.event("already_enrolled")["serial"] == boot.event("enrolled")["serial"]
    wait_for(lambda: outside.eyes.hawkbit.target(device.id))


def test_a_connect_without_hawkbit_is_caught_up_with(outside: Tenant, systems: StandIns) -> None:
    device = outside.device("late", registered=False)
    port = systems.take_hawkbit_away()
    try:
        boot = device.run()
        kept = failing(outside, device.id, "hawkbit")
        connected = outside.bridge.show(device.id)["first_connected_at"]
    finally:
        systems.bring_hawkbit_back(port)

    assert boot.status == 0, boot.errors
    assert "hawkBit" in kept["last_error"]
    assert connected is not None
    target = wait_for(lambda: outside.eyes.hawkbit.target(device.id))
    assert target["description"].startswith("iot-bridge:")
    wait_for(lambda: all(agreed(outside, device.id, one) for one in LINKS))


def test_a_decommission_while_all_are_away_is_kept_and_done(outside: Tenant, systems: StandIns) -> None:
    device = outside.device("orphan", registered=False)
    assert device.run().status == 0
    wait_for(lambda: outside.eyes.hawkbit.target(device.id))
    systems.take_thingsboard_away()
    port = systems.take_hawkbit_away()
    try:
        told = outside.bridge.command("decommission", device.id, "--wait", "--timeout", "1", "--json")
        refused = device.wiped().run()
    finally:
        systems.bring_thingsboard_back()
        systems.bring_hawkbit_back(port)

    assert told.status == 75
    assert json.loads(told.output)["state"] == "retiring"
    assert set(json.loads(told.output)["outstanding"]) == set(LINKS)
    assert refused.event("stopped")["code"] == "retired"
    wait_for(lambda: outside.bridge.show(device.id)["state"] == "retired", 40)
    assert outside.eyes.hawkbit.target(device.id) is None
    assert outside.eyes.thingsboard.attributes(device.id) is None


def test_somebody_elses_target_is_left_alone(outside: Tenant, systems: StandIns) -> None:
    device = outside.device("taken", registered=False)
    made = outside.eyes.hawkbit.http.post(
        "/rest/v1/targets", json=[{"controllerId": device.id, "name": "theirs", "description": "by hand"}]
    )
    assert made.status_code == 201

    assert device.run().status == 0

    wait_for(lambda: link(outside, device.id, "hawkbit")["state"] == "foreign")
    kept = outside.eyes.hawkbit.target(device.id)
    assert kept is not None
    assert (kept["name"], kept["description"]) == ("theirs", "by hand")


# -- the bridge's own limits -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cramped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """An embedded bridge whose VPN has one address for devices."""
    with Bridge(tmp_path_factory.mktemp("bridge"), {"WG_SUBNET": "10.9.0.0/30"}) as bridge:
        tenant = embedded_tenant(bridge, tmp_path_factory.mktemp)
        yield tenant
        tenant.eyes.close()


@pytest.fixture(scope="module")
def http(cramped: Tenant) -> Iterator[httpx.Client]:
    with cramped.bridge.client(cramped.root_pem) as client:
        yield client


def enroll(http: httpx.Client, name: str, key: Any = None, wg_key: PrivateKey | None = None) -> httpx.Response:
    body = {"csr_pem": csr(name, key)} | ({"wg_public_key": str(wg_key.public_key)} if wg_key else {})
    return http.post(f"/devices/{name}/enroll", json=body)


def test_the_last_address_is_given_once(cramped: Tenant, http: httpx.Client) -> None:
    one, other = cramped.device("one").id, cramped.device("other").id
    key = ec.generate_private_key(ec.SECP256R1())
    assert enroll(http, one, wg_key=PrivateKey.generate()).json()["wg"]["address"] == "10.9.0.2/32"
    signed = signed_by_embedded_ca(cramped.bridge)

    full = enroll(http, other, key, PrivateKey.generate())

    assert (full.status_code, full.json()["code"]) == (503, "pool_empty")
    assert int(full.headers["retry-after"]) > 0
    assert signed_by_embedded_ca(cramped.bridge) == signed
    shown = cramped.bridge.show(other)
    assert (shown["state"], shown["issuances"], shown["address"]) == ("registered", [], None)
    # Retired is not free: the address rests first.
    cramped.bridge.order("decommission", one, "--wait")
    assert enroll(http, other, key, PrivateKey.generate()).json()["code"] == "pool_empty"
    # Without a tunnel there is nothing to wait for.
    assert enroll(http, other, key).status_code == 201


@contextmanager
def locked(bridge: Bridge) -> Iterator[None]:
    """Another program holds the database's write lock."""
    with closing(sqlite3.connect(bridge.data / "registry.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def full_disk(bridge: Bridge) -> Iterator[None]:
    """No file of the bridge's process grows any more, as on a medium that is full."""
    assert bridge.pid is not None
    before = resource.prlimit(bridge.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(bridge.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(bridge.pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("trouble", [locked, full_disk])
def test_a_database_that_takes_no_writes(cramped: Tenant, http: httpx.Client, trouble: Any) -> None:
    name, key = cramped.device("write").id, ec.generate_private_key(ec.SECP256R1())
    signed = signed_by_embedded_ca(cramped.bridge)

    with trouble(cramped.bridge):
        told = enroll(http, name, key)
        assert http.get("/healthz").status_code == 200

    assert (told.status_code, told.json()["code"]) == (503, "store_unavailable"), told.text
    assert signed_by_embedded_ca(cramped.bridge) == signed  # nothing is signed that could not be written down
    assert cramped.bridge.show(name)["issuances"] == []
    assert enroll(http, name, key).status_code == 201
    assert [one["state"] for one in cramped.bridge.show(name)["issuances"]] == ["current"]
