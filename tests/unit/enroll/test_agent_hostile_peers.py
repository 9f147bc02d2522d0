"""Who answers in the bridge's place, and how: strangers, neighbours, captive portals, floods, drips, and no JSON."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from enroll.errors import (
    AnswerRejectedError,
    ForeignAnswerError,
    RefusedError,
    RootMismatchError,
    TryAgainError,
    UnreachableError,
)
from enroll.names import BridgeUrl, Fingerprint
from tests.unit.enroll.hostility import A_DAY, neighbour, picture

OWN = {"device.key", "device.csr", "wg.key"}


@pytest.fixture
def waiting(device: Any, problem: Any) -> Any:
    """A device with keys that was not admitted yet."""
    device.bridge.script = [lambda _: problem(403, "not_admitted")]
    with pytest.raises(RefusedError):
        device.run(budget=1.0)
    device.bridge.requests.clear()
    return device


def refused(device: Any, kind: type[TryAgainError], words: str, **settings: Any) -> str:
    """See the run fail in these words, to be tried again, with the folder as it was; return the text."""
    before = picture(device.folder)
    with pytest.raises(kind, match=words) as caught:
        device.run(**({"budget": 1.0} | settings))
    assert picture(device.folder) == before
    assert caught.value.exit_code == 75
    assert str(caught.value).isprintable()
    return str(caught.value)


def refused_at(device: Any, other: Any, words: str, **settings: Any) -> None:
    refused(device, UnreachableError, words, bridge=BridgeUrl.parse(other.url), **settings)
    assert other.posts == []


# -- roots -----------------------------------------------------------------------------------------------------------


def test_a_wrong_root_ends_the_run_at_once_and_shows_both(waiting: Any, pki: Any) -> None:
    wrong = "ab" * 32
    text = refused(waiting, RootMismatchError, "nothing was stored", root_pins=(Fingerprint(wrong),), budget=90.0)
    assert wrong in text
    assert pki.sha256 in text
    assert waiting.clock.slept == []
    assert [method for method, _, _ in waiting.bridge.requests] == ["GET"]


def test_a_pinned_certificate_that_is_no_root_is_refused(waiting: Any, pki: Any, reply: Any) -> None:
    waiting.bridge.root = lambda: reply({"ca": pki.pem(pki.sub.certificate)})
    pins = (Fingerprint(pki.digest(pki.sub.certificate)),)
    refused(waiting, AnswerRejectedError, "was not issued by", root_pins=pins)
    assert waiting.bridge.posts == []


@pytest.mark.parametrize("body", [{"ca": ""}, {"ca": "x"}, {"ca": 3}, {"ca": "\ud800"}, {}, [], {"ca": "TWICE"}])
def test_a_root_that_is_not_one_certificate_is_refused(waiting: Any, pki: Any, reply: Any, body: Any) -> None:
    if body == {"ca": "TWICE"}:
        body = {"ca": pki.pem(pki.root.certificate, pki.root.certificate)}
    waiting.bridge.root = lambda: reply(body)
    refused(waiting, ForeignAnswerError, "exactly one|no certificate|no field 'ca'")


def test_a_certificate_of_a_version_that_does_not_exist_is_no_certificate(waiting: Any, pki: Any, reply: Any) -> None:
    der = pki.root.certificate.public_bytes(Encoding.DER)
    assert der.count(b"\xa0\x03\x02\x01\x02") == 1
    second = ssl.DER_cert_to_PEM_cert(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01"))
    waiting.bridge.root = lambda: reply({"ca": second})
    refused(waiting, ForeignAnswerError, "is no certificate")


# -- servers ---------------------------------------------------------------------------------------------------------


def serving(folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, *issuers: Any) -> Any:
    file = folder / "dated.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(secret + b"".join(c.public_bytes(Encoding.PEM) for c in (certificate, *issuers)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def dated(folder: Path, pki: Any, begin: int, end: int) -> Any:
    """The context of a server with a certificate valid between days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    dates = {"begin": pki.now + begin * A_DAY, "end": pki.now + end * A_DAY}
    made = pki.sub.leaf(key.public_key(), "127.0.0.1", san=["127.0.0.1"], usages=[pki.server_auth], **dates)
    return serving(folder, made, key, *pki.chain)


def test_an_expired_server_is_refused_while_there_is_a_clock(
    waiting: Any, start_bridge: Any, pki: Any, tmp_path: Path
) -> None:
    other = start_bridge(dated(tmp_path, pki, -3, -1))
    refused_at(waiting, other, r"certificate has expired\); check the clock")


def test_a_server_that_is_not_yet_valid_says_no_time_that_holds(
    waiting: Any, start_bridge: Any, pki: Any, tmp_path: Path
) -> None:
    """It puts the device's clock in doubt, and no time is left that both certificates are good at."""
    other = start_bridge(dated(tmp_path, pki, 1, 3))
    words = "bridge's time .* does not hold against its own certificates"
    refused(waiting, AnswerRejectedError, words, bridge=BridgeUrl.parse(other.url))


@pytest.mark.parametrize("year", [1970, 2026, 2106])
class TestWhateverTheClockShows:
    """Names and signatures are checked also while dates are not."""

    @pytest.fixture(autouse=True)
    def _clock(self, waiting: Any, pki: Any, year: int) -> None:
        if year != 2026:
            waiting.clock.belief = pki.now.replace(year=year, month=2, day=9)

    def test_the_right_root_with_another_host_name_is_refused(
        self, waiting: Any, start_bridge: Any, pki: Any, tmp_path: Path
    ) -> None:
        other = start_bridge(pki.server_context(tmp_path, "other.example"))
        refused_at(waiting, other, "IP address mismatch.*check the name in the address")

    def test_a_server_under_another_root_is_refused(
        self, waiting: Any, start_bridge: Any, pki: Any, tmp_path: Path
    ) -> None:
        """It serves the pinned root, as anybody can, but cannot prove that it belongs to it."""
        other = start_bridge(pki.server_context(tmp_path, issuer=pki.new_root("Provider Root")))
        refused_at(waiting, other, "does not hold against the pinned root.*check the fingerprint")

    def test_a_neighbour_is_refused_as_server_with_the_second_pin(
        self, waiting: Any, start_bridge: Any, pki: Any, tmp_path: Path
    ) -> None:
        other = start_bridge(pki.server_context(tmp_path, issuer=neighbour(pki)))
        pins = (Fingerprint(pki.digest(pki.sub.certificate)),)
        refused_at(waiting, other, "does not hold against the pinned root", issuer_pins=pins)

    def test_a_device_is_no_server(self, waiting: Any, start_bridge: Any, pki: Any, tmp_path: Path) -> None:
        """The certificate of a device of the same tenant, whose id is even the bridge's address."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = pki.sub.leaf(key.public_key(), "127.0.0.1", san=["127.0.0.1"])
        refused_at(waiting, start_bridge(serving(tmp_path, made, key, *pki.chain)), "unsuitable certificate purpose")

    def test_a_wrong_root_is_refused(self, waiting: Any) -> None:
        refused(waiting, RootMismatchError, "nothing was stored", root_pins=(Fingerprint("ab" * 32),))


# -- strangers' answers ----------------------------------------------------------------------------------------------

HTML = b"<!DOCTYPE html><html>Welcome to the hotel <script>location='http://portal/'</script></html>"
WEB = {"Content-Type": "text/html"}
PORTAL = "log this network in"
FOREIGN: dict[str, tuple[bytes, int, dict[str, str], str]] = {
    "captive portal, a page": (HTML, 200, WEB, rf"status 200, but not .*'text/html': a web page.*{PORTAL}"),
    "captive portal, a redirect": (
        b"",
        302,
        {"Location": "http://portal.example/login"},
        rf"redirect \(302, to 'http://portal.example/login'\).*{PORTAL}",
    ),
    "captive portal, RFC 6585": (HTML, 511, WEB, rf"the network wants a login first \(511\).*{PORTAL}"),
    "block page": (HTML.replace(b"Welcome", b"Forbidden"), 403, WEB, "status 403, but not"),
    "redirect to itself": (b"{}", 307, {"Location": "/devices/dev-1/enroll"}, "redirect .307"),
    "empty": (b"", 200, {}, "empty"),
    "foreign problem": (
        json.dumps({"type": "about:blank", "code": "retired"}).encode(),
        403,
        {},
        "status 403 without a problem document of the bridge",
    ),
    "deep": (b"[" * 100_000, 200, {}, "nested too deep|not the bridge's JSON"),
    "deep, but whole": (b"[" * 3000 + b"]" * 3000, 200, {}, "nested too deep"),
    "too large": (b'"' + b"x" * (1024 * 1024) + b'"', 200, {}, "larger than 1048576 bytes"),
    "compressed": (b"\x1f\x8b", 200, {"Content-Encoding": "gzip"}, "compressed"),
    "bad gateway": (b"", 502, {}, "status 502"),
    "truncated JSON": (b'{"device_id":"dev-1","gener', 200, {}, "cut short or damaged"),
    "a field twice": (b'{"device_id":"dev-1","device_id":"dev-2"}', 200, {}, "a field is there twice"),
    "a field twice, inside": (b'{"wg":{"address":"10.0.0.1","address":"10.0.0.2"}}', 201, {}, "there twice"),
    "NaN": (b'{"generation":NaN}', 200, {}, "NaN is no number of JSON"),
    "Infinity": (b'{"generation":-Infinity}', 200, {}, "-Infinity is no number of JSON"),
    "a number without end": (b'{"generation":' + b"9" * 100_000 + b"}", 200, {}, "not the bridge's JSON"),
    "not UTF-8": (b'{"device_id":"\xff"}', 200, {}, "not the bridge's JSON"),
    "two answers": (b"{}{}", 200, {}, "cut short or damaged"),
    "text": (b"OK", 200, {"Content-Type": "text/plain"}, "something else"),
}


@pytest.mark.parametrize("door", ["root", "enroll"])
@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_the_bridges_is_tried_again_and_never_final(waiting: Any, reply: Any, name: str, door: str) -> None:
    body, status, headers, words = FOREIGN[name]
    answer = reply(body, status, headers)
    setattr(waiting.bridge, door, (lambda: answer) if door == "root" else (lambda _: answer))
    refused(waiting, ForeignAnswerError, words, budget=4.0)
    asked = [method for method, _, _ in waiting.bridge.requests]
    assert asked == (["GET"] * 3 if door == "root" else ["GET", *["POST"] * 3])


def test_a_stranger_who_says_retired_to_a_get_is_not_believed(waiting: Any, problem: Any) -> None:
    waiting.bridge.root = lambda: problem(403, "retired")
    refused(waiting, RefusedError, "retired")


@pytest.mark.parametrize("depth", [*range(300, 1000, 50), *range(960, 1000, 4)])
def test_a_problem_whose_explanation_is_no_text_has_none(waiting: Any, reply: Any, depth: int) -> None:
    detail = "[" * depth + "]" * depth
    kind = '"type":"urn:iot-bridge:problem:pool_empty","code":"pool_empty"'
    waiting.bridge.enroll = lambda _: reply(f'{{{kind},"detail":{detail}}}'.encode(), 503)
    with pytest.raises((RefusedError, ForeignAnswerError), match=r"no explanation|pool_empty|nested too deep"):
        waiting.run(budget=1.0)
