"""Laws of `wireguard`: what goes in comes out, nothing escapes its line, a plan reaches what is wanted."""

import contextlib
import ipaddress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from wireguard.addresses import Endpoint, Pool, host_network, in_order
from wireguard.documents import Document
from wireguard.errors import InvalidValueError, MalformedFileError, PeerFileError
from wireguard.interface import InterfaceName
from wireguard.keys import PrivateKey, PublicKey
from wireguard.peers import Peer, PeerSet
from wireguard.peers_file import read_peers, write_peers
from wireguard.render import DeviceConfig, render_device, render_peers
from wireguard.standin import MemoryInterface
from wireguard.sync import plan

raw_keys = st.binary(min_size=32, max_size=32).filter(any)
public_keys = raw_keys.map(lambda raw: PrivateKey(raw).public_key)
networks = st.builds(
    lambda bits, length: ipaddress.IPv4Network((bits, length), strict=False),
    st.integers(0x0A000000, 0x0AFFFFFF),
    st.integers(8, 30),
)
hosts = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?(\.[a-z][a-z0-9]{0,5}){0,3}", fullmatch=True).filter(
    lambda name: not name.split(".")[-1].isdigit()
)
ip_hosts = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
endpoints = st.builds(Endpoint, st.one_of(hosts, ip_hosts), st.integers(1, 65535))

# A small world, so that keys and addresses meet again and again.
KEYS = [PrivateKey(bytes([n]) * 32).public_key for n in range(1, 9)]
ADDRESSES = [ipaddress.IPv4Address(f"10.8.0.{n}") for n in range(2, 10)]
worlds = st.builds(
    lambda keys, addresses: PeerSet(
        1,
        tuple(Peer(f"dev-{n}", key, address) for n, (key, address) in enumerate(zip(keys, addresses, strict=False))),
    ),
    st.lists(st.sampled_from(KEYS), unique=True),
    st.lists(st.sampled_from(ADDRESSES), unique=True),
)
manual_peers = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.lists(st.sampled_from([*map(host_network, ADDRESSES), ipaddress.ip_network("10.9.0.0/16")]), max_size=3),
    ),
    max_size=8,
)


@given(raw_keys)
def test_keys_read_as_they_are_written(raw: bytes) -> None:
    private = PrivateKey(raw)
    assert PrivateKey.parse(private.reveal()) == private
    assert PublicKey.parse(str(private.public_key)) == private.public_key
    assert private.reveal() not in repr(private)


@given(st.text(max_size=60))
def test_text_is_a_key_only_if_it_is_exactly_what_we_would_write(text: str) -> None:
    with contextlib.suppress(InvalidValueError):
        assert str(PublicKey.parse(text)) == text


@given(networks, st.data())
def test_numbers_and_addresses_of_a_pool_are_one_to_one(network: ipaddress.IPv4Network, data: st.DataObject) -> None:
    pool = Pool(network)
    number = data.draw(st.integers(pool.first, pool.last))
    address = pool.address(number)
    assert address in pool
    assert pool.number(address) == number
    assert pool.server_address not in pool
    assert address in network
    assert address not in {network.network_address, network.broadcast_address}


@given(networks)
def test_a_pool_holds_every_host_but_the_server(network: ipaddress.IPv4Network) -> None:
    pool = Pool(network)
    assert pool.capacity == pool.last - pool.first + 1 == network.num_addresses - 3


@given(endpoints)
def test_endpoints_read_as_they_are_written(endpoint: Endpoint) -> None:
    assert Endpoint.parse(str(endpoint)) == endpoint


@given(st.one_of(st.text(max_size=40), st.text("[]:.%\n\r aA19", max_size=40)))
def test_whatever_is_an_endpoint_is_one_line_of_plain_characters(text: str) -> None:
    with contextlib.suppress(InvalidValueError):
        written = str(Endpoint.parse(text))
        assert written.isascii()
        assert written.isprintable()
        assert not set(written) & set(" \n\r\t=#%")


@given(st.builds(DeviceConfig, st.ip_addresses(v=4), public_keys, endpoints, st.lists(networks, min_size=1).map(tuple)))
@settings(max_examples=50)
def test_a_configuration_has_two_sections_and_no_line_of_its_own(config: DeviceConfig) -> None:
    lines = render_device(config, placeholder=True).splitlines()
    assert [line for line in lines if line.startswith("[")] == ["[Interface]", "[Peer]"]
    names = [line.split(" = ")[0] for line in lines if " = " in line]
    assert names == ["PrivateKey", "Address", "PublicKey", "Endpoint", "AllowedIPs", "PersistentKeepalive"]
    assert len(lines) == len(names) + 3


@given(worlds)
def test_each_peer_is_one_section(world: PeerSet) -> None:
    lines = render_peers(world.peers).splitlines()
    assert lines.count("[Peer]") == len(world.peers)
    assert len(lines) == max(0, len(world.peers) * 4 - 1)


@given(world=worlds)
@settings(max_examples=30)
def test_peers_survive_the_file(world: PeerSet, tmp_path_factory: object) -> None:
    folder = Path(tmp_path_factory.mktemp("peers"))  # type: ignore[attr-defined]
    write_peers(folder, world)
    assert read_peers(folder) == world


@given(st.one_of(st.binary(max_size=200), st.text('{}[]":,0123456789.truefalsn ', max_size=80).map(str.encode)))
def test_no_bytes_break_the_reader(content: bytes) -> None:
    path = Path("peers.json")
    try:
        document = Document.parse(path, content)
        document.whole("revision")
        document.objects("peers")
    except (MalformedFileError, PeerFileError) as error:
        assert error.path == path  # noqa: PT017 - either outcome is right, anything else is not


@given(manual=manual_peers, world=worlds, only_ours=st.booleans())
@settings(max_examples=300)
def test_a_plan_brings_any_interface_to_exactly_what_is_wanted(
    manual: list[tuple[PublicKey, list[ipaddress.IPv4Network]]],
    world: PeerSet,
    *,
    only_ours: bool,
) -> None:
    interface = MemoryInterface(InterfaceName("wg0"), PrivateKey(bytes([99]) * 32))
    for key, allowed in manual:
        interface.set_peer(key, allowed)
    owned = ipaddress.ip_network("10.8.0.0/24") if only_ours else None
    wanted = {peer.public_key: (peer.allowed_ip,) for peer in world.peers}
    before = interface.dump()
    spared = {
        peer.public_key: peer.allowed_ips
        for peer in before.peers
        if only_ours and peer.public_key not in wanted and peer.allowed_ips == (ipaddress.ip_network("10.9.0.0/16"),)
    }
    todo = plan(world, before, owned=owned)
    interface.remove_peers(todo.remove)
    interface.set_peers(todo.assign)
    after = interface.dump()
    assert {peer.public_key: peer.allowed_ips for peer in after.peers} == {**spared, **wanted}
    assert not plan(world, after, owned=owned)


@given(manual_peers)
def test_in_memory_too_an_address_has_one_owner_and_the_last_one_wins(
    manual: list[tuple[PublicKey, list[ipaddress.IPv4Network]]],
) -> None:
    interface = MemoryInterface(InterfaceName("wg0"), PrivateKey(bytes([99]) * 32))
    model: dict[ipaddress.IPv4Network, PublicKey] = {}
    for key, allowed in manual:
        interface.set_peer(key, allowed)
        model = {network: owner for network, owner in model.items() if owner != key}
        model.update(dict.fromkeys(allowed, key))
    shown = {network: peer.public_key for peer in interface.dump().peers for network in peer.allowed_ips}
    assert shown == model
    for peer in interface.dump().peers:
        assert peer.allowed_ips == in_order(peer.allowed_ips)
