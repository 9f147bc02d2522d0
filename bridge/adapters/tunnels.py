"""The WireGuard server behind its port: files on the volume that it shares with the bridge."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from bridge.errors import BadWireGuardKey, Misconfigured, SystemFailed
from bridge.model.identity import WireGuardKey
from bridge.ports.tunnels import Applied, Peer
from wireguard import applied_file, errors, peers_file
from wireguard.addresses import Endpoint, Pool
from wireguard.keys import PublicKey
from wireguard.peers import Peer as WgPeer
from wireguard.peers import PeerSet
from wireguard.render import DeviceConfig, render_device


class SharedFolder:
    """``peers.json`` out, ``applied.json`` in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parsing = asyncio.Lock()
        self._made: dict[Peer, WgPeer] = {}
        """What was published last: from one writing to the next little changes."""
        self._seen: tuple[tuple[int, int, int], Applied] | None = None

    async def publish(self, revision: int, peers: Sequence[Peer]) -> None:
        """Write the whole set; an older revision than the one that stands there is dropped silently."""
        await asyncio.to_thread(self._write, revision, peers)

    async def applied(self) -> Applied | None:
        """Return the last report; parsed in a thread, once, however many ask: it lists the whole fleet."""
        mark = self._mark()
        if mark is not None and self._seen is not None and self._seen[0] == mark:
            return self._seen[1]
        async with self._parsing:
            mark = self._mark()
            if mark is None:
                return None
            if self._seen is None or self._seen[0] != mark:
                report = await asyncio.to_thread(self._parse)
                if report is None:
                    return None
                self._seen = (mark, report)
            return self._seen[1]

    def _mark(self) -> tuple[int, int, int] | None:
        """Return what changes whenever the report is replaced; ``None`` if there is none."""
        try:
            status = (self._folder / applied_file.APPLIED_FILE).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _write(self, revision: int, peers: Sequence[Peer]) -> None:
        with _working("publishing peers"):
            made = self._made
            self._made = {peer: made.get(peer) or _parsed(peer) for peer in peers}
            wanted = PeerSet(revision, tuple(self._made.values()))
            try:
                peers_file.write_peers(self._folder, wanted)
            except errors.RevisionConflictError:
                raise  # no newer set, but another registry's: an operator has to know
            except errors.StaleRevisionError:
                return  # another process published a newer set, which holds these peers too

    def _parse(self) -> Applied | None:
        with _working("reading what was applied"):
            try:
                report = applied_file.read_applied(self._folder)
            except errors.FileMissingError:
                return None
            return Applied(report.revision, frozenset(_pairs(report)))


class TunnelTerms:
    """What a device is told about the VPN: typed once at start, rendered for each answer."""

    def __init__(self, subnet: IPv4Network, endpoint: str, server_key: str, keepalive: int = 25) -> None:
        try:
            self.pool = Pool(subnet)
            self._endpoint = Endpoint.parse(endpoint)
            self._server_key = PublicKey.parse(server_key)
        except errors.WireGuardError as e:
            raise Misconfigured(f"WG_SUBNET, WG_SERVER_ENDPOINT or WG_SERVER_PUBLIC_KEY: {e}") from e
        self.subnet = subnet
        self.keepalive = keepalive

    def render(self, address: IPv4Address, *, placeholder: bool = False) -> str:
        """Return the device's ``wg0.conf`` without its private key, or with the old dialect's placeholder line."""
        config = DeviceConfig(address, self._server_key, self._endpoint, (self.subnet,), self.keepalive)
        return render_device(config, placeholder=placeholder)


def _parsed(peer: Peer) -> WgPeer:
    return WgPeer(peer.device, PublicKey.parse(peer.key), IPv4Address(peer.address))


def _pairs(report: applied_file.Applied) -> Iterator[tuple[WireGuardKey, IPv4Address]]:
    for peer in report.peers:
        try:
            key = WireGuardKey(str(peer.public_key))
        except BadWireGuardKey:
            continue  # somebody else's peer with a key that no device of ours can have
        for network in peer.allowed_ips:
            if isinstance(network.network_address, IPv4Address):
                yield key, network.network_address


@contextmanager
def _working(what: str) -> Iterator[None]:
    try:
        yield
    except errors.WireGuardError as e:
        raise SystemFailed(f"WireGuard, {what}: {e}") from e
