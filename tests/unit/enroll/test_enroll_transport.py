"""What the bridge's answers mean, and what is not the bridge's: over real HTTPS."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from enroll.errors import (
    EnrollError,
    ForeignAnswerError,
    RefusedError,
    StoppedError,
    TryAgainError,
    UnreachableError,
)
from enroll.names import Fingerprint
from enroll.network.transport import Heard, HttpsNetwork, Network, activate_url, enroll_url
from enroll.trust import paths, tls
from enroll.trust.certificates import pem, sha256, validity
from enroll.trust.clock import Belief, Timekeeper
from enroll.trust.paths import Anchor
from enroll.wire import FINAL_CODES, Code

NETWORK: Network = HttpsNetwork({})
SECRET = "PROV-TOPS-ECRT"
PIN = Fingerprint("ab" * 32)


@pytest.fixture
def context(pki: Any) -> ssl.SSLContext:
    belief = Belief(pki.now, trusted=True, floor=pki.now)
    return tls.server_context(Anchor((pki.root.certificate,)), system=False, belief=belief)


Ask = Callable[[], Any]


@pytest.fixture
def enroll(bridge: Any, context: ssl.SSLContext) -> Callable[[], Heard]:
    return lambda: NETWORK.enroll(bridge.url, "dev-1", {"voucher": SECRET}, context, 10.0)


def asked_by(bridge: Any, context: ssl.SSLContext) -> Sequence[Ask]:
    return (
        lambda: NETWORK.fetch_unverified_root(bridge.url, PIN, 10.0),
        lambda: NETWORK.fetch_root(bridge.url, PIN, context, 10.0),
        lambda: NETWORK.fetch_intermediates(bridge.url, context, 10.0),
    )


def refused(kind: type[EnrollError], ask: Ask) -> Any:
    with pytest.raises(kind) as caught:
        ask()
    assert SECRET not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("status", [200, 201])
def test_an_answer_comes_with_the_chain_of_who_gave_it(
    bridge: Any, pki: Any, reply: Any, enroll: Any, status: int
) -> None:
    bridge.enroll = lambda request: reply({"echo": request["voucher"], "ü": [1.5, None]}, status)
    heard = enroll()
    assert heard.body == {"echo": SECRET, "ü": [1.5, None]}
    assert [path for _, path, _ in bridge.requests] == ["/devices/dev-1/enroll"]
    chain = paths.extend_chain(heard.server_chain, [*pki.chain, pki.root.certificate])
    assert chain[1:] == (*pki.chain, pki.root.certificate)
    keeper = Timekeeper(_Stopped(), pki.now)
    assert keeper.hear(pki.now, validity(chain[0]), [validity(c) for c in chain])


class _Stopped:
    def now(self) -> Any:
        raise AssertionError

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


def test_activation_has_its_own_address(bridge: Any, reply: Any, context: ssl.SSLContext) -> None:
    bridge.enroll = bridge.activate = reply
    assert NETWORK.activate(bridge.url, "dev-1", {"proof": "a.b.c"}, context, 10.0).body == {"proof": "a.b.c"}
    assert [path for _, path, _ in bridge.requests] == ["/devices/dev-1/activate"]
    assert enroll_url("https://h/p", "a b/../c") == "https://h/p/devices/a%20b%2F..%2Fc/enroll"
    assert activate_url("https://h", "dev-1") == "https://h/devices/dev-1/activate"


def test_an_introduction_says_nothing_and_shows_the_server(bridge: Any, pki: Any, context: ssl.SSLContext) -> None:
    shown = NETWORK.server_chain(bridge.url, context, 10.0)
    assert paths.extend_chain(shown, pki.chain)[1:3] == tuple(pki.chain)
    assert bridge.requests == []
    with pytest.raises(UnreachableError, match="plain HTTP"):
        NETWORK.server_chain("http://127.0.0.1:1", context, 5.0)


def test_roots_and_intermediates_are_passed_on_as_served(bridge: Any, pki: Any, context: ssl.SSLContext) -> None:
    root = pki.pem(pki.root.certificate).encode()
    assert [ask() for ask in asked_by(bridge, context)] == [root, root, [pem([c]) for c in pki.chain]]
    assert [path for _, path, _ in bridge.requests] == [f"/root/{PIN}"] * 2 + ["/intermediates"]


def test_only_the_unverified_fetch_talks_to_a_stranger(
    start_bridge: Any, pki: Any, tmp_path: Any, context: ssl.SSLContext
) -> None:
    stranger = start_bridge(pki.server_context(tmp_path, "elsewhere.example", issuer=pki.new_root("Elsewhere")))
    unverified, *verified = asked_by(stranger, context)
    assert unverified() == pki.pem(pki.root.certificate).encode()
    for ask in (*verified, lambda: NETWORK.enroll(stranger.url, "dev-1", {"voucher": SECRET}, context, 10.0)):
        assert refused(UnreachableError, ask).untrusted
    assert stranger.posts == []
    assert sha256(paths.pinned_root(unverified(), (sha256(pki.root.certificate),))) == sha256(pki.root.certificate)


@pytest.mark.parametrize("code", Code)
def test_only_two_codes_are_final_and_only_to_what_was_posted(
    bridge: Any, problem: Any, enroll: Any, context: ssl.SSLContext, code: Code
) -> None:
    answer = problem(422, str(code), "what\nto do\x1b[2J next", Retry_After="7")
    bridge.enroll = lambda _request: answer
    error = refused(StoppedError if code in FINAL_CODES else RefusedError, enroll)
    assert error.code == code
    assert "what to do [2J next" in str(error)
    assert code in FINAL_CODES or error.retry_after == 7.0
    bridge.root = bridge.intermediates = lambda: answer
    for ask in asked_by(bridge, context):
        assert refused(RefusedError, ask).problem is code


FOREIGN: dict[str, tuple[Any, int, dict[str, str]]] = {
    "captive portal": (b"<html>Welcome to the hotel</html>", 200, {"Content-Type": "text/html"}),
    "block page": (b"<html>Forbidden</html>", 403, {"Content-Type": "text/html\x1b[2J"}),
    "redirect": (b"{}", 302, {"Location": "http://portal.example/"}),
    "permanent redirect": (b"{}", 308, {"Location": "https://portal.example/"}),
    "not modified": (b"{}", 304, {}),
    "empty": (b"", 200, {}),
    "no content": (b"", 204, {}),
    "accepted": (b"{}", 202, {}),
    "torn": (b'{"device_id": "dev-1", "cert": "----', 200, {}),
    "torn and short": (b"{", 200, {}),
    "not UTF-8": (b'{"a": "\xff\xfe\xfa"}', 200, {}),
    "deep": (b"[" * 100_000, 200, {}),
    "a huge number": (b"9" * 10_000, 200, {}),
    "foreign problem": ({"type": "about:blank", "code": "retired"}, 403, {}),
    "unknown code": ({"type": "urn:iot-bridge:problem:gone", "code": "gone"}, 403, {}),
    "problem of the wrong shape": ({"type": 7, "code": ["retired"]}, 403, {}),
    "a list": ([], 403, {}),
    "compressed": (b"\x1f\x8b", 200, {"Content-Encoding": "gzip"}),
    "bad gateway": (b"", 502, {}),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_not_the_bridges_is_never_final(bridge: Any, reply: Any, enroll: Any, case: str) -> None:
    body, status, headers = FOREIGN[case]
    bridge.enroll = lambda _request: reply(body, status, headers)
    text = str(refused(ForeignAnswerError, enroll))
    assert text.isprintable()


@pytest.mark.parametrize("body", [[], "ca", {}, {"ca": 3, "crts": "x"}, {"ca": None, "crts": [3]}, {"crts": None}])
def test_roots_of_another_shape_are_somebody_elses(
    bridge: Any, reply: Any, context: ssl.SSLContext, body: object
) -> None:
    bridge.root = bridge.intermediates = lambda: reply(body)
    for ask in asked_by(bridge, context):
        refused(ForeignAnswerError, ask)


def test_half_a_surrogate_is_no_crash(bridge: Any, reply: Any, context: ssl.SSLContext) -> None:
    bridge.root = lambda: reply(b'{"ca": "\\ud800"}')
    bridge.intermediates = lambda: reply(b'{"crts": ["\\ud800"]}')
    assert [ask() for ask in asked_by(bridge, context)] == [b"?", b"?", [b"?"]]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Wed, 01 Jan 2025 00:00:30 GMT", "Date": "Wed, 01 Jan 2025 00:00:00 GMT"}, 30.0),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_the_wait_that_is_asked_for_comes_with_every_refusal(
    bridge: Any, reply: Any, enroll: Any, headers: dict[str, str], seconds: float | None
) -> None:
    for body in (b"<html>", json.dumps({"type": "urn:iot-bridge:problem:too_many", "code": "too_many"}).encode()):
        bridge.enroll = lambda _request, body=body: reply(body, 503, headers)
        assert refused(TryAgainError, enroll).retry_after == seconds


def test_plain_http_is_refused(context: ssl.SSLContext) -> None:
    for ask in (
        lambda: NETWORK.fetch_unverified_root("http://127.0.0.1:1", PIN, 5.0),
        lambda: NETWORK.fetch_intermediates("http://127.0.0.1:1", context, 5.0),
        lambda: NETWORK.enroll("http://127.0.0.1:1", "dev-1", {}, context, 5.0),
    ):
        with pytest.raises(UnreachableError, match="never speaks plain HTTP"):
            ask()
