"""What every interface does, the one in memory and the one of wireguard-go driven by `wg`."""

from pathlib import Path

from wireguard.addresses import Network, Pool, parse_address, parse_network
from wireguard.applied_file import read_applied
from wireguard.interface import Interface
from wireguard.keys import PeerKey, PrivateKey, PublicKey
from wireguard.peers import Peer, PeerSet
from wireguard.peers_file import write_peers
from wireguard.sync import sync_once

POOL = Pool.parse("10.8.0.0/20")
SEVEN, EIGHT, NINE = (parse_network(f"10.8.0.{n}/32") for n in (7, 8, 9))


def new_key() -> PublicKey:
    return PrivateKey.generate().public_key


def held(interface: Interface) -> dict[PeerKey, tuple[Network, ...]]:
    return {peer.public_key: peer.allowed_ips for peer in interface.dump().peers}


def fleet(revision: int, count: int) -> PeerSet:
    return PeerSet(revision, tuple(Peer(f"dev-{n}", new_key(), POOL.address(POOL.first + n)) for n in range(count)))


def wanted(peers: PeerSet) -> dict[PublicKey, tuple[Network, ...]]:
    return {peer.public_key: (peer.allowed_ip,) for peer in peers.peers}


def test_an_empty_interface_shows_its_key_and_port(interface: Interface) -> None:
    state = interface.dump()
    assert state.public_key is not None
    assert state.listen_port == 51820
    assert state.peers == ()


def test_a_new_peer_has_shaken_no_hands(interface: Interface) -> None:
    key = new_key()
    interface.set_peer(key, [SEVEN])
    (peer,) = interface.dump().peers
    assert (peer.public_key, peer.allowed_ips) == (key, (SEVEN,))
    assert (peer.endpoint, peer.latest_handshake, peer.rx, peer.tx) == (None, None, 0, 0)


def test_setting_a_peer_again_replaces_its_addresses(interface: Interface) -> None:
    key = new_key()
    interface.set_peer(key, [SEVEN, EIGHT])
    interface.set_peer(key, [NINE, EIGHT])
    assert held(interface) == {key: (EIGHT, NINE)}
    interface.set_peer(key, [])
    assert held(interface) == {key: ()}


def test_an_address_given_to_another_peer_moves_silently(interface: Interface) -> None:
    first, second = new_key(), new_key()
    interface.set_peer(first, [SEVEN, EIGHT])
    interface.set_peer(second, [SEVEN])
    assert held(interface) == {first: (EIGHT,), second: (SEVEN,)}
    interface.remove_peers([second])
    assert held(interface) == {first: (EIGHT,)}


def test_the_same_address_with_another_prefix_is_another_network(interface: Interface) -> None:
    first, second = new_key(), new_key()
    wide = parse_network("10.8.0.0/24")
    interface.set_peer(first, [wide])
    interface.set_peer(second, [SEVEN])
    assert held(interface) == {first: (wide,), second: (SEVEN,)}


def test_ipv6_peers(interface: Interface) -> None:
    key = new_key()
    interface.set_peer(key, [parse_network("fd00:8::7/128"), SEVEN])
    assert held(interface) == {key: (SEVEN, parse_network("fd00:8::7/128"))}


def test_many_at_once_replace_like_one_and_the_last_one_wins(interface: Interface) -> None:
    first, second = new_key(), new_key()
    address = parse_address("10.8.0.7")
    interface.set_peer(first, [EIGHT, NINE])
    interface.set_peers([Peer("dev-1", first, address)])
    assert held(interface) == {first: (SEVEN,)}
    interface.set_peers([Peer("dev-1", first, address), Peer("dev-2", second, address)])
    assert held(interface) == {first: (), second: (SEVEN,)}


def test_setting_many_leaves_the_others_and_the_interface_itself_alone(interface: Interface) -> None:
    other = new_key()
    interface.set_peer(other, [NINE])
    before = interface.dump()
    interface.set_peers([Peer("dev-1", new_key(), parse_address("10.8.0.7"))])
    after = interface.dump()
    assert (after.public_key, after.listen_port) == (before.public_key, before.listen_port)
    assert held(interface)[other] == (NINE,)


def test_removing_is_for_any_key_present_or_not(interface: Interface) -> None:
    stays, goes = new_key(), new_key()
    interface.set_peer(stays, [SEVEN])
    interface.set_peer(goes, [EIGHT])
    interface.remove_peers([goes, new_key(), PeerKey(bytes(32))])
    assert held(interface) == {stays: (SEVEN,)}
    interface.remove_peers([goes])
    assert held(interface) == {stays: (SEVEN,)}


def test_the_interfaces_own_key_is_silently_no_peer(interface: Interface) -> None:
    own = interface.dump().public_key
    assert own is not None
    interface.set_peer(PublicKey(own.raw), [SEVEN])
    interface.set_peers([Peer("dev-1", PublicKey(own.raw), parse_address("10.8.0.7"))])
    assert held(interface) == {}


def test_nothing_at_once_is_nothing(interface: Interface) -> None:
    interface.set_peers([])
    interface.remove_peers([])
    assert held(interface) == {}


def test_a_sync_of_a_thousand_peers_then_of_few_changes(interface: Interface, tmp_path: Path) -> None:
    fleet_1 = fleet(1, 1000)
    write_peers(tmp_path, fleet_1)
    assert sync_once(tmp_path, interface).revision == 1
    assert held(interface) == wanted(fleet_1)
    fresh = Peer("dev-fresh", new_key(), fleet_1.peers[0].address)
    fleet_2 = PeerSet(2, (*fleet_1.peers[3:], fresh))
    write_peers(tmp_path, fleet_2)
    applied = sync_once(tmp_path, interface)
    assert held(interface) == wanted(fleet_2)
    assert read_applied(tmp_path) == applied
    assert set(applied.by_key()) == set(wanted(fleet_2))


def test_a_sync_that_turns_every_address_round(interface: Interface, tmp_path: Path) -> None:
    before = fleet(1, 50)
    write_peers(tmp_path, before)
    sync_once(tmp_path, interface)
    addresses = [peer.address for peer in before.peers]
    turned = PeerSet(
        2,
        tuple(
            Peer(peer.device_id, peer.public_key, address)
            for peer, address in zip(before.peers, [*addresses[1:], addresses[0]], strict=True)
        ),
    )
    write_peers(tmp_path, turned)
    sync_once(tmp_path, interface)
    assert held(interface) == wanted(turned)


def test_a_sync_removes_more_peers_than_one_call_takes(interface: Interface, tmp_path: Path) -> None:
    write_peers(tmp_path, fleet(1, 1200))
    assert len(sync_once(tmp_path, interface).peers) == 1200
    write_peers(tmp_path, PeerSet(2, ()))
    assert sync_once(tmp_path, interface).peers == ()


def test_a_sync_removes_foreign_peers_but_spares_those_outside_the_subnet_if_told(
    interface: Interface, tmp_path: Path
) -> None:
    inside, outside = new_key(), new_key()
    far = parse_network("10.99.0.0/16")
    peers = fleet(1, 2)
    write_peers(tmp_path, peers)
    interface.set_peer(inside, [parse_network("10.8.15.1/32")])
    interface.set_peer(outside, [far])
    sync_once(tmp_path, interface, owned=POOL.network)
    assert held(interface) == {**wanted(peers), outside: (far,)}
    sync_once(tmp_path, interface)
    assert held(interface) == wanted(peers)


def test_a_sync_takes_an_address_back_from_a_foreign_peer(interface: Interface, tmp_path: Path) -> None:
    peers = fleet(1, 3)
    write_peers(tmp_path, peers)
    sync_once(tmp_path, interface)
    interface.set_peer(new_key(), [peers.peers[0].allowed_ip])
    sync_once(tmp_path, interface)
    assert held(interface) == wanted(peers)
