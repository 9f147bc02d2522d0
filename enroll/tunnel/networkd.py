"""The tunnel by systemd-networkd: two files in its folder, reloaded when they change.

Responsible for ``50-iot-IF.netdev`` and ``50-iot-IF.network``, for ``networkctl reload``, and for what a reload does
not do: systemd-networkd (tried: 252) leaves a ``.netdev`` whose interface exists as it is, so a changed peer goes in by
``wg syncconf``; addresses and routes are in the ``.network`` file, which a reload does apply.

The private key stands in the ``.netdev`` file, mode 0640, group ``systemd-network``, as systemd.netdev(5) advises.
``PrivateKeyFile=`` would gain nothing: systemd-networkd is not root, and must be able to read that file too, so
``wg.key`` in its closed folder does not serve.

Not responsible for the files' content (``enroll.wgconf``), or for the handshake.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from enroll.disk import files
from enroll.disk.files import PUBLIC, Disk
from enroll.trust.clock import Clock
from enroll.tunnel.interface import POLL, Wanted, show
from enroll.tunnel.machine import Machine
from enroll.tunnel.quick import NotRaisedError, sync
from enroll.wgconf import HEADER, TunnelConfig

GROUP: Final = "systemd-network"
_GROUP_READS: Final = 0o640
_COMES: Final = 5.0
"""Seconds within which systemd-networkd makes an interface."""


def obstacle(machine: Machine, values: TunnelConfig) -> str | None:
    """Return why systemd-networkd cannot have a tunnel here, or ``None``."""
    if not machine.runs_systemd() or machine.find("networkctl") is None:
        return "this machine has no systemd-networkd; take ENROLL_TUNNEL=wg-quick"
    if not machine.is_root():
        return "only root can write systemd-networkd's files"
    if machine.group(GROUP) is None:
        return f"there is no group {GROUP} that systemd-networkd reads its files by"
    if any(network.prefixlen == 0 for network in values.allowed_ips):
        return "a default route through the tunnel needs rules that wg-quick makes; take ENROLL_TUNNEL=wg-quick"
    return None


def paths(folder: Path, interface: str) -> tuple[Path, Path]:
    """Return where the ``.netdev`` and the ``.network`` file of the interface lie."""
    return folder / f"50-iot-{interface}.netdev", folder / f"50-iot-{interface}.network"


def ours(folder: Path, interface: str) -> bool:
    """Return whether a ``.netdev`` file of this agent names the interface: then it is ours, whatever its key.

    :raises StorageError: it is there and cannot be read.
    """
    content = files.read(paths(folder, interface)[0])
    return content is not None and content.startswith(HEADER.encode())


def up(machine: Machine, disk: Disk, folder: Path, wanted: Wanted) -> bool:
    """Write what has changed and have systemd-networkd take it up; the interface comes when it comes.

    :returns: whether anything had to be done.
    :raises NotRaisedError: a command failed.
    :raises StorageError: a file cannot be written.
    :raises OSError: a file cannot be given to systemd-networkd's group.
    """
    existed, can_look = machine.has_interface(wanted.name), machine.find("wg") is not None
    netdev, network = paths(folder, wanted.name)
    new_peer = _write_secret(machine, disk, netdev, wanted.values.render_netdev(wanted.name, wanted.private_key))
    new_network = files.write(disk, network, wanted.values.render_network(wanted.name), PUBLIC)
    if not existed:
        _demand(machine, "reload")
        return True
    if not can_look:
        if new_peer:
            _demand(machine, "delete", wanted.name)
        if new_peer or new_network:
            _demand(machine, "reload")
        return new_peer or new_network
    # An earlier run may have been killed between writing and this: what the interface is decides, not what was written.
    shown = show(machine, wanted.name)
    agrees = shown is not None and wanted.peer_agrees(shown) and wanted.routes_agree(shown)
    addressed = wanted.address_agrees(machine)
    if new_network or not addressed:
        _demand(machine, "reload")
    if not agrees:
        sync(machine, wanted)
    return new_network or not agrees or not addressed


def await_interface(machine: Machine, interface: str, clock: Clock) -> None:
    """Wait a few seconds for systemd-networkd to make the interface.

    :raises NotRaisedError: none came.
    """
    waited = 0.0
    while not machine.has_interface(interface):
        if waited >= _COMES:
            hint = "see 'networkctl status' and whether the kernel has WireGuard"
            raise NotRaisedError(f"systemd-networkd made no interface {interface}; {hint}")
        clock.sleep(POLL)
        waited += POLL


def down(machine: Machine, disk: Disk, folder: Path, interface: str) -> str:
    """Remove the files and the interface.

    :raises NotRaisedError: ``networkctl`` failed.
    :raises OSError: a file cannot be removed.
    """
    for path in paths(folder, interface):
        disk.remove(path)
    disk.sync_folder(folder)
    _demand(machine, "reload")
    if machine.has_interface(interface):
        _demand(machine, "delete", interface)
    return "removed from systemd-networkd"


def _write_secret(machine: Machine, disk: Disk, path: Path, content: bytes) -> bool:
    written = files.write(disk, path, content, _GROUP_READS)  # root's own group, until it is given away
    group = machine.group(GROUP)
    if group is not None and path.stat().st_gid != group:
        machine.give(path, group)
        disk.sync(path)
        return True
    return written


def _demand(machine: Machine, *arguments: str) -> None:
    ended = machine.run(["networkctl", *arguments])
    if ended.status != 0:
        raise NotRaisedError(f"networkctl {arguments[0]} failed: {ended.last_error}")
