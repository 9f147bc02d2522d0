"""Laws of the agent's values: nothing that parses can harm, nothing that is written comes back changed."""

from __future__ import annotations

import base64
import ipaddress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enroll.backoff import MAX_RETRY_AFTER, Backoff
from enroll.errors import AnswerRejectedError
from enroll.names import BridgeUrl, DeviceId, Fingerprint, HostPort
from enroll.printable import printable
from enroll.record import Record, RecordError
from enroll.wgconf import WIDEST, TunnelConfig
from enroll.wire import WireGuardAnswer

KEY = base64.b64encode(bytes(range(32))).decode()
hosts = st.one_of(
    st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]([a-z0-9-]{0,20}[a-z0-9])?){0,3}", fullmatch=True),
    st.ip_addresses().map(str),
)
servers = st.builds(HostPort, hosts, st.integers(1, 65535))
times = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001 - timezones gives it
    lambda moment: moment.replace(microsecond=0)
)
hostile = st.one_of(st.text(max_size=60), st.text("0123456789./:\n\r =PostUp[]%,", max_size=40))


@given(hostile, hostile, hostile, st.lists(hostile, max_size=3), st.integers())
def test_whatever_is_accepted_renders_to_exactly_the_lines_of_its_kind(
    address: str, key: str, endpoint: str, allowed: list[str], keepalive: int
) -> None:
    for answer in (
        WireGuardAnswer(address, KEY, "vpn.example:1", ("10.8.0.0/24",), 25),
        WireGuardAnswer("10.8.0.7/32", key, "vpn.example:1", ("10.8.0.0/24",), 25),
        WireGuardAnswer("10.8.0.7/32", KEY, endpoint, ("10.8.0.0/24",), 25),
        WireGuardAnswer("10.8.0.7/32", KEY, "vpn.example:1", tuple(allowed), keepalive),
    ):
        try:
            config = TunnelConfig.from_answer(answer, own_public_key="")
        except AnswerRejectedError:
            continue
        lines = config.render(KEY).decode().splitlines()
        names = [line.split(" = ")[0] for line in lines if " = " in line]
        wanted = ["PrivateKey", "Address", "PublicKey", "Endpoint", "AllowedIPs", "PersistentKeepalive"]
        assert names == wanted[: len(names)]
        assert len(names) >= 5
        assert len(lines) == len(names) + 4
        assert all(network.prefixlen >= WIDEST[network.version] for network in config.allowed_ips)


@given(st.ip_addresses(), st.integers(0, 128))
def test_an_address_is_one_address_of_a_device(ip: ipaddress.IPv4Address, prefix: int) -> None:
    answer = WireGuardAnswer(f"{ip}/{prefix}", KEY, "vpn.example:1", ("10.8.0.0/24",), 25)
    try:
        config = TunnelConfig.from_answer(answer, own_public_key="")
    except AnswerRejectedError:
        return
    assert config.address.network.num_addresses == 1
    assert not (ip.is_loopback)
    assert not (ip.is_multicast)
    assert not (ip.is_unspecified)


@given(st.text(max_size=80))
def test_a_device_id_never_leaves_its_path_segment(text: str) -> None:
    try:
        value = DeviceId(text).value
    except ValueError:
        return
    assert value == text
    assert 1 <= len(value) <= 64
    assert value.isascii()
    assert not set(value) & set("/\\?#% \n\r\t:@")
    assert value not in {".", ".."}


@given(st.binary(min_size=32, max_size=32))
def test_a_fingerprint_is_the_same_in_every_spelling(raw: bytes) -> None:
    one = Fingerprint(raw.hex())
    assert Fingerprint.parse(raw.hex().upper()) == one
    assert Fingerprint.parse(raw.hex(":")) == one
    assert Fingerprint.parse(f" {raw.hex(':').upper()}\n") == one


@given(servers)
def test_a_server_survives_its_text(server: HostPort) -> None:
    assert HostPort.parse(str(server)) == server


@given(servers, st.sampled_from(["", "/", "/api", "/a/b/"]))
def test_a_base_url_survives_its_text(server: HostPort, path: str) -> None:
    once = BridgeUrl.parse(f"https://{server}{path}")
    assert BridgeUrl.parse(str(once)) == once
    assert not str(once).endswith("/")


@given(
    st.builds(
        Record,
        device_id=st.just("dev-1"),
        generation=st.integers(1, 2**31 - 1),
        serial=st.integers(1, 2**160 - 1),
        leaf_sha256=st.just("ab" * 32),
        address=st.none() | st.ip_addresses().map(str),
        not_after=times,
        renew_after=times,
        enrolled_at=times,
        bridge=st.just("https://bridge.example"),
        endpoint=st.none() | servers,
        mqtt=st.none() | servers,
        hawkbit_url=st.just("https://hawkbit.example"),
        hawkbit_tenant=st.text(max_size=20),
    )
)
def test_the_flag_survives_its_file_and_a_part_of_it_is_never_taken_for_it(record: Record) -> None:
    content = record.to_json()
    assert Record.from_json(content) == record
    for cut in (0, 1, len(content) // 2, len(content) - 3):
        with pytest.raises(RecordError):
            Record.from_json(content[:cut])


@given(st.binary(max_size=200) | st.sampled_from([b"[]", b"{}", b'"x"', b"null", b'{"version":1}', b"10.8.0.7"]))
def test_foreign_content_is_no_flag(content: bytes) -> None:
    with pytest.raises(RecordError):
        Record.from_json(content)


@given(
    st.integers(1, 10_000),
    st.none() | st.floats(-10, 1e6),
    st.floats(0, 1),
    st.floats(0.01, 10),
    st.floats(10, 100),
)
def test_waits_are_bounded_and_never_undercut_what_was_asked(
    failures: int, asked: float | None, luck: float, base: float, cap: float
) -> None:
    delay = Backoff(base, cap).delay(failures, asked, lambda low, high: low + luck * (high - low))
    assert 0 <= delay <= MAX_RETRY_AFTER + cap
    assert delay >= min(asked or 0, MAX_RETRY_AFTER)


@given(st.text())
def test_a_strangers_text_cannot_move_the_cursor(text: str) -> None:
    assert printable(text).isprintable()
