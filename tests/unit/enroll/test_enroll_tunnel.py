"""Phase 3 on machines of every kind; no interface is touched."""

from __future__ import annotations

import ipaddress
import os
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from enroll.config import Settings, TunnelMode
from enroll.disk.files import PosixDisk
from enroll.keys import WireGuardKey
from enroll.names import BridgeUrl, DeviceId, Fingerprint
from enroll.tunnel import Completed, LinuxMachine, Outcome, lower_tunnel, raise_tunnel
from enroll.tunnel import machine as machine_module
from enroll.tunnel.interface import parse
from enroll.wgconf import TunnelConfig
from enroll.wire import WireGuardAnswer

OWN, OLD, SERVER, OTHER = (WireGuardKey.generate() for _ in range(4))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PEER = {"key": SERVER.public, "endpoint": "192.0.2.1:51820", "routes": "10.8.0.0/24", "handshake": 0, "keepalive": "25"}


def config(**changes: Any) -> TunnelConfig:
    fields = {
        "address": "10.8.0.7",
        "server_public_key": SERVER.public,
        "endpoint": "192.0.2.1:51820",
        "allowed_ips": ("10.8.0.0/24",),
        "persistent_keepalive": 25,
    }
    return TunnelConfig.from_answer(WireGuardAnswer(**(fields | changes)), OWN.public)


class Clock:
    def __init__(self) -> None:
        self.moment, self.slept = NOW, 0.0

    def now(self) -> datetime:
        return self.moment + timedelta(seconds=self.slept)

    def monotonic(self) -> float:
        return self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


class FakeMachine:
    """A root machine with wireguard-tools and systemd, whose one interface behaves as the real commands do."""

    def __init__(self, clock: Clock) -> None:
        self.root, self.systemd, self.networkd_makes_interfaces = True, True, True
        self.missing: set[str] = set()
        self.interface: dict[str, Any] | None = None
        self.ran: list[str] = []
        self.fails: dict[str, Completed] = {}
        self.answers_after: float | None = 1.0
        self.group_id: int | None = os.getegid()
        self.given: list[tuple[Path, int]] = []
        self.clock = clock

    def is_root(self) -> bool:
        return self.root

    def find(self, command: str) -> str | None:
        return None if command in self.missing else f"/usr/bin/{command}"

    def has_interface(self, name: str) -> bool:
        return self.interface is not None and name == "wg0"

    def runs_systemd(self) -> bool:
        return self.systemd

    def group(self, name: str) -> int | None:
        assert name == "systemd-network"
        return self.group_id

    def give(self, path: Path, group: int) -> None:
        self.given.append((path, group))

    def have(self, *, key: str = OWN.public, address: str = "10.8.0.7/32", **peer: Any) -> None:
        self.interface = {"key": key, "address": address, "peer": PEER | peer}

    def run(self, arguments: Sequence[str], stdin: str = "") -> Completed:
        assert OWN.private not in " ".join(arguments)
        command = " ".join(arguments[:2])
        self.ran.append(command)
        if command in self.fails:
            return self.fails[command]
        match command:
            case "wg-quick up" | "networkctl reload":
                if self.interface is None and (command.startswith("wg") or self.networkd_makes_interfaces):
                    self.have()
                    self.clock_started = self.clock.slept
            case "wg-quick down" | "networkctl delete":
                assert self.interface is not None
                self.interface = None
            case "wg syncconf":
                assert arguments[3] == "/dev/stdin"
                assert self.interface is not None
                lines = dict(line.split(" = ") for line in stdin.splitlines() if " = " in line)
                self.interface["peer"]["key"] = lines["PublicKey"]
                self.interface["key"] = OWN.public if lines["PrivateKey"] == OWN.private else "?"
            case "wg show":
                return self._dump()
            case "ip -oneline":
                assert self.interface is not None
                address = self.interface["address"]
                return Completed(0, f"5: wg0    inet {address} scope global wg0\\       valid_lft forever\n", "")
            case _:
                raise AssertionError(command)
        return Completed(0, "", "")

    def _dump(self) -> Completed:
        if self.interface is None:
            return Completed(1, "", "Unable to access interface: No such device")
        peer = self.interface["peer"]
        if peer["handshake"] == 0 and self.answers_after is not None and self.clock.slept >= self.answers_after:
            peer["handshake"] = int(self.clock.now().timestamp())
        words = [
            peer["key"],
            "(none)",
            peer["endpoint"],
            peer["routes"],
            str(peer["handshake"]),
            "9",
            "9",
            peer["keepalive"],
        ]
        return Completed(0, f"secret\t{self.interface['key']}\t51000\toff\n" + "\t".join(words) + "\n", "")


class World:
    """One device with its folder, its machine and its settings."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.machine = FakeMachine(self.clock)
        self.config = folder / "wg0.conf"
        self.networkd = folder / "network"
        self.networkd.mkdir()
        self.settings = Settings(
            bridge=BridgeUrl.parse("https://bridge.example"),
            device_id=DeviceId("dev-1"),
            folder=folder,
            root_pins=(Fingerprint("0" * 64),),
            networkd_dir=self.networkd,
        )
        self.wireguard: WireGuardKey | None = OWN
        self.address: str | None = "10.8.0.7"
        self.write(config())

    def write(self, wanted: TunnelConfig) -> None:
        self.config.write_bytes(wanted.render(OWN.private))

    def mode(self, mode: TunnelMode) -> None:
        self.settings = replace(self.settings, tunnel=mode)

    def raised(self, disk: Any = None) -> Outcome:
        self.machine.ran.clear()
        began = self.clock.slept
        record: Any = SimpleNamespace(address=self.address)
        return raise_tunnel(
            self.machine,
            self.settings,
            self.config,
            record,
            self.wireguard,
            lambda: 30.0 - (self.clock.slept - began),
            self.clock,
            disk or PosixDisk(),
        )

    def did(self) -> list[str]:
        """The commands that change something."""
        return [c for c in self.machine.ran if c not in {"wg show", "ip -oneline"}]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_it_is_raised_and_its_handshake_is_observed(world: World) -> None:
    outcome = world.raised()
    assert outcome.raised
    assert outcome.why == "raised by wg-quick; handshake at 2026-01-01T00:00:01Z"
    assert outcome.handshake == NOW + timedelta(seconds=1)
    assert world.did() == ["wg-quick up"]


def test_a_silent_server_is_a_sentence_and_bounded(world: World) -> None:
    world.machine.answers_after = None
    outcome = world.raised()
    assert outcome == Outcome(
        raised=True, why="raised by wg-quick; no handshake seen, check the endpoint and its UDP port"
    )
    assert world.clock.slept <= 30.0
    world.write(config(persistent_keepalive=0))
    assert "nothing has used the tunnel yet" in world.raised().why


def test_ours_is_not_raised_twice(world: World) -> None:
    world.raised()
    outcome = world.raised()
    assert outcome.why.startswith("was up already; handshake at")
    assert world.did() == []


@pytest.mark.parametrize(
    "changes",
    [{"server_public_key": OTHER.public}, {"endpoint": "192.0.2.2:51820"}, {"endpoint": "192.0.2.1:51821"},
     {"persistent_keepalive": 20}, {"endpoint": "vpn.example:1"}],
)  # fmt: skip
def test_a_changed_peer_cuts_nothing_that_need_not_be_cut(world: World, changes: dict[str, Any]) -> None:
    world.raised()
    world.write(config(**changes))
    assert "brought into agreement" in world.raised().why
    assert world.did() == ["wg syncconf"]


@pytest.mark.parametrize("changes", [{"address": "10.8.0.8"}, {"allowed_ips": ("10.9.0.0/24",)}])
def test_a_changed_address_or_route_takes_it_down_and_up(world: World, changes: dict[str, Any]) -> None:
    world.raised()
    world.write(config(**changes))
    assert "raised again" in world.raised().why
    assert world.did() == ["wg-quick down", "wg-quick up"]


def test_a_server_known_by_name_is_looked_up_again_once_it_is_silent(world: World) -> None:
    world.write(config(endpoint="vpn.example:51820"))
    world.raised()
    world.raised()
    assert world.did() == []
    world.clock.slept += 200
    world.raised()
    assert world.did() == ["wg syncconf"]


def test_an_old_handshake_is_none_and_a_clock_that_jumped_does_not_deceive(world: World) -> None:
    for minutes in (-10, 60 * 24 * 365 * 30):
        world.machine.have(handshake=int((NOW + timedelta(minutes=minutes)).timestamp()))
        outcome = world.raised()
        assert outcome.handshake is None
        assert outcome.raised


def test_a_strangers_interface_is_left_alone(world: World) -> None:
    for key in (OTHER.public, "(none)"):
        world.machine.have(key=key)
        outcome = world.raised()
        assert not outcome.raised
        assert "of somebody else" in outcome.why
        assert world.did() == []
    world.machine.fails["wg show"] = Completed(1, "", "Operation not supported")
    assert not world.raised().raised


def test_what_fails_is_a_sentence(world: World) -> None:
    world.machine.fails["wg-quick up"] = Completed(1, "", "[#] ip link add\nRTNETLINK answers: \x1b[31mNot supported\n")
    assert world.raised().why == "not raised: wg-quick up failed: RTNETLINK answers: [31mNot supported"
    world.machine.have()
    world.write(config(persistent_keepalive=20))
    world.machine.fails["wg syncconf"] = Completed(124, "", "")
    assert world.raised().why == "not raised: wg syncconf failed: no message"


def test_where_it_cannot_be_raised_a_sentence_says_why(world: World) -> None:
    def told() -> str:
        outcome = world.raised()
        assert not outcome.raised
        assert world.did() == []
        return outcome.why

    world.machine.missing = {"wg-quick"}
    assert "wireguard-tools are not installed" in told()
    world.machine.missing, world.machine.root = set(), False
    assert "only root can" in told()
    world.machine.root = True
    world.write(config(endpoint="localhost:51820"))
    assert "this machine itself" in told()
    world.config.write_bytes(config().render(OWN.private) + b"PostUp = id\n")
    assert "wg0.conf is not as this agent writes it" in told()
    world.address = None
    assert "leased no VPN address" in told()
    world.address, world.wireguard = "10.8.0.7", None
    assert "leased no VPN address" in told()
    world.wireguard = OWN
    world.config.unlink()
    assert "leased no VPN address" in told()
    world.config.mkdir()
    assert "no regular file" in told()
    world.mode(TunnelMode.NONE)
    assert "switched off by ENROLL_TUNNEL" in told()
    world.config = world.config.with_name("-x.conf")
    world.mode(TunnelMode.AUTO)
    world.write(config())
    assert "no name for a VPN interface" in told()


def test_a_named_wg_quick_may_use_loopback(world: World) -> None:
    world.write(config(endpoint="127.0.0.1:51820"))
    world.mode(TunnelMode.WG_QUICK)
    assert world.raised().raised


def test_networkd_gets_two_files_and_a_reload(world: World) -> None:
    world.mode(TunnelMode.NETWORKD)
    outcome = world.raised()
    assert outcome.why == "brought up by systemd-networkd; handshake at 2026-01-01T00:00:01Z"
    assert world.did() == ["networkctl reload"]
    netdev, network = world.networkd / "50-iot-wg0.netdev", world.networkd / "50-iot-wg0.network"
    assert netdev.read_bytes() == config().render_netdev("wg0", OWN.private)
    assert network.read_bytes() == config().render_network("wg0")
    assert stat.S_IMODE(netdev.stat().st_mode) == 0o640
    assert stat.S_IMODE(network.stat().st_mode) == 0o644
    assert {p.name for p in world.networkd.iterdir()} == {netdev.name, network.name}
    assert "was up already" in world.raised().why
    assert world.did() == []


def test_networkds_group_gets_the_file(world: World) -> None:
    world.mode(TunnelMode.NETWORKD)
    world.machine.group_id = os.getegid() + 4711
    world.raised()
    assert world.machine.given == [(world.networkd / "50-iot-wg0.netdev", os.getegid() + 4711)]


def test_networkd_leaves_a_netdev_that_exists_so_a_changed_peer_is_synced(world: World) -> None:
    world.mode(TunnelMode.NETWORKD)
    world.raised()
    world.write(config(server_public_key=OTHER.public))
    assert world.raised().raised
    assert world.did() == ["wg syncconf"]
    world.write(config(server_public_key=OTHER.public, address="10.8.0.9"))
    world.raised()
    assert world.did() == ["networkctl reload"]


def test_networkd_takes_a_new_key_of_ours_and_no_strangers_interface(world: World) -> None:
    world.mode(TunnelMode.NETWORKD)
    world.machine.have(key=OTHER.public)
    assert "of somebody else" in world.raised().why
    assert list(world.networkd.iterdir()) == []
    world.machine.interface = None
    world.raised()
    world.machine.have(key=OLD.public)  # raised from our file, before a re-enrollment
    assert world.raised().raised
    assert world.did() == ["wg syncconf"]
    assert world.machine.interface is not None
    assert world.machine.interface["key"] == OWN.public


def test_networkd_without_wg_makes_a_changed_interface_anew(world: World) -> None:
    world.mode(TunnelMode.NETWORKD)
    world.machine.missing = {"wg"}
    assert "install wireguard-tools" in world.raised().why
    assert world.did() == ["networkctl reload"]
    world.write(config(server_public_key=OTHER.public))
    world.machine.fails["wg show"] = Completed(127, "", "")
    assert world.raised().raised
    assert world.did() == ["networkctl delete", "networkctl reload"]
    world.raised()
    assert world.did() == []


def test_where_networkd_cannot_a_sentence_says_why(world: World) -> None:
    world.mode(TunnelMode.NETWORKD)

    def told() -> str:
        outcome = world.raised()
        assert not outcome.raised
        return outcome.why

    for attribute, value, words in (
        ("systemd", False, "no systemd-networkd"),
        ("missing", {"networkctl"}, "no systemd-networkd"),
        ("root", False, "only root"),
        ("group_id", None, "no group systemd-network"),
    ):
        before = getattr(world.machine, attribute)
        setattr(world.machine, attribute, value)
        assert words in told()
        setattr(world.machine, attribute, before)
    assert list(world.networkd.iterdir()) == []
    world.machine.networkd_makes_interfaces = False
    assert "made no interface wg0" in told()
    world.machine.fails["networkctl reload"] = Completed(1, "", "Failed to connect to bus")
    assert "networkctl reload failed: Failed to connect to bus" in told()
    world.networkd.rename(world.networkd.with_name("gone"))
    assert "cannot write" in told()
    wide = TunnelConfig.from_answer(
        WireGuardAnswer("10.8.0.7", SERVER.public, "192.0.2.1:1", ("0.0.0.0/0",), 25),
        "",
        (ipaddress.ip_network("0.0.0.0/0"),),
    )
    world.write(wide)
    assert "wg-quick makes" in told()


def test_a_run_killed_at_any_effect_of_networkd_is_finished_by_the_next(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class DyingDisk(PosixDisk):
        def __init__(self, left: int) -> None:
            self.left = left

        def _spend(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise Killed

    for name in ("create", "sync", "rename", "sync_folder", "remove"):

        def method(self: Any, *arguments: Any, _name: str = name) -> None:
            self._spend()
            getattr(PosixDisk, _name)(self, *arguments)

        setattr(DyingDisk, name, method)

    deaths = 0
    for left in range(100):
        (tmp_path / str(left)).mkdir()
        world = World(tmp_path / str(left))
        world.mode(TunnelMode.NETWORKD)
        try:
            world.raised(DyingDisk(left))
        except Killed:
            deaths += 1
            assert world.raised().handshake is not None
            assert {p.name for p in world.networkd.iterdir()} == {"50-iot-wg0.netdev", "50-iot-wg0.network"}
        else:
            break
    assert deaths >= 10


def lowered(world: World) -> str:
    world.machine.ran.clear()
    return lower_tunnel(world.machine, world.settings.networkd_dir, world.config, world.wireguard, PosixDisk())


def test_what_was_raised_is_taken_down_and_nothing_else(world: World) -> None:
    assert lowered(world) == "there is no tunnel"
    world.raised()
    assert lowered(world) == "taken down by wg-quick"
    world.machine.have(key=OTHER.public)
    assert "is not this agent's" in lowered(world)
    assert world.did() == []
    world.machine.interface = None
    world.mode(TunnelMode.NETWORKD)
    world.raised()
    assert lowered(world) == "removed from systemd-networkd"
    assert world.did() == ["networkctl reload", "networkctl delete"]
    assert list(world.networkd.iterdir()) == []
    world.machine.have()
    world.machine.fails["wg-quick down"] = Completed(1, "", "no")
    assert lowered(world) == "not taken down: wg-quick down failed: no"


def test_commands_run_without_a_shell_and_never_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    real = LinuxMachine()
    assert real.run(["echo", "$HOME; id"]) == Completed(0, "$HOME; id\n", "")
    assert real.run(["cat", "/dev/stdin"], stdin="a\n").output == "a\n"
    assert real.run(["/nonexistent/wg"]).status == 127
    assert real.has_interface("lo")
    assert not real.has_interface("wg-none")
    assert real.find("sh")
    assert real.group("root") == 0
    assert real.group("no-such-group") is None
    monkeypatch.setenv("ENROLL_VOUCHER", "PROV-1234-5678")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    seen = real.run(["env"]).output
    assert "PROV-" not in seen
    assert "LOG_LEVEL" not in seen
    assert "WG_ENDPOINT_RESOLUTION_RETRIES=2" in seen


def test_a_command_that_hangs_is_asked_to_end_with_what_it_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine_module, "_COMMAND_SECONDS", 1.0)
    monkeypatch.setattr(machine_module, "_END_SECONDS", 1.0)
    cleaned = tmp_path / "cleaned"
    polite = f"trap 'echo > {cleaned}; exit' TERM; sleep 60 & wait"
    began = time.monotonic()
    assert LinuxMachine().run(["sh", "-c", polite]).status == 124
    assert cleaned.exists()
    assert LinuxMachine().run(["sh", "-c", "trap '' TERM; sleep 60; sleep 60"]).status == 124
    assert time.monotonic() - began < 20


def test_keys_are_not_in_representations() -> None:
    assert "hidden" not in repr(Completed(0, "hidden", "hidden"))


@pytest.mark.parametrize("dump", ["", "nonsense", "a\tb\tc\td\nK\t0", "a\tb\tc\n", "a\tb\tc\td\te\n"])
def test_what_is_no_dump(dump: str) -> None:
    assert parse(dump) is None


def test_a_dump_is_read_without_its_secret() -> None:
    line = "\t".join(["K", "(none)", "(none)", "(none)", "9" * 30, "x", "x", "off"])
    shown = parse(f"secret\tP\t1\toff\n{line}\n")
    assert shown is not None
    assert shown.public_key == "P"
    assert shown.handshake == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert shown.peers[0].allowed_ips == frozenset()
    assert "secret" not in repr(shown)
    assert parse("s\tP\t1\toff\n") is not None


def test_nothing_slow_is_imported() -> None:
    code = (
        "import sys, enroll.tunnel;"
        "print(sorted({'asyncio', 'httpx', 'cryptography', 'subprocess', 'paho'} & set(sys.modules)))"
    )
    assert (
        LinuxMachine().run([sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"]).output == "[]\n"
    )
