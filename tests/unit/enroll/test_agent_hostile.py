"""Everything a hostile or broken bridge can answer: each refused with its own words, nothing of it stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from enroll.errors import (
    AnswerRejectedError,
    ForeignAnswerError,
    RootMismatchError,
    TryAgainError,
    UnreachableError,
)
from enroll.names import BridgeUrl, Fingerprint

OWN = {"device.key", "device.csr", "wg.key"}


def own_key(request: dict[str, Any]) -> Any:
    return x509.load_pem_x509_csr(request["csr_pem"].encode()).public_key()


def leaf(**changes: Any) -> Callable[[Any, Any, Any], dict[str, Any]]:
    return lambda bridge, pki, request: bridge.answer(
        request,
        leaf=pki.sub.leaf(
            changes.get("key") or own_key(request),
            changes.get("id", "dev-1"),
            **{k: v for k, v in changes.items() if k not in {"key", "id"}},
        ),
    )


def changed(**changes: Any) -> Callable[[Any, Any, Any], dict[str, Any]]:
    return lambda bridge, _pki, request: bridge.answer(request, **changes)


def wg(**changes: Any) -> Callable[[Any, Any, Any], dict[str, Any]]:
    return changed(wg=changes)


def other_root(bridge: Any, pki: Any, request: Any) -> dict[str, Any]:
    root = pki.new_root("Provider Root")  # the same name, another key
    ica = root.sub("Provider ICA")
    sub = ica.sub("Tenant Sub-CA")
    return bridge.answer(request, leaf=sub.leaf(own_key(request), "dev-1"), chain=[sub.certificate, ica.certificate])


def self_signed_issuer(bridge: Any, pki: Any, request: Any) -> dict[str, Any]:
    fake = pki.new_root("Tenant Sub-CA")
    return bridge.answer(request, leaf=fake.leaf(own_key(request), "dev-1"), chain=[fake.certificate])


def issued_by_a_device(bridge: Any, pki: Any, request: Any) -> dict[str, Any]:
    false_ca = pki.sub.sub("dev-9", ca=False)
    chain = [false_ca.certificate, *pki.chain]
    return bridge.answer(request, leaf=false_ca.leaf(own_key(request), "dev-1"), chain=chain)


def below_a_path_length(bridge: Any, pki: Any, request: Any) -> dict[str, Any]:
    too_deep = pki.sub.sub("Deeper CA")
    chain = [too_deep.certificate, *pki.chain]
    return bridge.answer(request, leaf=too_deep.leaf(own_key(request), "dev-1"), chain=chain)


def expired_issuer(bridge: Any, pki: Any, request: Any) -> dict[str, Any]:
    old = pki.ica.sub("Old Sub-CA", begin=pki.now - timedelta(days=9), end=pki.now - timedelta(days=1))
    chain = [old.certificate, pki.ica.certificate]
    return bridge.answer(request, leaf=old.leaf(own_key(request), "dev-1"), chain=chain)


NEVER = ec.generate_private_key(ec.SECP256R1()).public_key()
A_DAY = timedelta(days=1)

ANSWERS: dict[str, tuple[Callable[[Any, Any, Any], Any], str]] = {
    "another key's certificate": (leaf(key=NEVER), "another key"),
    "another id's certificate": (leaf(id="dev-2"), "names .*dev-2"),
    "another id's SAN": (leaf(san=["dev-2"]), "not exactly DNS:dev-1"),
    "a SAN too many": (leaf(san=["dev-1", "bridge.example"]), "not exactly DNS:dev-1"),
    "an IP in the SAN": (leaf(san=["dev-1", "10.0.0.1"]), "not exactly DNS:dev-1"),
    "no SAN": (leaf(san=[]), "no subject alternative name"),
    "no EKU": (leaf(usages=[]), "does not say that it is for client"),
    "CA leaf": (leaf(ca=True), "is a CA certificate"),
    "answer for another id": (changed(device_id="dev-2"), "for .dev-2"),
    "pending": (changed(state="pending"), "no answer to what was asked"),
    "no generation": (changed(generation=0), "generation"),
    "two leaves": (
        lambda b, _p, r: b.answer(r) | {"cert": b.answer(r)["cert"] * 2},
        "2 certificates; exactly one",
    ),
    "garbage leaf": (changed(cert="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "no PEM"),
    "garbage chain": (changed(ca_chain="none"), "no PEM"),
    "chain out of order": (
        lambda b, p, r: b.answer(r, chain=[p.ica.certificate, p.sub.certificate]),
        "not in issuing order",
    ),
    "chain with a gap": (lambda b, p, r: b.answer(r, chain=[p.sub.certificate]), "not issued by"),
    "chain too long": (lambda b, p, r: b.answer(r, chain=[p.sub.certificate] * 9), "holds 9 certificates"),
    "another root": (other_root, "another root than the pinned"),
    "self-signed issuer": (self_signed_issuer, "another root than the pinned"),
    "issued by a device": (issued_by_a_device, "not a CA certificate"),
    "path length": (below_a_path_length, "does not allow"),
    "expired issuer": (expired_issuer, "clock"),
    "a renewal that never comes": (changed(renew_after="2100-01-01T00:00:00Z"), "renew_after"),
    "not JSON object": (lambda _b, _p, _r: [], "not a JSON object"),
    "missing field": (changed(not_after=None), "not_after"),
    "wg: PostUp in endpoint": (wg(endpoint="vpn.example:1\nPostUp = id"), "wg.endpoint"),
    "wg: newline in address": (wg(address="10.8.0.7/32\nPostUp = id"), "wg.address"),
    "wg: newline in key": (wg(server_public_key="A" * 43 + "=\n"), "server_public_key"),
    "wg: short key": (wg(server_public_key="AAAA"), "server_public_key"),
    "wg: zero key": (wg(server_public_key="A" * 43 + "="), "server_public_key"),
    "wg: the whole world": (wg(allowed_ips=["0.0.0.0/0"]), "reached outside of the tunnel"),
    "wg: a wide network": (wg(allowed_ips=["11.0.0.0/8"]), "wider than /16"),
    "wg: half the world": (wg(allowed_ips=["::/1"]), "wider than /48"),
    "wg: no network": (wg(allowed_ips=["10.8.0.0/24\nPostUp=id"]), "allowed_ips"),
    "wg: no routes": (wg(allowed_ips=[]), "allowed_ips"),
    "wg: loopback address": (wg(address="127.0.0.1/32"), "no address for a device"),
    "wg: multicast address": (wg(address="224.0.0.1/32"), "no address for a device"),
    "wg: address takes a network": (wg(address="10.8.0.7/8"), "single address"),
    "wg: keepalive": (wg(persistent_keepalive=-1), "keepalive"),
    "mqtt: port": (changed(mqtt={"host": "b.example", "port": 0}), "mqtt"),
    "mqtt: host": (changed(mqtt={"host": "b example\n", "port": 8883}), "mqtt"),
    "hawkbit: scheme": (changed(hawkbit={"url": "file:///etc/passwd", "tenant": "x"}), "web address"),
    "hawkbit: control": (changed(hawkbit={"url": "https://h.example/\x1b[2J", "tenant": "x"}), "hawkbit"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_does_not_hold_is_refused_whole(device: Any, pki: Any, reply: Any, name: str) -> None:
    make, words = ANSWERS[name]
    device.bridge.enroll = lambda request: reply(make(device.bridge, pki, request), 201)
    with pytest.raises(AnswerRejectedError, match=words):
        device.run(budget=1.0)
    assert device.files() == OWN


def test_a_certificate_for_servers_is_refused(device: Any, pki: Any, reply: Any) -> None:
    usages = [pki.client_auth, pki.server_auth]
    device.bridge.enroll = lambda r: reply(leaf(usages=usages)(device.bridge, pki, r))
    with pytest.raises(AnswerRejectedError, match="serverAuth"):
        device.run(budget=1.0)
    device.bridge.enroll = lambda r: reply(leaf(usages=[pki.server_auth])(device.bridge, pki, r))
    with pytest.raises(AnswerRejectedError, match="not for client authentication"):
        device.run(budget=1.0)
    assert device.files() == OWN


@pytest.mark.parametrize(("begin", "end"), [(-3 * A_DAY, -2 * A_DAY), (2 * A_DAY, 3 * A_DAY)])
def test_a_certificate_out_of_its_dates_is_refused(
    device: Any, pki: Any, reply: Any, begin: timedelta, end: timedelta
) -> None:
    dates = {"begin": pki.now + begin, "end": pki.now + end}
    device.bridge.enroll = lambda r: reply(leaf(**dates)(device.bridge, pki, r))
    with pytest.raises(AnswerRejectedError, match="check the clock"):
        device.run(budget=1.0)
    assert device.files() == OWN


def test_a_wrong_root_ends_the_run_at_once_and_shows_both(device: Any, pki: Any) -> None:
    wrong = "ab" * 32
    with pytest.raises(RootMismatchError) as mismatch:
        device.run(root_pins=(Fingerprint(wrong),))
    assert wrong in str(mismatch.value)
    assert pki.sha256 in str(mismatch.value)
    assert mismatch.value.exit_code == 75
    assert device.clock.slept == []
    assert [method for method, _, _ in device.bridge.requests] == ["GET"]
    assert device.files() == OWN


def test_a_pinned_certificate_that_is_no_root_is_refused(device: Any, pki: Any, reply: Any) -> None:
    device.bridge.root = lambda: reply({"ca": pki.pem(pki.sub.certificate)})
    with pytest.raises(AnswerRejectedError):
        device.run(budget=1.0, root_pins=(Fingerprint(pki.digest(pki.sub.certificate)),))
    assert device.bridge.posts == []


@pytest.mark.parametrize("body", [{"ca": ""}, {"ca": "x"}, {"ca": 3}, {}, [], {"ca": "TWICE"}])
def test_a_root_that_is_not_one_certificate_is_refused(device: Any, pki: Any, reply: Any, body: Any) -> None:
    if body == {"ca": "TWICE"}:
        body = {"ca": pki.pem(pki.root.certificate, pki.root.certificate)}
    device.bridge.root = lambda: reply(body)
    with pytest.raises(ForeignAnswerError):
        device.run(budget=1.0)
    assert device.files() == OWN


FOREIGN = {
    "captive portal": (b"<html>Welcome to the hotel</html>", 200, {"Content-Type": "text/html"}),
    "block page": (b"<html>Forbidden</html>", 403, {"Content-Type": "text/html"}),
    "redirect": (b"{}", 302, {"Location": "http://portal.example/"}),
    "empty": (b"", 200, {}),
    "foreign problem": (json.dumps({"type": "about:blank", "code": "retired"}).encode(), 403, {}),
    "deep": (b"[" * 100_000, 200, {}),
    "too large": (b'"' + b"x" * (1024 * 1024) + b'"', 200, {}),
    "compressed": (b"\x1f\x8b", 200, {"Content-Encoding": "gzip"}),
    "bad gateway": (b"", 502, {}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_the_bridges_is_tried_again_and_never_final(device: Any, reply: Any, name: str) -> None:
    body, status, headers = FOREIGN[name]
    device.bridge.enroll = lambda _: reply(body, status, headers)
    with pytest.raises(ForeignAnswerError):
        device.run(budget=4.0)
    assert len(device.bridge.posts) == 3
    assert device.files() == OWN


def test_the_right_root_with_another_host_name_is_refused(
    device: Any, start_bridge: Any, pki: Any, tmp_path: Path
) -> None:
    other = start_bridge(pki.server_context(tmp_path, "other.example"))
    with pytest.raises(UnreachableError, match="does not hold against the pinned root"):
        run_against(device, other)
    assert other.posts == []


def test_a_server_under_another_root_is_refused(device: Any, start_bridge: Any, pki: Any, tmp_path: Path) -> None:
    """It serves the pinned root, as anybody can, but cannot prove that it belongs to it."""
    stranger = pki.new_root("Provider Root")
    other = start_bridge(pki.server_context(tmp_path, issuer=stranger))
    with pytest.raises(UnreachableError, match="does not hold against the pinned root"):
        run_against(device, other)
    assert other.posts == []


def test_another_tenant_under_the_same_root_is_refused_with_the_second_pin(
    device: Any, start_bridge: Any, pki: Any, tmp_path: Path
) -> None:
    neighbour = pki.ica.sub("Neighbour Sub-CA")
    other = start_bridge(pki.server_context(tmp_path, issuer=neighbour))
    with pytest.raises(UnreachableError, match="does not hold against the pinned root"):
        run_against(device, other, issuer_pins=(Fingerprint(pki.digest(pki.sub.certificate)),))
    assert other.posts == []


def test_another_tenants_leaf_is_refused_with_the_second_pin(device: Any, pki: Any, reply: Any) -> None:
    neighbour = pki.ica.sub("Neighbour Sub-CA")
    device.bridge.enroll = lambda r: reply(
        device.bridge.answer(
            r, leaf=neighbour.leaf(own_key(r), "dev-1"), chain=[neighbour.certificate, pki.ica.certificate]
        )
    )
    with pytest.raises(AnswerRejectedError, match="pinned issuing CA"):
        device.run(budget=1.0, issuer_pins=(Fingerprint(pki.digest(pki.sub.certificate)),))


def test_a_second_pin_that_nobody_serves_is_named(device: Any) -> None:
    with pytest.raises(AnswerRejectedError, match="ENROLL_ISSUER_FINGERPRINT"):
        device.run(budget=1.0, issuer_pins=(Fingerprint("cd" * 32),))


def test_the_old_files_survive_a_bad_answer(device: Any, reply: Any) -> None:
    device.run()
    kept = {path.name: path.read_bytes() for path in device.folder.iterdir() if path.name != "enrolled"}
    (device.folder / "enrolled").unlink()
    device.bridge.enroll = lambda r: reply(device.bridge.answer(r, device_id="dev-2"))
    with pytest.raises(TryAgainError):
        device.run(budget=1.0)
    assert kept == {path.name: path.read_bytes() for path in device.folder.iterdir()}


def run_against(device: Any, other: Any, **changes: Any) -> None:
    device.run(bridge=BridgeUrl.parse(other.url), budget=1.0, **changes)
