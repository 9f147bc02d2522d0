"""The demonstration itself: what happens in which order, and what must have been observed for each line."""

from __future__ import annotations

import json
import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import Any, Final

from compose.demo.device import Device, name_of
from compose.demo.observers import Hawkbit, ThingsBoard, WireGuardFolder, log_in
from compose.demo.processes import Bridge, bridge, succeeded, until
from compose.demo.screen import Screen, Untrue
from compose.demo.tunnel import Tunnel, tunnel

_FINAL: Final = 1


def tell(screen: Screen, folder: Path, *, with_tunnel: bool = True) -> None:
    """Run the demonstration in an empty folder.

    :param with_tunnel: whether to raise a real tunnel where this machine allows one.
    :raises Untrue: a line was not true; every process is ended all the same.
    """
    screen.title("iot-bridge: a device's first boot, and its end, on the embedded stack")
    with ExitStack() as ending:
        with screen.working("starting the bridge"):
            road = ending.enter_context(tunnel(folder / "wireguard-server", wanted=with_tunnel))
            running = ending.enter_context(bridge(folder, road.variables if isinstance(road, Tunnel) else {}))
        _first_boot_to_the_end(screen, folder, running, road)
    screen.true("every process that was started has ended")


def _first_boot_to_the_end(screen: Screen, folder: Path, running: Bridge, road: Tunnel | str) -> None:
    screen.phase("The bridge", "iot-bridge serve, a process of its own")
    screen.true(f"listens at {running.url}; devices pin root SHA-256 {running.root_sha256}")
    device = Device(f"demo-{secrets.token_hex(3)}", folder / "device", running)
    succeeded("iot-bridge", "device", "register", device.id, "--data", running.data, cwd=folder)
    screen.true(f"the operator let {device.id} in: iot-bridge device register {device.id}")
    systems = Systems(*log_in(running), WireGuardFolder(running))
    address = _enroll(screen, device)
    _connect(screen, device, systems, address)
    _tunnel(screen, device, systems, address, road)
    _renew(screen, device)
    _intruder(screen, device)
    _decommission(screen, device, systems, road, address)


@dataclass(frozen=True, slots=True)
class Systems:
    """Where the outside systems are asked."""

    thingsboard: ThingsBoard
    hawkbit: Hawkbit
    wireguard: WireGuardFolder


def _enroll(screen: Screen, device: Device) -> str:
    screen.phase("Phase 1, enroll", "iot-enroll run, a process of its own; knows URL, fingerprint and id")
    ended = device.first_boot()
    events = ended.events
    if ended.status != 0 or "enrolled" not in events:
        raise Untrue(f"iot-enroll ended with {ended.status}: {ended.errors.strip()}")
    told = events["enrolled"]
    chain = device.chain()
    screen.true("issuer chain: " + " <- ".join(map(name_of, chain)))
    if name_of(chain[0]) != f"CN = {device.id}":
        raise Untrue(f"the certificate is for {name_of(chain[0])}")
    device.require_private_files()
    device.require_flag_last()
    flag = json.loads((device.folder / "enrolled").read_text(encoding="utf-8"))
    if flag["serial"] != str(chain[0].serial_number):
        raise Untrue("the flag names another certificate")
    until_day = f"{chain[0].not_valid_after_utc:%Y-%m-%d}"
    screen.true(
        f"flag `enrolled` written last; keys 0600; certificate until {until_day}; VPN address {told['address']}"
    )
    if not events["mqtt"]["accepted"]:
        raise Untrue(f"MQTT: {events['mqtt']['why']}")
    return str(told["address"])


def _connect(screen: Screen, device: Device, systems: Systems, address: str) -> None:
    screen.phase("Phase 2, connect", "MQTT over mutual TLS; ThingsBoard tells the bridge by webhook")
    seen: dict[str, Any] = {}

    def connected() -> bool:
        seen.update(systems.thingsboard.attributes(device.id) or {})
        return "lastConnectSeen" in seen

    until(connected, "the MQTT CONNECT")
    connect = seen["lastConnectSeen"]
    if (connect["clientId"], connect["subjectCn"]) != (device.id, device.id):
        raise Untrue(f"the broker saw {connect}")
    screen.true(
        f"the broker saw CONNECT: client {connect['clientId']}, {connect['protocol']},"
        f" leaf CN {connect['subjectCn']}, issuer {connect['issuerCn']}"
    )
    until(lambda: systems.hawkbit.target(device.id) is not None, "the hawkBit target")
    target = systems.hawkbit.target(device.id) or {}
    if target.get("controllerId") != device.id:
        raise Untrue(f"hawkBit answers {target}")
    screen.true(f"hawkBit target {target['controllerId']}, description {target['description']}")
    until(
        lambda: (systems.thingsboard.attributes(device.id) or {}).get("wireguard_ip") == address,
        f"wireguard_ip = {address} in ThingsBoard's attributes",
    )
    screen.true(f"ThingsBoard attribute wireguard_ip = {address}")


def _tunnel(screen: Screen, device: Device, systems: Systems, address: str, road: Tunnel | str) -> None:
    screen.phase("Phase 3, tunnel", "the WireGuard server reads its peers from the bridge")
    until(
        lambda: systems.wireguard.address(device.id) == address and systems.wireguard.applied(address),
        "the peer in cdm_peers.json and applied.json",
    )
    screen.true(f"cdm_peers.json: {device.id} = {address}; applied.json: the interface holds the peer")
    if isinstance(road, str):
        screen.remark(f"no tunnel raised here: {road}")
        return
    with screen.working("raising the device's wg0.conf in a network namespace"):
        road.sync(device.bridge)
        took = road.raise_device(device.folder / "wg0.conf")
        if not (road.reaches_server() and road.reaches_device(address)):
            raise Untrue("the tunnel is up, but no ping comes through")
    screen.true(
        f"wg-quick up with the device's wg0.conf: first handshake {took * 1000:.0f} ms later;"
        " pings pass both ways (wireguard-go, network namespaces)"
    )


def _renew(screen: Screen, device: Device) -> None:
    screen.phase("Later", "iot-enroll renew; by itself after two thirds of the certificate's life")
    old = device.chain()[0]
    with screen.working("renewing"):
        ended = device.renew()
    new = device.chain()[0]
    if ended.status != 0 or "renewed" not in ended.events or not ended.events["mqtt"]["accepted"]:
        raise Untrue(f"iot-enroll renew ended with {ended.status}: {ended.errors.strip()}")
    if new.serial_number == old.serial_number or new.public_key() == old.public_key():
        raise Untrue("the renewed certificate is not a new one with a new key")
    screen.true("a new key, proven by the old one; activated, then promoted; the broker accepts the new certificate")

    def states() -> dict[str, str]:
        shown = succeeded(
            "iot-bridge", "device", "show", device.id, "--json", "--data", device.bridge.data, cwd=device.folder
        )
        return {one["serial"]: one["state"] for one in json.loads(shown.output)["issuances"]}

    wanted = {str(old.serial_number): "revoked", str(new.serial_number): "current"}
    until(lambda: states() == wanted, "the old certificate's revocation")
    screen.true("the old certificate is revoked, after ThingsBoard had the new one")


def _intruder(screen: Screen, device: Device) -> None:
    screen.phase("An intruder", "comes with another key for the same id")
    status, problem = device.post_with_another_key()
    if (status, problem.get("code")) != (HTTPStatus.CONFLICT, "identity_exists"):
        raise Untrue(f"a second key was answered {status} {problem}")
    screen.true(f"refused: {status} {problem['code']}")


def _decommission(screen: Screen, device: Device, systems: Systems, road: Tunnel | str, address: str) -> None:
    screen.phase("The end", f"iot-bridge decommission {device.id} --wait")
    data = device.bridge.data
    began = monotonic()
    with screen.working("waiting until every door is seen shut"):
        ended = succeeded(
            "iot-bridge", "decommission", device.id, "--wait", "--json", "--data", data, cwd=device.folder
        )
    told = json.loads(ended.output)
    if told["state"] != "retired" or any(one["state"] != "revoked" for one in told["issuances"]):
        raise Untrue(f"after decommission: {told['state']}, {told['outstanding']} outstanding")
    doors = ", ".join(link["system"] for link in told["links"])
    screen.true(f"{told['state']} after {monotonic() - began:.1f} s; certificate revoked; seen shut: {doors}")
    _gone(systems, device, address)
    screen.true("read back: hawkBit target gone, ThingsBoard device gone, WireGuard peer gone")
    if isinstance(road, Tunnel):
        road.sync(device.bridge)
        if road.reaches_device(address):
            raise Untrue("the tunnel still carries packets")
        screen.true("the tunnel is dead: no ping passes any more")
    _refused(screen, device)


def _gone(systems: Systems, device: Device, address: str) -> None:
    if systems.hawkbit.target(device.id) is not None:
        raise Untrue("the hawkBit target is still there")
    if systems.thingsboard.attributes(device.id) is not None:
        raise Untrue("ThingsBoard still has the device")
    if systems.wireguard.address(device.id) is not None or systems.wireguard.applied(address):
        raise Untrue("the WireGuard peer is still there")


def _refused(screen: Screen, device: Device) -> None:
    with screen.working("the device tries again"):
        broker = device.first_boot(budget=2)
        fresh = device.first_boot(device.folder.with_name("device-wiped"))
    connect = broker.events.get("mqtt", {})
    if connect.get("accepted") is not False or "Not authorized" not in connect["why"]:
        raise Untrue(f"the broker's answer to a retired device: {connect}")
    screen.true("the device comes with its old certificate: MQTT CONNECT refused, Not authorized")
    told = broker.events.get("stopped", {})
    if broker.status != _FINAL or told.get("code") != "retired":
        raise Untrue(f"what a refused device learns from the bridge: exit {broker.status}, {told}")
    screen.true(f"it asks the bridge why, and stops for good: 403 {told['code']}")
    stopped = fresh.events.get("stopped", {})
    if fresh.status != _FINAL or stopped.get("code") != "retired":
        raise Untrue(f"the bridge's answer to a retired device: exit {fresh.status}, {stopped}")
    screen.true(f"the device comes wiped, with a new key: 403 {stopped['code']}")
