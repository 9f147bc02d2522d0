"""Phase 3: the VPN interface, raised where that is possible, and its handshake observed.

Responsible for deciding who raises a tunnel here and whether an interface that is there is ours, and for saying in a
sentence why there is none; that is never an error.

Not responsible for ``wg0.conf`` (``enroll.wgconf``), nor for how a mode works (``quick``, ``networkd``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from enroll.config import Settings, TunnelMode
from enroll.disk import files
from enroll.disk.files import Disk
from enroll.errors import EnrollError
from enroll.keys import WireGuardKey
from enroll.record import Record
from enroll.trust.clock import Clock
from enroll.tunnel import networkd, quick
from enroll.tunnel.interface import FRESH, POLL, Shown, Wanted, await_handshake, show
from enroll.tunnel.machine import Completed, LinuxMachine, Machine
from enroll.tunnel.quick import NotRaisedError
from enroll.wgconf import TunnelConfig, interface_name

__all__ = ["FRESH", "POLL", "Completed", "LinuxMachine", "Machine", "Outcome", "lower_tunnel", "raise_tunnel"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the tunnel."""

    raised: bool
    why: str
    handshake: datetime | None = None
    """Time of a handshake that carries a session; ``None`` if none was seen."""


def raise_tunnel(
    machine: Machine,
    settings: Settings,
    config: Path,
    record: Record,
    wireguard: WireGuardKey | None,
    patience: Callable[[], float],
    clock: Clock,
    disk: Disk,
) -> Outcome:
    """Have the tunnel up as its file says, if that is wanted and possible here, and watch for a handshake.

    :param config: ``IF.conf``; its stem is the interface's name.
    :param record: says whether there is a lease at all.
    :param wireguard: the device's own key: tells our interface from a stranger's of that name.
    :param patience: seconds that may still be waited for a handshake; looked at after each poll.
    """
    try:
        wanted = _wanted(settings, config, record, wireguard)
        before = _existing(machine, settings, wanted)
        if settings.tunnel is TunnelMode.NETWORKD:
            changed = networkd.up(machine, disk, settings.networkd_dir, wanted)
            networkd.await_interface(machine, wanted.name, clock)
            said = "brought up by systemd-networkd" if changed else "was up already by systemd-networkd"
        elif before is None:
            said = quick.up(machine, config)
        else:
            said = quick.agree(machine, config, wanted, before, clock.now())
        if machine.find("wg") is None:
            return Outcome(raised=True, why=f"{said}; install wireguard-tools to see its handshake")
        earlier = before.handshake if before is not None else None
        return _observed(said, wanted.values, await_handshake(machine, wanted.name, earlier, patience, clock))
    except (NotRaisedError, EnrollError, OSError, ValueError) as e:
        return Outcome(raised=False, why=f"not raised: {e}")


def _wanted(settings: Settings, config: Path, record: Record, wireguard: WireGuardKey | None) -> Wanted:
    if settings.tunnel is TunnelMode.NONE:
        raise NotRaisedError("switched off by ENROLL_TUNNEL")
    content = files.read(config) if record.address is not None else None
    if content is None or wireguard is None:
        raise NotRaisedError("the bridge leased no VPN address")
    try:
        values, private_key = TunnelConfig.parse(content)
    except ValueError as e:
        raise NotRaisedError(f"{config} {e}") from e
    return Wanted(interface_name(config.stem), values, private_key, wireguard.public)


def _existing(machine: Machine, settings: Settings, wanted: Wanted) -> Shown | None:
    """Return the interface of that name if it is there, once nothing is in the way of ours."""
    networked = settings.tunnel is TunnelMode.NETWORKD
    if networked:
        why = networkd.obstacle(machine, wanted.values)
    else:
        by_name = settings.tunnel is TunnelMode.WG_QUICK
        why = quick.obstacle(machine, wanted.values.endpoint, wanted=by_name)
    if why is not None:
        raise NotRaisedError(why)
    if not machine.has_interface(wanted.name):
        return None
    shown = show(machine, wanted.name)
    if shown is not None and shown.public_key == wanted.public_key:
        return shown
    if networked and networkd.ours(settings.networkd_dir, wanted.name):
        return shown
    raise NotRaisedError(f"an interface {wanted.name} of somebody else exists; name another in ENROLL_WG_INTERFACE")


def _observed(said: str, values: TunnelConfig, seen: datetime | None) -> Outcome:
    if seen is not None:
        return Outcome(raised=True, why=f"{said}; handshake at {seen:%Y-%m-%dT%H:%M:%SZ}", handshake=seen)
    hint = "check the endpoint and its UDP port" if values.persistent_keepalive else "nothing has used the tunnel yet"
    return Outcome(raised=True, why=f"{said}; no handshake seen, {hint}")


def lower_tunnel(machine: Machine, networkd_dir: Path, config: Path, wireguard: WireGuardKey | None, disk: Disk) -> str:
    """Take down what ``raise_tunnel`` has raised, before the key and the file go; say what was done. Never raises."""
    interface = config.stem
    try:
        if networkd.ours(networkd_dir, interface) and machine.is_root():
            return networkd.down(machine, disk, networkd_dir, interface)
        if wireguard is None or not machine.has_interface(interface):
            return "there is no tunnel"
        shown = show(machine, interface)
        if shown is None or shown.public_key != wireguard.public:
            return f"the interface {interface} is not this agent's"
        return quick.down(machine, config)
    except (NotRaisedError, EnrollError, OSError, ValueError) as e:
        return f"not taken down: {e}"
