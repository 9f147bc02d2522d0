"""A real tunnel for the demonstration, where this machine allows one: wireguard-go in two network namespaces.

The bridge gives its peers to the server's interface by the file that a real WireGuard server reads; the device's own
`wg0.conf` is raised by `wg-quick` in a namespace of its own. Nothing of this machine's network is touched.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from compose.demo.processes import BIN, Bridge, until
from compose.demo.screen import Untrue
from compose.real.wireguard_namespaces import Namespaces, wireguard_namespaces
from wireguard.errors import WireGuardError

_PROGRAMS: Final = ("wireguard-go", "wg", "wg-quick", "ip", "ping")
_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The server's interface, the device's place, and the folder the server reads its peers from."""

    made: Namespaces
    folder: Path

    @property
    def variables(self) -> Mapping[str, str]:
        """What the bridge is told of this server. These alone do not end embedded mode."""
        return {
            "WG_SUBNET": str(self.made.pool),
            "WG_SERVER_ENDPOINT": str(self.made.endpoint),
            "WG_SERVER_PUBLIC_KEY": str(self.made.server_public_key),
        }

    def sync(self, bridge: Bridge) -> None:
        """Run `iot-bridge wireguard sync --once` beside the server's interface, on the peers the bridge wants now.

        :raises Untrue: it failed.
        """
        shutil.copy(bridge.data / "embedded" / "wg-data" / "peers.json", self.folder / "peers.json")
        options = ("--interface", str(self.made.server_interface), "--folder", str(self.folder), "--once")
        command = (str(BIN / "iot-bridge"), "wireguard", "sync", *options)
        done = self.made.exec(self.made.server, command, timeout=_SECONDS)
        if done.returncode != 0:
            raise Untrue(f"iot-bridge wireguard sync failed: {done.stderr.strip()}")

    def raise_device(self, configuration: Path) -> float:
        """Raise the device's `wg0.conf` by `wg-quick`; return the seconds from then to the first handshake seen.

        :raises Untrue: there was no handshake.
        """
        self.made.bring_up(configuration.read_text(encoding="utf-8"))
        began = monotonic()
        until(lambda: self._handshake() > 0, "a WireGuard handshake", _SECONDS)
        return monotonic() - began

    def reaches_server(self) -> bool:
        """Whether the server's VPN address answers a ping from the device."""
        return self.made.answers(self.made.client, self.made.pool.server_address, attempts=2)

    def reaches_device(self, address: str) -> bool:
        """Whether the device's VPN address answers a ping from the server."""
        return self.made.answers(self.made.server, address, attempts=2)

    def _handshake(self) -> int:
        command = ("wg", "show", str(self.made.client_interface), "latest-handshakes")
        shown = self.made.exec(self.made.client, command).stdout.split()
        return int(shown[-1]) if shown else 0


def obstacle() -> str | None:
    """Say why no tunnel can be raised on this machine; ``None`` if nothing is known to stand against it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (compose/real/install.sh brings them)"
    return None if Path("/dev/net/tun").exists() else "/dev/net/tun is missing"


@contextmanager
def tunnel(folder: Path, *, wanted: bool = True) -> Iterator[Tunnel | str]:
    """Make the server's side; where that is not possible, or not wanted, give the reason instead."""
    why = obstacle() if wanted else "switched off by --no-tunnel"
    with ExitStack() as ending:
        if why is None:
            folder.mkdir(mode=0o700)
            try:
                made = ending.enter_context(wireguard_namespaces())
            except (WireGuardError, OSError) as e:
                why = f"this machine allows no namespaces: {e}"
            else:
                yield Tunnel(made, folder)
                return
        yield why
