import ipaddress

import pytest

from wireguard.addresses import Endpoint, Pool, host_network, in_order, parse_address, parse_network
from wireguard.errors import InvalidAddressError


def test_a_pool_of_24_bits() -> None:
    pool = Pool.parse("10.8.0.0/24")
    assert str(pool.server_address) == "10.8.0.1"
    assert (str(pool.address(pool.first)), str(pool.address(pool.last))) == ("10.8.0.2", "10.8.0.254")
    assert pool.capacity == 253


def test_a_larger_subnet_does_not_end_at_254_peers() -> None:
    pool = Pool.parse("10.8.0.0/16")
    assert pool.capacity == 65533
    assert parse_address("10.8.1.0") in pool


def test_numbers_stay_the_same_when_the_subnet_grows() -> None:
    address = parse_address("10.8.0.77")
    assert Pool.parse("10.8.0.0/24").number(address) == Pool.parse("10.8.0.0/16").number(address)


@pytest.mark.parametrize("outside", ["10.8.0.0", "10.8.0.1", "10.8.0.255", "10.8.1.2", "10.7.255.255", "2001:db8::2"])
def test_network_server_broadcast_and_strangers_are_no_device_addresses(outside: str) -> None:
    pool, address = Pool.parse("10.8.0.0/24"), parse_address(outside)
    assert address not in pool
    with pytest.raises(InvalidAddressError):
        pool.number(address)


def test_a_number_outside_the_pool_is_refused() -> None:
    pool = Pool.parse("10.8.0.0/24")
    for number in (pool.first - 1, pool.last + 1, 0, -1):
        with pytest.raises(InvalidAddressError):
            pool.address(number)


def test_only_addresses_are_in_a_pool() -> None:
    assert "10.8.0.7" not in Pool.parse("10.8.0.0/24")


def test_the_smallest_pool_has_one_device() -> None:
    pool = Pool.parse("10.8.0.0/30")
    assert pool.capacity == 1
    assert str(pool.address(pool.first)) == "10.8.0.2"


def test_a_pool_of_ipv6_has_no_broadcast() -> None:
    pool = Pool.parse("fd00:8::/120")
    assert str(pool.server_address) == "fd00:8::1"
    assert str(pool.address(pool.last)) == "fd00:8::ff"
    assert pool.capacity == 254


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "10.8.0.0",
        "10.8.0.1/24",
        "10.8.0.0/31",
        "10.8.0.0/33",
        "0.0.0.0/0",
        "::/0",
        "127.0.0.0/8",
        "224.0.0.0/4",
        "10.8.0.0/24\n",
        "10.8.0.0/24\nPostUp = id",
        "10.8.0.0/24, 0.0.0.0/0",
        "fe80::%eth0/64",
    ],
)
def test_a_subnet_that_cannot_number_devices_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidAddressError):
        Pool.parse(wrong)


@pytest.mark.parametrize(
    "attack",
    ["", "10.8.0.7\n", "10.8.0.7/32", "010.8.0.7", "10.8.0", "fe80::1%eth0", "fe80::1%a\nPostUp = id", "\u0661.1.1.1"],
)
def test_an_address_is_one_address_without_zone(attack: str) -> None:
    with pytest.raises(InvalidAddressError):
        parse_address(attack)


def test_a_zone_does_not_enter_by_a_network_either() -> None:
    with pytest.raises(InvalidAddressError):
        parse_network("fe80::1%a\nPostUp = id")


def test_a_bare_address_is_a_network_of_one() -> None:
    assert parse_network("10.8.0.7") == host_network(parse_address("10.8.0.7")) == ipaddress.ip_network("10.8.0.7/32")


def test_networks_come_in_one_order() -> None:
    texts = ["fd00::/8", "10.8.0.9", "10.8.0.10", "10.8.0.9"]
    assert [str(net) for net in in_order(map(parse_network, texts))] == ["10.8.0.9/32", "10.8.0.10/32", "fd00::/8"]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("vpn.example.com:51820", "vpn.example.com", 51820),
        ("localhost:1", "localhost", 1),
        ("192.0.2.1:65535", "192.0.2.1", 65535),
        ("[2001:db8::1]:51820", "2001:db8::1", 51820),
        ("wg_server:51820", "wg_server", 51820),
    ],
)
def test_an_endpoint_reads_and_writes_the_same(text: str, host: str, port: int) -> None:
    endpoint = Endpoint.parse(text)
    assert (endpoint.host, endpoint.port, str(endpoint)) == (host, port, text)


@pytest.mark.parametrize(
    "attack",
    [
        "",
        "vpn.example.com",
        ":51820",
        "vpn.example.com:",
        "vpn.example.com:0",
        "vpn.example.com:65536",
        "vpn.example.com:99999999",
        "vpn.example.com:51820\n",
        "vpn.example.com\n:51820",
        "vpn.example.com:51820\nPostUp = id",
        "a\n[Interface]\nPostUp = id\n:51820",
        "2001:db8::1:51820",
        "[2001:db8::1%eth0]:51820",
        "[fe80::1%a\nPostUp = id]:51820",
        "[vpn.example.com]:51820",
        "vpn example.com:51820",
        "-vpn.example.com:51820",
        "vpn..example.com:51820",
        "256.1.1.1:51820",
        "1.2.3:51820",
        "https://vpn.example.com:51820",
        "vpn.example.com:\u0661",
        "vpn.ex\u00e4mple.com:51820",
        "a" * 64 + ".com:1",
        "a." * 127 + "com:1",
        "vpn.example.com :51820",
        "vpn.example.com:+51820",
    ],
)
def test_an_endpoint_is_one_host_and_one_port(attack: str) -> None:
    with pytest.raises(InvalidAddressError):
        Endpoint.parse(attack)


def test_a_port_is_a_number() -> None:
    for port in (True, "51820", 1.5):
        with pytest.raises(InvalidAddressError):
            Endpoint("vpn.example.com", port)  # type: ignore[arg-type]
