"""The tunnel's configuration: what an answer may hold, and that no text of it becomes a line of a file."""

from __future__ import annotations

import base64
import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enroll.errors import AnswerRejectedError
from enroll.names import HostPort
from enroll.wgconf import HEADER, TunnelConfig, interface_name
from enroll.wire import WireGuardAnswer

KEY = base64.b64encode(bytes(range(1, 33))).decode()
OWN = base64.b64encode(bytes(range(2, 34))).decode()
GOOD: dict[str, Any] = {
    "address": "10.8.0.7/32",
    "server_public_key": KEY,
    "endpoint": "vpn.example:51820",
    "allowed_ips": ("10.8.0.0/24",),
    "persistent_keepalive": 25,
}
TRAPS = "0123456789./:\n\r\t\x00 =#;%[]PostUp,\u2028"


def answered(*, allowed: tuple[str, ...] = (), forbidden: tuple[str, ...] = (), **fields: Any) -> TunnelConfig:
    return TunnelConfig.from_answer(
        WireGuardAnswer(**(GOOD | fields)),
        OWN,
        tuple(ipaddress.ip_network(n) for n in allowed),
        tuple(ipaddress.ip_address(a) for a in forbidden),
    )


def key_of(number: int) -> str:
    return base64.b64encode(number.to_bytes(32, "little")).decode()


def sections(content: bytes) -> list[tuple[str, list[tuple[str, str]]]]:
    """Read a file as systemd and wg do, with eyes of the test's own."""
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for line in content.decode("ascii").splitlines():
        if not line or line == HEADER:
            continue
        if line.startswith("["):
            found.append((line, []))
        else:
            key, _, value = line.partition("=")
            found[-1][1].append((key.strip(), value.strip()))
    return found


def test_the_files_of_a_good_answer() -> None:
    config = answered(allowed_ips=("10.8.0.0/24", "fd00:8::/64"))
    assert sections(config.render(OWN)) == [
        ("[Interface]", [("PrivateKey", OWN), ("Address", "10.8.0.7/32")]),
        (
            "[Peer]",
            [
                ("PublicKey", KEY),
                ("Endpoint", "vpn.example:51820"),
                ("AllowedIPs", "10.8.0.0/24, fd00:8::/64"),
                ("PersistentKeepalive", "25"),
            ],
        ),
    ]
    assert sections(config.render_for_wg(OWN))[0] == ("[Interface]", [("PrivateKey", OWN)])
    assert sections(config.render_netdev("wg0", OWN))[:2] == [
        ("[NetDev]", [("Name", "wg0"), ("Kind", "wireguard")]),
        ("[WireGuard]", [("PrivateKey", OWN)]),
    ]
    assert sections(config.render_network("wg0"))[-2:] == [
        ("[Route]", [("Destination", "10.8.0.0/24")]),
        ("[Route]", [("Destination", "fd00:8::/64")]),
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", "10.8.0.7/24"),
        ("address", "10.8.0.7\nPostUp = id"),
        ("address", "0.0.0.0/32"),
        ("address", "127.0.0.5"),
        ("address", "169.254.1.1"),
        ("address", "224.0.0.1"),
        ("address", "255.255.255.255"),
        ("address", "240.1.2.3"),
        ("address", "8.8.8.8"),
        ("address", "::1"),
        ("address", "::ffff:10.8.0.7"),
        ("address", "fe80::7"),
        ("address", "fd00::7%eth0\nPostUp = id"),
        ("address", "2606:4700::1111"),
        ("address", ""),
        ("server_public_key", KEY + "\n"),
        ("server_public_key", KEY + "\nPostUp = id"),
        ("server_public_key", KEY[:-1]),
        ("server_public_key", OWN),
        ("server_public_key", key_of(0)),
        ("server_public_key", key_of(1)),
        ("server_public_key", key_of(2**255 - 20)),
        ("server_public_key", key_of(2**255 - 19)),
        ("server_public_key", key_of(2**255 - 18)),
        ("server_public_key", key_of(2**255)),
        ("server_public_key", key_of(325606250916557431795983626356110631294008115727848805560023387167927233504)),
        ("endpoint", "vpn.example"),
        ("endpoint", "vpn.example:0"),
        ("endpoint", "vpn.example:51820\nPostUp = id"),
        ("endpoint", "vpn example:51820"),
        ("endpoint", "x" * 5000 + ":1"),
        ("endpoint", "0.0.0.0:51820"),
        ("endpoint", "239.1.1.1:51820"),
        ("endpoint", "255.255.255.255:51820"),
        ("endpoint", "[ff02::1]:51820"),
        ("endpoint", "[fe80::1%eth0]:51820"),
        ("allowed_ips", ()),
        ("allowed_ips", ("0.0.0.0/0",)),
        ("allowed_ips", ("::/0",)),
        ("allowed_ips", ("10.0.0.0/8",)),
        ("allowed_ips", ("fd00::/47",)),
        ("allowed_ips", ("10.8.0.0/16", "10.9.0.0/16")),
        ("allowed_ips", tuple(f"10.{n}.0.0/16" for n in range(32))),
        ("allowed_ips", ("fd00::/49", "fd00:0:0:8000::/49", "fd00:0:1::/48")),
        ("allowed_ips", ("127.0.0.0/16",)),
        ("allowed_ips", ("0.0.0.0/16",)),
        ("allowed_ips", ("169.254.169.254/32",)),
        ("allowed_ips", ("224.0.0.0/24",)),
        ("allowed_ips", ("::1/128",)),
        ("allowed_ips", ("::ffff:192.0.2.1/128",)),
        ("allowed_ips", ("fe80::/64",)),
        ("allowed_ips", ("10.8.0.1/24",)),
        ("allowed_ips", ("10.8.0.0/24\nPostUp = id",)),
        ("allowed_ips", ("fd00::%a\nPostUp = id/128",)),
        ("allowed_ips", ("10.8.0.0/24",) * 31 + tuple(f"10.9.{n}.0/24" for n in range(40))),
        ("persistent_keepalive", -1),
        ("persistent_keepalive", 65536),
    ],
)
def test_what_could_do_harm_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(AnswerRejectedError, match=rf"^wg\.{field}") as refused:
        answered(**{field: value})
    assert len(str(refused.value)) < 500
    assert "\n" not in str(refused.value)


def test_no_route_may_cover_the_servers_this_device_talks_to() -> None:
    for fields, forbidden in (
        ({}, ("10.8.0.1",)),
        ({"allowed_ips": ("10.8.0.0/24", "192.0.2.7/32")}, ("192.0.2.7",)),
        ({"allowed_ips": ("fd00:8::/64",)}, ("fd00:8::1",)),
        ({"endpoint": "10.8.0.1:51820"}, ()),
    ):
        with pytest.raises(AnswerRejectedError, match="outside of the tunnel"):
            answered(forbidden=forbidden, **fields)
    with pytest.raises(AnswerRejectedError, match="a server this device talks to"):
        answered(forbidden=("10.8.0.7",))
    answered(forbidden=("10.9.0.1", "fd00:8::1"))


def test_the_devices_own_configuration_may_allow_more() -> None:
    assert answered(allowed=("10.0.0.0/8",), allowed_ips=("10.0.0.0/8",), forbidden=("10.1.1.1",))
    assert answered(allowed=("0.0.0.0/0",), allowed_ips=("0.0.0.0/0",))
    with pytest.raises(AnswerRejectedError, match="wider"):
        answered(allowed=("10.0.0.0/9",), allowed_ips=("10.0.0.0/8",))
    with pytest.raises(AnswerRejectedError, match="does not belong"):
        answered(allowed=("0.0.0.0/0",), allowed_ips=("127.0.0.0/8",))


def test_honest_answers_pass() -> None:
    for fields in (
        {"allowed_ips": ("10.8.0.0/16",)},
        {"address": "100.64.3.7", "allowed_ips": ("100.64.0.0/16", "192.168.7.0/24")},
        {"address": "fd00:8::7/128", "allowed_ips": ("fd00:8::/64",), "endpoint": "[2606:4700::1]:51820"},
        {"address": "203.0.113.7", "allowed_ips": ("203.0.113.0/24",)},
        {"address": "8.8.8.8", "allowed_ips": ("8.8.8.0/24",)},
        {"endpoint": "127.0.0.1:51820"},
        {"persistent_keepalive": 0},
    ):
        assert answered(**fields)


def test_a_network_named_twice_is_one_route() -> None:
    assert answered(allowed_ips=("10.8.0.0/24",) * 3).allowed_ips == (ipaddress.ip_network("10.8.0.0/24"),)


@pytest.mark.parametrize("name", ["wg0", "iot-vpn", "a", "wg.1", "x" * 15])
def test_names_of_interfaces(name: str) -> None:
    assert interface_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-x", "all", "interfaces", ".", "..", "x" * 16, "a/b", "wg*", "a b", "wg0\n", "ü"]
)
def test_what_is_no_name_of_an_interface(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        interface_name(name)
    for render in (lambda: answered().render_netdev(name, OWN), lambda: answered().render_network(name)):
        with pytest.raises(ValueError, match="no name"):
            render()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 400,
        answered().render(OWN)[:-60],
        answered().render(OWN) + b"PostUp = id\n",
        answered().render(OWN) + b"[Peer]\n",
        answered().render(OWN).replace(b"[Peer]", b"DNS = 1.1.1.1\n[Peer]"),
        answered().render(OWN).replace(b"10.8.0.7/32", b"10.8.0.7/24"),
        answered().render(OWN).replace(OWN.encode(), b"<REPLACE>"),
        answered().render(OWN).replace(b"[Interface]\n", b""),
        "[Interface]\nPrivateKey = ü\n".encode(),
    ],
)
def test_a_file_that_is_not_ours_is_told_without_its_content(content: bytes) -> None:
    with pytest.raises(ValueError, match="is not as this agent writes it") as told:
        TunnelConfig.parse(content)
    assert OWN not in str(told.value)


def test_a_private_key_that_is_none_is_never_rendered_nor_shown() -> None:
    for bad in ("", "x\nPostUp = id", KEY + "\n", key_of(0)):
        with pytest.raises(ValueError, match="no WireGuard key") as told:
            answered().render(bad)
        assert not bad.strip() or bad not in str(told.value)


hostile = st.one_of(st.text(max_size=60), st.text(TRAPS, max_size=40))
hosts = st.one_of(
    st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]([a-z0-9-]{0,20}[a-z0-9])?){0,3}", fullmatch=True),
    st.ip_addresses().map(str),
)
networks = st.one_of(
    st.builds(
        lambda ip, prefix: ipaddress.ip_network((ip, prefix), strict=False), st.ip_addresses(v=4), st.integers(16, 32)
    ),
    st.builds(
        lambda ip, prefix: ipaddress.ip_network((ip, prefix), strict=False), st.ip_addresses(v=6), st.integers(48, 128)
    ),
)
endpoints = st.builds(HostPort, hosts, st.integers(1, 65535)).map(str)
answers = st.builds(
    WireGuardAnswer,
    address=st.one_of(st.ip_addresses().map(str), hostile),
    server_public_key=st.one_of(
        st.binary(min_size=32, max_size=32).map(lambda b: base64.b64encode(b).decode()), hostile
    ),
    endpoint=st.one_of(endpoints, hostile),
    allowed_ips=st.lists(st.one_of(networks.map(str), hostile), max_size=4).map(tuple),
    persistent_keepalive=st.integers(-1, 70000),
)
# Each hostile field beside good ones too: an answer of five random fields hardly ever passes.
one_field = st.one_of(
    st.builds(lambda v: {"address": v}, hostile),
    st.builds(lambda v: {"address": f"fd00::1%{v}"}, hostile),
    st.builds(lambda v: {"server_public_key": KEY + v}, hostile),
    st.builds(lambda v: {"endpoint": v}, st.one_of(endpoints, hostile)),
    st.builds(lambda v: {"endpoint": f"vpn.example:51820{v}"}, hostile),
    st.builds(lambda v: {"allowed_ips": tuple(v)}, st.lists(st.one_of(networks.map(str), hostile), max_size=4)),
    st.builds(lambda v: {"persistent_keepalive": v}, st.integers(-5, 70000)),
)


@given(st.one_of(answers, one_field.map(lambda fields: WireGuardAnswer(**(GOOD | fields)))))
def test_whatever_is_accepted_renders_to_its_own_values_and_nothing_else(answer: WireGuardAnswer) -> None:
    try:
        config = TunnelConfig.from_answer(answer, OWN)
    except AnswerRejectedError:
        return
    assert TunnelConfig.parse(config.render(OWN)) == (config, OWN)
    assert b"%" not in config.render(OWN) + config.render_network("wg0")  # a zone: Python lets it hold any character
    keepalive = [("PersistentKeepalive", str(config.persistent_keepalive))] if config.persistent_keepalive else []
    routes = ", ".join(str(n) for n in config.allowed_ips)
    peer = [("PublicKey", config.server_public_key), ("Endpoint", str(config.endpoint)), ("AllowedIPs", routes)]
    peer += keepalive
    address = ("Address", str(config.address))
    assert sections(config.render(OWN)) == [("[Interface]", [("PrivateKey", OWN), address]), ("[Peer]", peer)]
    assert sections(config.render_for_wg(OWN)) == [("[Interface]", [("PrivateKey", OWN)]), ("[Peer]", peer)]
    assert sections(config.render_netdev("wg0", OWN)) == [
        ("[NetDev]", [("Name", "wg0"), ("Kind", "wireguard")]),
        ("[WireGuard]", [("PrivateKey", OWN)]),
        ("[WireGuardPeer]", peer),
    ]
    assert sections(config.render_network("wg0")) == [
        ("[Match]", [("Name", "wg0")]),
        ("[Link]", [("RequiredForOnline", "no")]),
        ("[Network]", [address, ("LinkLocalAddressing", "no"), ("IPv6AcceptRA", "no")]),
        *[("[Route]", [("Destination", str(network))]) for network in config.allowed_ips],
    ]
