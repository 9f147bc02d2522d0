"""A run on a real machine: the composition root of the device.

Responsible for building the agent from real parts, and for leaving the outcome where ``status`` shows it.
Not responsible for arguments or exit codes (``enroll.cli``).
"""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

from enroll import config, keys
from enroll.config import Settings
from enroll.errors import EnrollError
from enroll.events import Event
from enroll.names import IpAddress
from enroll.status import lastrun

if TYPE_CHECKING:
    from enroll.agent import Runtime


def run(
    settings: Settings,
    environment: Mapping[str, str],
    report: Callable[[Event], None],
    *,
    renew_now: bool = False,
    stay: bool = False,
) -> None:
    """Run the agent once.

    :raises EnrollError: as ``Agent.run``.
    """
    keys.prepare_process(settings, environment, sys.orig_argv)
    from enroll.agent import Agent  # noqa: PLC0415 - everything below loads OpenSSL, which must be configured first

    agent = Agent(settings, _runtime(settings, environment, report), renew_now=renew_now)
    try:
        agent.run()
    except EnrollError as e:
        lastrun.write(settings.run_dir, agent.now(), e)
        raise
    lastrun.write(settings.run_dir, agent.now(), None)
    if stay:
        agent.stay()


def forget(environment: Mapping[str, str]) -> tuple[list[str], str]:
    """Take the tunnel down, remove the identity, and free the keys in hardware.

    :returns: the names of the files removed, and a sentence about the tunnel.
    :raises ConfigurationError: the key is in hardware, and the configuration does not say how to reach it.
    :raises StorageError: a file cannot be removed; run it again.
    """
    from enroll import tunnel  # noqa: PLC0415 - as above
    from enroll.disk import reset  # noqa: PLC0415 - as above
    from enroll.disk.files import PosixDisk, read  # noqa: PLC0415

    folder, interface = config.folder_from(environment), config.interface_from(environment)
    in_hardware = (environment.get("ENROLL_KEY") or "file").strip().lower() != "file"
    settings = config.load(environment) if in_hardware else None
    content = read(folder / "wg.key")
    try:
        own = None if content is None else keys.WireGuardKey.from_text(content)
    except keys.KeyFormatError:
        own = None
    machine, networkd_dir, disk = tunnel.LinuxMachine(), config.networkd_dir_from(environment), PosixDisk()
    said = tunnel.lower_tunnel(machine, networkd_dir, folder / f"{interface}.conf", own, disk)
    removed = reset.forget(folder, disk, interface)
    if settings is not None:
        keys.provider(settings).sweep([])
    return removed, said


def _runtime(settings: Settings, environment: Mapping[str, str], report: Callable[[Event], None]) -> Runtime:
    from enroll import inventory  # noqa: PLC0415 - as above
    from enroll.agent import Runtime  # noqa: PLC0415
    from enroll.disk.files import PosixDisk  # noqa: PLC0415
    from enroll.network.transport import HttpsNetwork  # noqa: PLC0415
    from enroll.trust.clock import SystemClock  # noqa: PLC0415
    from enroll.tunnel import LinuxMachine  # noqa: PLC0415

    clock = SystemClock()
    return Runtime(
        clock=clock,
        set_clock=clock.set,
        uniform=random.SystemRandom().uniform,
        disk=PosixDisk(),
        machine=LinuxMachine(),
        network=HttpsNetwork(environment),
        provider=keys.provider(settings),
        report=report,
        addresses=addresses,
        inventory=inventory.read,
    )


def addresses(host: str) -> Sequence[IpAddress]:
    """Return the addresses of a host; none if it cannot be looked up now."""
    try:
        # As text it would go through IDNA, whose tables are slow to load; the bridge's names are ASCII.
        found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple({ip_address(str(entry[4][0]).partition("%")[0]) for entry in found})
