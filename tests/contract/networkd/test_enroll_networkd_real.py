"""The agent's files for systemd-networkd, read and applied by the real one in namespaces of its own.

A kernel without WireGuard cannot make the interface: then systemd-networkd says so after it has read everything.
"""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from enroll.config import Settings, TunnelMode
from enroll.disk.files import PosixDisk
from enroll.keys import WireGuardKey
from enroll.names import BridgeUrl, DeviceId, Fingerprint
from enroll.trust.clock import SystemClock
from enroll.tunnel import Completed, LinuxMachine, raise_tunnel
from enroll.tunnel.networkd import GROUP, paths
from enroll.wgconf import TunnelConfig
from enroll.wire import WireGuardAnswer

pytestmark = pytest.mark.real

# Its own mounts and network; a /sys that is read-only tells systemd-networkd that there is no udev to wait for. The
# interface is one end of a cable: of .network files only the name counts.
SCRIPT = f"""
set -e
mount --bind "$1" /etc/systemd/network
mkdir -p /run/systemd/netif
mount -t tmpfs -o mode=755 none /run/systemd/netif
chown {GROUP}:{GROUP} /run/systemd/netif
mount -t sysfs -o ro none /sys
ip link set lo up
if [ -n "$2" ]; then ip link add "$2" type veth peer name other; ip link set other up; fi
SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console timeout 5 /lib/systemd/systemd-networkd 2>&1 || true
echo ADDRESSES; ip -oneline address
echo ROUTES; ip route; ip -6 route
"""
COMPLAINTS = (
    "Unknown",
    "nvalid",
    "Failed to parse",
    "gnoring line",
    "ermission denied: /etc",
    "not readable",
    "Failed to open",
)


def networkd(folder: Path, interface: str = "") -> str:
    command = ["unshare", "--mount", "--net", "bash", "-c", SCRIPT, "bash", str(folder), interface]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def complaints(told: str) -> list[str]:
    return [line for line in told.splitlines() if "50-iot" in line and any(word in line for word in COMPLAINTS)]


class Recorded(LinuxMachine):
    """This machine, but for systemd's own commands and its interfaces."""

    def runs_systemd(self) -> bool:
        return True

    def has_interface(self, name: str) -> bool:
        return False

    def run(self, arguments: Sequence[str], stdin: str = "") -> Completed:
        assert list(arguments) == ["networkctl", "reload"]
        return Completed(0, "", "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The two files, as the agent writes them, with the modes and the group that they have then."""
    made = tmp_path / "network"
    made.mkdir(mode=0o755)
    key, server = WireGuardKey.generate(), WireGuardKey.generate()
    answer = WireGuardAnswer("10.8.0.7", server.public, "[fd01::1]:51820", ("10.8.0.0/24", "fd00:8::/64"), 25)
    config = tmp_path / "wg0.conf"
    config.write_bytes(TunnelConfig.from_answer(answer, key.public).render(key.private))
    settings = Settings(
        bridge=BridgeUrl.parse("https://bridge.example"),
        device_id=DeviceId("dev-1"),
        folder=tmp_path,
        root_pins=(Fingerprint("0" * 64),),
        tunnel=TunnelMode.NETWORKD,
        networkd_dir=made,
    )
    record: Any = SimpleNamespace(address="10.8.0.7")
    clock: Any = SimpleNamespace(sleep=lambda _seconds: None, now=SystemClock().now)
    outcome = raise_tunnel(Recorded(), settings, config, record, key, lambda: 0.0, clock, PosixDisk())
    assert "made no interface" in outcome.why
    return made


def test_the_netdev_file_is_read_by_the_user_it_is_meant_for(folder: Path) -> None:
    netdev, _ = paths(folder, "wg0")
    assert netdev.stat().st_gid == grp.getgrnam(GROUP).gr_gid
    told = networkd(folder)
    assert 'wg0: loaded "wireguard"' in told
    assert complaints(told) == []
    os.chown(netdev, 0, 0)  # what a file of mode 0640 without that group is worth
    assert 'loaded "wireguard"' not in networkd(folder)


def test_a_wrong_line_would_be_noticed(folder: Path) -> None:
    for path in paths(folder, "wg0"):
        path.write_bytes(path.read_bytes() + b"NoSuchKey=1\n")
    assert len(complaints(networkd(folder))) == 2


def test_the_network_file_gives_address_and_routes(folder: Path) -> None:
    paths(folder, "wg0")[0].unlink()
    told = networkd(folder, "wg0")
    addresses, _, routes = told.partition("ADDRESSES")[2].partition("ROUTES")
    assert complaints(told) == []
    assert [line.split()[3] for line in addresses.splitlines() if " wg0 " in line] == ["10.8.0.7/32"]
    assert "10.8.0.0/24 dev wg0 proto static scope link" in routes
    assert "fd00:8::/64 dev wg0 proto static" in routes


def test_the_programs_are_there() -> None:
    assert shutil.which("unshare")
    assert Path("/lib/systemd/systemd-networkd").exists()
