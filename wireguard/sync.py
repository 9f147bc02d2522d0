"""Bring an interface to what peers.json says, and report what it then holds.

The small process beside the WireGuard server: it reads the wanted peers, looks at the interface, writes
only the difference and reports a fresh look in applied.json. It never touches the interface's own key,
port or addresses. A peers.json that is missing or broken changes nothing: an unmounted volume must not
throw every device out.

Peers that are not in peers.json are removed, whoever added them: a retired device must be gone, also where
its removal was never heard of. Only with `owned`, the VPN's subnet, a peer is left alone if all its allowed
addresses lie outside of it.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wireguard import folder as disk
from wireguard.addresses import Network
from wireguard.applied_file import Applied, refuse_older, write_applied
from wireguard.errors import WireGuardError
from wireguard.interface import Interface, InterfaceState, PeerStatus
from wireguard.keys import PeerKey
from wireguard.peers import Peer, PeerSet
from wireguard.peers_file import PEERS_FILE, read_peers

POLL_SECONDS = 0.2
REPORT_SECONDS = 5.0
# With tens of thousands of peers a look takes its time: keep looking below a twentieth of it.
_REST_FACTOR = 20
_LOCK_FILE = ".sync.lock"


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to happen to an interface: first the removals, then the peers to add or change."""

    remove: tuple[PeerKey, ...]
    assign: tuple[Peer, ...]

    def __bool__(self) -> bool:
        return bool(self.remove or self.assign)


def now_utc() -> datetime:
    """Read the clock: aware UTC."""
    return datetime.now(UTC)


def plan(wanted: PeerSet, state: InterfaceState, *, owned: Network | None = None) -> Plan:
    """Compare what is wanted with what an interface shows; no effect.

    Applied in its order to an interface in that state, the plan leaves exactly the wanted peers, each
    with its one address, beside foreign ones that `owned` spares. An address that a spared peer held and
    a device needs goes to the device.
    """
    keys = {peer.public_key for peer in wanted.peers}
    present = {peer.public_key: peer.allowed_ips for peer in state.peers}
    return Plan(
        remove=tuple(
            peer.public_key for peer in state.peers if peer.public_key not in keys and not _spared(peer, owned)
        ),
        assign=tuple(peer for peer in wanted.peers if present.get(peer.public_key) != (peer.allowed_ip,)),
    )


def _spared(peer: PeerStatus, owned: Network | None) -> bool:
    # A peer without any address is a device of ours that lost it to another: not spared.
    return owned is not None and bool(peer.allowed_ips) and not any(map(owned.overlaps, peer.allowed_ips))


def sync_once(
    folder: Path,
    interface: Interface,
    *,
    owned: Network | None = None,
    now: Callable[[], datetime] = now_utc,
) -> Applied:
    """Apply peers.json to the interface, look at it, write applied.json and return its content.

    Blocks for as long as the changes take; one pass at a time in a folder, also across processes. Removals
    come first, so that an address is free before another peer gets it. Unchanged peers keep their
    sessions.

    Raises:
        FileMissingError, MalformedFileError, ForeignFileError: of peers.json; the interface is untouched.
        StaleRevisionError: peers.json is older than what was applied last; the interface is untouched.
        InterfaceError: the interface could not be read or changed; nothing was reported.
        FolderUnusableError: the folder cannot be read, written or locked.

    """
    with disk.locked(folder / _LOCK_FILE):
        wanted = read_peers(folder)
        refuse_older(folder, wanted.revision)
        at, state = now(), interface.dump()
        todo = plan(wanted, state, owned=owned)
        if todo:
            interface.remove_peers(todo.remove)
            interface.set_peers(todo.assign)
            at, state = now(), interface.dump()
        applied = Applied(wanted.revision, at, interface.name, state.peers)
        write_applied(folder, applied)
    return applied


async def watch(
    folder: Path,
    interface: Interface,
    stop: asyncio.Event,
    *,
    owned: Network | None = None,
    now: Callable[[], datetime] = now_utc,
    on_pass: Callable[[Applied | WireGuardError], None] = lambda _: None,
    poll: float = POLL_SECONDS,
    report_every: float = REPORT_SECONDS,
) -> None:
    """Run `sync_once` (in a thread) whenever peers.json changed, and every few seconds, until `stop` is set.

    A change is noticed within `poll` seconds. The regular pass keeps handshakes in applied.json fresh and
    gives an interface that was made anew its peers back; it is rarer where one takes long. Every outcome,
    also an error, goes to `on_pass`; errors of this package end nothing, the next pass tries again.
    """
    clock = asyncio.get_running_loop().time
    seen: tuple[int, ...] | None = None
    due = clock()
    while not stop.is_set():
        found = _fingerprint(folder / PEERS_FILE)
        if found != seen or clock() >= due:
            seen, begun = found, clock()
            on_pass(await _pass(folder, interface, owned, now))
            due = clock() + max(report_every, _REST_FACTOR * (clock() - begun))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), poll)


async def _pass(
    folder: Path, interface: Interface, owned: Network | None, now: Callable[[], datetime]
) -> Applied | WireGuardError:
    try:
        return await asyncio.to_thread(sync_once, folder, interface, owned=owned, now=now)
    except WireGuardError as error:
        return error


def _fingerprint(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
