from configparser import ConfigParser
from ipaddress import IPv6Address

import pytest

from wireguard.addresses import Endpoint, parse_address, parse_network
from wireguard.errors import InvalidAddressError, InvalidPeerError, InvalidValueError
from wireguard.keys import PublicKey
from wireguard.peers import Peer, PeerSet
from wireguard.render import PRIVATE_KEY_PLACEHOLDER, DeviceConfig, render_device, render_peers

SERVER = PublicKey.parse("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=")
DEVICE = PublicKey.parse("3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=")
CONFIG = DeviceConfig(
    address=parse_address("10.8.0.7"),
    server_public_key=SERVER,
    endpoint=Endpoint.parse("vpn.example.com:51820"),
    allowed_ips=(parse_network("10.8.0.0/24"),),
)


def test_a_device_gets_its_configuration_without_a_private_key() -> None:
    assert render_device(CONFIG) == (
        "[Interface]\n"
        "Address = 10.8.0.7/32\n"
        "\n"
        "[Peer]\n"
        "PublicKey = hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n"
        "Endpoint = vpn.example.com:51820\n"
        "AllowedIPs = 10.8.0.0/24\n"
        "PersistentKeepalive = 25\n"
    )


def test_the_old_dialect_finds_its_placeholder() -> None:
    with_line = render_device(CONFIG, placeholder=True)
    assert "\nPrivateKey = <REPLACE_WITH_DEVICE_PRIVATE_KEY>\n" in with_line
    assert with_line.replace(f"PrivateKey = {PRIVATE_KEY_PLACEHOLDER}\n", "") == render_device(CONFIG)


def test_what_is_written_is_ini_with_exactly_two_sections() -> None:
    parser = ConfigParser()
    parser.read_string(render_device(CONFIG, placeholder=True))
    assert parser.sections() == ["Interface", "Peer"]
    assert set(parser["Interface"]) == {"privatekey", "address"}


def test_ipv6_and_no_keepalive() -> None:
    config = DeviceConfig(
        parse_address("fd00::7"), SERVER, Endpoint("2001:db8::1", 51820), (parse_network("fd00::/64"),), None
    )
    text = render_device(config)
    assert "Address = fd00::7/128\n" in text
    assert "Endpoint = [2001:db8::1]:51820\n" in text
    assert "PersistentKeepalive" not in text


@pytest.mark.parametrize("keepalive", [0, -1, 65536])
def test_a_keepalive_that_wg_would_refuse_is_refused(keepalive: int) -> None:
    with pytest.raises(InvalidValueError):
        DeviceConfig(CONFIG.address, SERVER, CONFIG.endpoint, CONFIG.allowed_ips, keepalive)


def test_a_tunnel_to_nowhere_is_refused() -> None:
    with pytest.raises(InvalidValueError):
        DeviceConfig(CONFIG.address, SERVER, CONFIG.endpoint, ())


def test_an_address_with_a_zone_does_not_reach_a_file() -> None:
    attack = IPv6Address("fe80::1%x\nPostUp = touch owned\n")
    with pytest.raises(InvalidAddressError):
        DeviceConfig(attack, SERVER, CONFIG.endpoint, CONFIG.allowed_ips)
    with pytest.raises(InvalidAddressError):
        Peer("dev-1", DEVICE, attack)


def test_the_server_gets_peer_sections_and_nothing_else() -> None:
    peers = [Peer("dev-1", DEVICE, parse_address("10.8.0.7")), Peer("dev-2", SERVER, parse_address("fd00::8"))]
    assert render_peers(peers) == (
        f"[Peer]\nPublicKey = {DEVICE}\nAllowedIPs = 10.8.0.7/32\n"
        "\n"
        f"[Peer]\nPublicKey = {SERVER}\nAllowedIPs = fd00::8/128\n"
    )


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", "-a", "a-", "a b", "a\n", "a\n[Peer]", "\u00e4", "a" * 65, ".hidden", "a\x00b"]
)
def test_a_peer_has_a_device_id(name: str) -> None:
    with pytest.raises(InvalidPeerError):
        Peer(name, DEVICE, parse_address("10.8.0.7"))


@pytest.mark.parametrize(
    ("name", "key", "address", "what"),
    [
        ("DEV-1", SERVER, "10.8.0.8", "device id"),
        ("dev-2", DEVICE, "10.8.0.8", "public key"),
        ("dev-2", SERVER, "10.8.0.7", "address"),
    ],
)
def test_a_set_gives_nothing_twice(name: str, key: PublicKey, address: str, what: str) -> None:
    first = Peer("dev-1", DEVICE, parse_address("10.8.0.7"))
    with pytest.raises(InvalidPeerError, match=what):
        PeerSet(1, (first, Peer(name, key, parse_address(address))))


@pytest.mark.parametrize("revision", [-1, True, "1", 1.0])
def test_a_revision_is_a_whole_number(revision: int) -> None:
    with pytest.raises(InvalidPeerError):
        PeerSet(revision, ())
