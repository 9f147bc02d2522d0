"""The tunnel by wg-quick(8): raised, brought into agreement with its file, taken down.

Responsible for calling ``wg-quick`` (which takes ``wireguard-go`` where the kernel has no WireGuard) and ``wg``, and
for cutting no session that need not be cut: a changed peer is a ``wg syncconf``; only changed addresses or routes
take the interface down and up again.

Not responsible for the file, or for the handshake.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from enroll.names import HostPort, is_ip
from enroll.tunnel.interface import Shown, Wanted, fresh
from enroll.tunnel.machine import Machine


class NotRaisedError(Exception):
    """There is no tunnel, or not the one that is wanted; the text is the sentence for people."""


def obstacle(machine: Machine, endpoint: HostPort, *, wanted: bool) -> str | None:
    """Return why a tunnel cannot be raised here, or ``None``.

    :param wanted: the operator named wg-quick; then a loopback endpoint is their business.
    """
    if machine.find("wg-quick") is None or machine.find("wg") is None:
        return "wireguard-tools are not installed; the configuration is ready for them"
    if not machine.is_root():
        return "only root can; run 'wg-quick up' with the configuration as root"
    if endpoint.loopback and not wanted:
        return f"the endpoint {endpoint} is this machine itself"
    return None


def up(machine: Machine, config: Path) -> str:
    """Raise the interface that is named like the file.

    :raises NotRaisedError: wg-quick failed.
    """
    _demand(machine, "up", config)
    return "raised by wg-quick"


def down(machine: Machine, config: Path) -> str:
    """Take the interface down, with its routes.

    :raises NotRaisedError: wg-quick failed.
    """
    _demand(machine, "down", config)
    return "taken down by wg-quick"


def agree(machine: Machine, config: Path, wanted: Wanted, shown: Shown, now: datetime) -> str:
    """Bring an interface of ours, which is up, into agreement with its file.

    :raises NotRaisedError: a command failed.
    """
    if not wanted.routes_agree(shown) or not wanted.address_agrees(machine):
        down(machine, config)
        up(machine, config)
        return "raised again: its address or routes had changed"
    if wanted.peer_agrees(shown) and (fresh(shown, now) or is_ip(wanted.values.endpoint.host)):
        return "was up already"
    # Also where nothing else differs: the server's name may stand for another address by now.
    sync(machine, wanted)
    return "was up, and is brought into agreement with its configuration"


def sync(machine: Machine, wanted: Wanted) -> None:
    """Give an interface the key and the peer it is meant to have; the session of an unchanged peer lives on.

    :raises NotRaisedError: ``wg`` refused.
    """
    rendered = wanted.values.render_for_wg(wanted.private_key).decode("ascii")
    ended = machine.run(["wg", "syncconf", wanted.name, "/dev/stdin"], stdin=rendered)
    if ended.status != 0:
        raise NotRaisedError(f"wg syncconf failed: {ended.last_error}")


def _demand(machine: Machine, verb: str, config: Path) -> None:
    ended = machine.run(["wg-quick", verb, str(config)])
    if ended.status != 0:
        raise NotRaisedError(f"wg-quick {verb} failed: {ended.last_error}")
