"""One pass of `sync` and the loop around it, on an interface in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from wireguard.addresses import Endpoint, Network, parse_network
from wireguard.applied_file import Applied, read_applied
from wireguard.errors import (
    FileMissingError,
    ForeignFileError,
    MalformedFileError,
    NoSuchInterfaceError,
    RefusedError,
    StaleRevisionError,
    WireGuardError,
)
from wireguard.interface import InterfaceName, InterfaceState
from wireguard.keys import PeerKey, PrivateKey, PublicKey
from wireguard.peers import Peer, PeerSet
from wireguard.peers_file import write_peers
from wireguard.standin import MAX_PEERS, MemoryInterface
from wireguard.sync import now_utc, plan, sync_once, watch

MakePeers = Callable[[int, int], PeerSet]
START = datetime(2026, 1, 2, tzinfo=UTC)
POOL = parse_network("10.8.0.0/24")


class Recorded(MemoryInterface):
    """An interface that remembers in which order it was changed, and can be gone."""

    def __init__(self) -> None:
        super().__init__(InterfaceName("wg0"), PrivateKey.generate())
        self.acts: list[tuple[str, int]] = []
        self.gone = False

    def dump(self) -> InterfaceState:
        if self.gone:
            raise NoSuchInterfaceError("gone")
        return super().dump()

    def set_peers(self, peers: Sequence[Peer]) -> None:
        self.acts.append(("set", len(peers)))
        super().set_peers(peers)

    def remove_peers(self, public_keys: Sequence[PeerKey]) -> None:
        self.acts.append(("remove", len(public_keys)))
        super().remove_peers(public_keys)


@pytest.fixture
def interface() -> Recorded:
    return Recorded()


def held(interface: MemoryInterface) -> dict[PeerKey, tuple[Network, ...]]:
    return {peer.public_key: peer.allowed_ips for peer in interface.dump().peers}


def wanted(peers: PeerSet) -> dict[PublicKey, tuple[Network, ...]]:
    return {peer.public_key: (peer.allowed_ip,) for peer in peers.peers}


def test_a_pass_brings_the_interface_to_the_file_and_reports_it(
    tmp_path: Path, interface: Recorded, make_peers: MakePeers
) -> None:
    peers = make_peers(3, 4)
    write_peers(tmp_path, peers)
    applied = sync_once(tmp_path, interface, now=lambda: START)
    assert held(interface) == wanted(peers)
    assert (applied.revision, applied.at, str(applied.interface)) == (3, START, "wg0")
    assert applied.peers == interface.dump().peers
    assert read_applied(tmp_path) == applied


def test_a_pass_without_difference_changes_nothing(tmp_path: Path, interface: Recorded, make_peers: MakePeers) -> None:
    write_peers(tmp_path, make_peers(3, 4))
    sync_once(tmp_path, interface)
    interface.acts.clear()
    sync_once(tmp_path, interface)
    assert interface.acts == []


def test_only_differences_are_written_and_removals_come_first(
    tmp_path: Path, interface: Recorded, make_peers: MakePeers
) -> None:
    before, fresh = make_peers(1, 50), make_peers(2, 1)
    write_peers(tmp_path, before)
    sync_once(tmp_path, interface)
    interface.acts.clear()
    write_peers(tmp_path, PeerSet(2, before.peers[1:] + fresh.peers))
    sync_once(tmp_path, interface)
    assert interface.acts == [("remove", 1), ("set", 1)]


def test_a_session_outlives_the_changes_of_others(tmp_path: Path, interface: Recorded, make_peers: MakePeers) -> None:
    before = make_peers(1, 3)
    write_peers(tmp_path, before)
    sync_once(tmp_path, interface)
    stays = before.peers[2].public_key
    interface.record_traffic(stays, Endpoint("192.0.2.9", 4444), START, rx=10, tx=20)
    write_peers(tmp_path, PeerSet(2, before.peers[2:]))
    status = sync_once(tmp_path, interface).by_key()[stays]
    assert (status.latest_handshake, status.rx, status.tx) == (START, 10, 20)


def test_re_enrollment_gives_the_address_to_the_new_key_and_forgets_the_old(
    tmp_path: Path, interface: Recorded, make_peers: MakePeers
) -> None:
    old = make_peers(1, 1).peers[0]
    write_peers(tmp_path, PeerSet(1, (old,)))
    sync_once(tmp_path, interface)
    new = Peer(old.device_id, PrivateKey.generate().public_key, old.address)
    write_peers(tmp_path, PeerSet(2, (new,)))
    assert set(sync_once(tmp_path, interface).by_key()) == {new.public_key}


def test_peers_that_swap_addresses_both_get_theirs(tmp_path: Path, interface: Recorded, make_peers: MakePeers) -> None:
    first, second = make_peers(1, 2).peers
    write_peers(tmp_path, PeerSet(1, (first, second)))
    sync_once(tmp_path, interface)
    swapped = PeerSet(
        2,
        (
            Peer(first.device_id, first.public_key, second.address),
            Peer(second.device_id, second.public_key, first.address),
        ),
    )
    write_peers(tmp_path, swapped)
    sync_once(tmp_path, interface)
    assert held(interface) == wanted(swapped)


def test_a_peer_nobody_wants_is_removed_whoever_added_it(
    tmp_path: Path, interface: Recorded, make_peers: MakePeers
) -> None:
    interface.set_peer(PrivateKey.generate().public_key, [parse_network("10.99.0.0/16")])
    peers = make_peers(1, 1)
    write_peers(tmp_path, peers)
    sync_once(tmp_path, interface)
    assert held(interface) == wanted(peers)


@pytest.mark.parametrize(
    ("networks", "spared"),
    [
        (["10.99.0.0/16"], True),
        (["10.99.0.0/16", "10.8.0.200/32"], False),
        (["10.8.0.200/32"], False),
        (["10.8.0.0/16"], False),
        (["0.0.0.0/0"], False),
        (["fd00::/8"], True),
        ([], False),
    ],
)
def test_where_only_the_subnet_is_ours_a_peer_outside_of_it_is_spared(
    tmp_path: Path, interface: Recorded, networks: list[str], *, spared: bool
) -> None:
    foreign = PrivateKey.generate().public_key
    interface.set_peer(foreign, [parse_network(text) for text in networks])
    write_peers(tmp_path, PeerSet(1, ()))
    sync_once(tmp_path, interface, owned=POOL)
    assert (foreign in held(interface)) is spared


def test_a_retired_device_is_gone_also_where_only_the_subnet_is_ours(
    tmp_path: Path, interface: Recorded, make_peers: MakePeers
) -> None:
    write_peers(tmp_path, make_peers(1, 3))
    sync_once(tmp_path, interface, owned=POOL)
    write_peers(tmp_path, PeerSet(2, ()))
    assert sync_once(tmp_path, interface, owned=POOL).peers == ()


@pytest.mark.parametrize(
    ("content", "kind"), [(None, FileMissingError), (b'{"revision": 2', MalformedFileError), (b"{}", ForeignFileError)]
)
def test_a_volume_that_is_not_there_throws_nobody_out(
    tmp_path: Path, interface: Recorded, make_peers: MakePeers, content: bytes | None, kind: type[WireGuardError]
) -> None:
    peers = make_peers(1, 3)
    write_peers(tmp_path, peers)
    sync_once(tmp_path, interface)
    if content is None:
        (tmp_path / "peers.json").unlink()
    else:
        (tmp_path / "peers.json").write_bytes(content)
    with pytest.raises(kind):
        sync_once(tmp_path, interface)
    assert held(interface) == wanted(peers)


def test_a_peers_file_from_a_backup_lets_no_retired_device_in_again(
    tmp_path: Path, interface: Recorded, make_peers: MakePeers
) -> None:
    write_peers(tmp_path, make_peers(1, 3))
    backup = (tmp_path / "peers.json").read_bytes()
    write_peers(tmp_path, PeerSet(2, ()))
    sync_once(tmp_path, interface)
    (tmp_path / "peers.json").write_bytes(backup)
    with pytest.raises(StaleRevisionError, match=r"applied\.json"):
        sync_once(tmp_path, interface)
    assert held(interface) == {}
    (tmp_path / "applied.json").unlink()
    assert len(sync_once(tmp_path, interface).peers) == 3


def test_an_interface_that_is_gone_reports_nothing(tmp_path: Path, interface: Recorded, make_peers: MakePeers) -> None:
    write_peers(tmp_path, make_peers(1, 3))
    interface.gone = True
    with pytest.raises(NoSuchInterfaceError):
        sync_once(tmp_path, interface)
    assert not (tmp_path / "applied.json").exists()


def test_the_report_is_no_older_than_it_says(tmp_path: Path, interface: Recorded, make_peers: MakePeers) -> None:
    write_peers(tmp_path, make_peers(1, 1))
    ticks = iter(START + timedelta(seconds=n) for n in range(9))
    assert sync_once(tmp_path, interface, now=lambda: next(ticks)).at == START + timedelta(seconds=1)
    assert sync_once(tmp_path, interface, now=lambda: next(ticks)).at == START + timedelta(seconds=2)


def test_the_servers_own_key_as_a_peer_is_never_reported_as_held(tmp_path: Path) -> None:
    private = PrivateKey.generate()
    server = MemoryInterface(InterfaceName("wg0"), private)
    own = PeerSet(1, (Peer("dev-1", private.public_key, POOL.network_address + 7),))
    write_peers(tmp_path, own)
    assert sync_once(tmp_path, server).peers == ()


def test_a_plan_says_what_it_would_do(interface: Recorded, make_peers: MakePeers) -> None:
    peers = make_peers(1, 2)
    assert not plan(PeerSet(1, ()), interface.dump())
    todo = plan(peers, interface.dump())
    assert todo
    assert (todo.remove, todo.assign) == ((), peers.peers)


def test_the_memory_interface_is_full_where_wireguard_go_is(interface: Recorded, make_peers: MakePeers) -> None:
    keys = [PublicKey(n.to_bytes(32, "little")) for n in range(2, MAX_PEERS + 3)]
    for key in keys[:MAX_PEERS]:
        interface.set_peer(key, [])
    with pytest.raises(RefusedError, match="65536"):
        interface.set_peer(keys[MAX_PEERS], [])
    interface.set_peer(keys[0], [POOL])
    interface.remove_peers(keys[1:2])
    interface.set_peer(keys[MAX_PEERS], [])


def test_traffic_needs_a_peer(interface: Recorded) -> None:
    with pytest.raises(RefusedError):
        interface.record_traffic(PrivateKey.generate().public_key, Endpoint("192.0.2.9", 1), START, rx=1, tx=1)


def test_the_clock_is_aware() -> None:
    assert now_utc().tzinfo is UTC


class Passes:
    """Collects what a watch reports and lets a test wait for it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Applied | WireGuardError] = asyncio.Queue()

    async def applied(self) -> Applied:
        outcome = await asyncio.wait_for(self.queue.get(), 20)
        assert isinstance(outcome, Applied)
        return outcome

    async def error(self) -> WireGuardError:
        outcome = await asyncio.wait_for(self.queue.get(), 20)
        assert isinstance(outcome, WireGuardError)
        return outcome


@asynccontextmanager
async def watching(folder: Path, interface: Recorded, *, report_every: float) -> AsyncIterator[Passes]:
    passes, stop = Passes(), asyncio.Event()
    task = asyncio.create_task(
        watch(folder, interface, stop, on_pass=passes.queue.put_nowait, poll=0.01, report_every=report_every)
    )
    try:
        yield passes
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def test_a_watch_follows_the_file(tmp_path: Path, interface: Recorded, make_peers: MakePeers) -> None:
    async with watching(tmp_path, interface, report_every=3600) as passes:
        assert isinstance(await passes.error(), FileMissingError)
        for revision in (1, 2, 3):
            write_peers(tmp_path, make_peers(revision, revision))
            applied = await passes.applied()
            assert (applied.revision, len(applied.peers)) == (revision, revision)
    assert read_applied(tmp_path).revision == 3


async def test_a_watch_reports_handshakes_and_mends_an_interface_made_anew(
    tmp_path: Path, interface: Recorded, make_peers: MakePeers
) -> None:
    peers = make_peers(1, 2)
    write_peers(tmp_path, peers)
    async with watching(tmp_path, interface, report_every=0.01) as passes:
        await passes.applied()
        interface.record_traffic(peers.peers[0].public_key, Endpoint("192.0.2.9", 1), START, rx=1, tx=1)
        while (await passes.applied()).by_key()[peers.peers[0].public_key].latest_handshake != START:
            pass
        interface.remove_peers([peer.public_key for peer in peers.peers])
        while held(interface) != wanted(peers):
            await passes.applied()


async def test_a_watch_goes_on_after_an_error(tmp_path: Path, interface: Recorded, make_peers: MakePeers) -> None:
    write_peers(tmp_path, make_peers(1, 1))
    interface.gone = True
    async with watching(tmp_path, interface, report_every=0.01) as passes:
        assert isinstance(await passes.error(), NoSuchInterfaceError)
        interface.gone = False
        while isinstance(await asyncio.wait_for(passes.queue.get(), 20), WireGuardError):
            pass
    assert len(read_applied(tmp_path).peers) == 1


async def test_a_watch_that_is_told_to_stop_does_nothing(tmp_path: Path, interface: Recorded) -> None:
    stop = asyncio.Event()
    stop.set()
    passes: list[object] = []
    await watch(tmp_path, interface, stop, on_pass=passes.append)
    assert passes == []
