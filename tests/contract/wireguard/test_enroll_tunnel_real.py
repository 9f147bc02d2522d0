"""The agent's tunnel against a real server: wg-quick, wireguard-go, two network namespaces."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compose.real.wireguard_namespaces import Namespaces
from enroll.config import Settings, TunnelMode
from enroll.disk.files import PosixDisk
from enroll.keys import WireGuardKey
from enroll.names import BridgeUrl, DeviceId, Fingerprint
from enroll.trust.clock import SystemClock
from enroll.tunnel import Completed, LinuxMachine, Outcome, lower_tunnel, raise_tunnel
from enroll.tunnel.interface import Shown, show
from enroll.wgconf import TunnelConfig
from enroll.wire import WireGuardAnswer
from wireguard.addresses import parse_network
from wireguard.keys import PublicKey

pytestmark = pytest.mark.real


class NamespacedMachine(LinuxMachine):
    """A machine that consists of one network namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.ran: list[str] = []

    def has_interface(self, name: str) -> bool:
        return super().run(["ip", "-n", self.namespace, "link", "show", "dev", name]).status == 0

    def run(self, arguments: Sequence[str], stdin: str = "") -> Completed:
        self.ran.append(" ".join(arguments[:2]))
        return super().run(["ip", "netns", "exec", self.namespace, *arguments], stdin)


class Device:
    def __init__(self, namespaces: Namespaces, folder: Path) -> None:
        self.namespaces = namespaces
        self.machine = NamespacedMachine(namespaces.client.namespace)
        self.key = WireGuardKey.generate()
        self.config = folder / f"{namespaces.client_interface}.conf"
        self.settings = Settings(
            bridge=BridgeUrl.parse("https://bridge.example"),
            device_id=DeviceId("dev-1"),
            folder=folder,
            root_pins=(Fingerprint("0" * 64),),
            tunnel=TunnelMode.AUTO,
            networkd_dir=folder,
        )

    def leased(self, address: str, **changes: Any) -> None:
        fields = {
            "address": address,
            "server_public_key": str(self.namespaces.server_public_key),
            "endpoint": str(self.namespaces.endpoint),
            "allowed_ips": (str(self.namespaces.pool),),
            "persistent_keepalive": 1,
        }
        answer = WireGuardAnswer(**(fields | changes))
        self.config.write_bytes(TunnelConfig.from_answer(answer, self.key.public).render(self.key.private))
        self.config.chmod(0o600)
        if address:
            tool = self.namespaces.server_tool()
            tool.set_peer(PublicKey.parse(self.key.public), [parse_network(f"{address}/32")])

    def raised(self, seconds: float = 10.0) -> Outcome:
        ends = time.monotonic() + seconds
        self.machine.ran.clear()
        record: Any = SimpleNamespace(address="10.8.0.7")
        arguments = (self.machine, self.settings, self.config, record, self.key)
        return raise_tunnel(*arguments, lambda: ends - time.monotonic(), SystemClock(), PosixDisk())

    def lowered(self) -> str:
        return lower_tunnel(self.machine, self.settings.networkd_dir, self.config, self.key, PosixDisk())

    def shown(self) -> Shown:
        seen = show(self.machine, self.config.stem)
        assert seen is not None
        return seen

    def server_answers(self) -> bool:
        return self.namespaces.answers(self.namespaces.client, self.namespaces.pool.server_address)


@pytest.fixture
def device(namespaces: Namespaces, tmp_path: Path) -> Iterator[Device]:
    made = Device(namespaces, tmp_path)
    yield made
    made.lowered()


def test_a_tunnel_is_raised_and_its_handshake_is_seen(device: Device) -> None:
    device.leased("10.8.0.7")
    before = datetime.now().astimezone()
    outcome = device.raised()
    assert outcome.raised
    assert outcome.why.startswith("raised by wg-quick; handshake at")
    assert outcome.handshake is not None
    assert abs((outcome.handshake - before).total_seconds()) < 30
    assert device.server_answers()
    assert device.raised().why.startswith("was up already; handshake at")
    assert "wg-quick up" not in device.machine.ran


def test_a_changed_peer_keeps_the_session(device: Device) -> None:
    device.leased("10.8.0.7")
    first = device.raised()
    assert device.server_answers()
    device.leased("10.8.0.7", persistent_keepalive=21)
    again = device.raised()
    assert "brought into agreement" in again.why
    assert again.handshake == first.handshake
    assert device.shown().peers[0].keepalive == 21
    assert device.server_answers()
    assert "wg syncconf" in device.machine.ran
    device.raised()
    assert "wg syncconf" not in device.machine.ran


def test_another_address_and_other_routes_are_taken_up(device: Device) -> None:
    device.leased("10.8.0.7")
    device.raised()
    device.leased("10.8.0.9", allowed_ips=(str(device.namespaces.pool), "10.9.9.0/24"))
    outcome = device.raised()
    assert "raised again" in outcome.why
    assert outcome.handshake is not None
    assert device.server_answers()
    routes = device.machine.run(["ip", "route", "show", "dev", device.config.stem]).output
    assert "10.9.9.0/24" in routes
    assert "was up already" in device.raised().why


def test_a_server_with_another_key_never_shakes_hands(device: Device) -> None:
    device.leased("10.8.0.7", server_public_key=WireGuardKey.generate().public)
    outcome = device.raised(3.0)
    assert outcome.raised
    assert outcome.handshake is None
    assert "no handshake seen" in outcome.why
    device.leased("10.8.0.7")
    assert device.raised().handshake is not None
    assert device.server_answers()


def test_a_strangers_interface_is_left_as_it_is(device: Device) -> None:
    device.leased("10.8.0.7")
    device.raised()
    ours, device.key = device.key, WireGuardKey.generate()
    before = device.shown()
    assert "of somebody else" in device.raised().why
    assert "is not this agent's" in device.lowered()
    assert device.shown().public_key == before.public_key
    device.key = ours


def test_what_is_taken_down_is_gone(device: Device) -> None:
    assert device.lowered() == "there is no tunnel"
    device.leased("10.8.0.7")
    device.raised()
    assert device.lowered() == "taken down by wg-quick"
    assert not device.machine.has_interface(device.config.stem)
    assert device.raised().handshake is not None


def test_a_name_that_cannot_be_looked_up_leaves_nothing_half_made(device: Device) -> None:
    device.leased("10.8.0.7", endpoint="vpn.invalid:51820")
    outcome = device.raised()
    assert not outcome.raised
    assert "wg-quick up failed" in outcome.why
    assert not device.machine.has_interface(device.config.stem)
    device.leased("10.8.0.7")
    assert device.raised().handshake is not None
