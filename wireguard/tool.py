"""The `wg` program, for one interface of this host or network namespace.

Every value that becomes an argument or a line of configuration is typed. Interfaces are made and ended by
`quick`; which peers there should be is decided by `sync`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from wireguard.addresses import Network
from wireguard.dump import parse_dump
from wireguard.errors import InvalidValueError
from wireguard.interface import InterfaceName, InterfaceState
from wireguard.keys import PeerKey, PublicKey
from wireguard.peers import Peer
from wireguard.process import Runner, refusal, run_process
from wireguard.render import render_peers

DEFAULT_TIMEOUT = 30.0
# One call's arguments stay far below Linux' limit of 128 KiB for one and 2 MiB for all.
_REMOVALS_PER_CALL = 1000
_KEPT_BY_FILE = ("PrivateKey", "ListenPort")


class WireGuardTool:
    """A real interface, read and changed by `wg`; implements `interface.Interface`.

    Every method runs one or more short processes and blocks: call it from a thread where that matters.
    Raises, from every method: `ToolMissingError`, `NoSuchInterfaceError`, `NotPermittedError`,
    `ToolTimeoutError`, `KeyRefusedError`, `RefusedError`, `UnexpectedOutputError`.
    """

    def __init__(self, name: InterfaceName, run: Runner = run_process, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._name = name
        self._run = run
        self._timeout = timeout

    @property
    def name(self) -> InterfaceName:
        """The interface's name."""
        return self._name

    def dump(self) -> InterfaceState:
        """Look at the interface now. The private key that `wg` prints with it is dropped at once."""
        return parse_dump(self._wg("show", str(self._name), "dump"))

    def set_peer(self, public_key: PublicKey, allowed_ips: Sequence[Network]) -> None:
        """Add this peer, or replace the allowed addresses of one that is there."""
        networks = ",".join(map(str, allowed_ips))
        self._wg("set", str(self._name), "peer", str(public_key), "allowed-ips", networks)

    def set_peers(self, peers: Sequence[Peer]) -> None:
        """Do `set_peer` for many in one process, by `wg addconf`.

        Not `wg syncconf`: without the interface's private key and port in its file it takes both away,
        and the private key should not have to pass through here.
        """
        if peers:
            self._wg("addconf", str(self._name), "/dev/stdin", stdin=render_peers(peers))

    def remove_peers(self, public_keys: Sequence[PeerKey]) -> None:
        """Remove these peers, ending their sessions at once; one that is not there is no error."""
        for start in range(0, len(public_keys), _REMOVALS_PER_CALL):
            chunk = public_keys[start : start + _REMOVALS_PER_CALL]
            words = [word for key in chunk for word in ("peer", str(key), "remove")]
            self._wg("set", str(self._name), *words)

    def syncconf(self, configuration: Path) -> None:
        """Bring the interface to an operator's whole file, keeping the sessions of unchanged peers.

        Raises:
            InvalidValueError: the file names no `PrivateKey` or no `ListenPort`, which `wg syncconf` would
                take for the wish to have none.

        """
        try:
            text = configuration.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidValueError(f"{configuration} cannot be read as a configuration.") from error
        for field in _KEPT_BY_FILE:
            if not re.search(rf"^[ \t]*{field}[ \t]*=[ \t]*\S", text, re.IGNORECASE | re.MULTILINE):
                raise InvalidValueError(f"{configuration} has no {field}; wg syncconf would remove it.")
        self._wg("syncconf", str(self._name), str(configuration.absolute()))

    def _wg(self, *arguments: str, stdin: str = "") -> str:
        completed = self._run(("wg", *arguments), stdin=stdin, timeout=self._timeout)
        if completed.returncode != 0:
            raise refusal(completed, program="wg", subject=str(self._name))
        return completed.stdout
