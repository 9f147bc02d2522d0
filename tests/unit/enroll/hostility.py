"""What a hostile or broken bridge can answer, each with the words that refuse it; and a picture of a folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

Make = Callable[[Any, Any, Any], Any]
"""Bridge, PKI and the request (an enrollment's or a renewal's) to the JSON of an answer."""

NEVER = ec.generate_private_key(ec.SECP256R1()).public_key()
A_DAY = timedelta(days=1)


def picture(folder: Path) -> dict[str, tuple[bytes, int, int, int]]:
    """Everything that a change would change: names, bytes, modes, times and inodes, of the folders too."""
    found = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        state = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (content, state.st_mode, state.st_mtime_ns, state.st_ino)
    return found


def own_key(request: dict[str, Any]) -> Any:
    return x509.load_pem_x509_csr(request["csr_pem"].encode()).public_key()


def leaf(**changes: Any) -> Make:
    """Another leaf by the right CA."""
    return lambda bridge, pki, request: bridge.answer(
        request,
        leaf=pki.sub.leaf(
            changes.get("key") or own_key(request),
            changes.get("id", "dev-1"),
            **{k: v for k, v in changes.items() if k not in {"key", "id"}},
        ),
    )


def dated(begin: timedelta, end: timedelta) -> Make:
    return lambda bridge, pki, request: leaf(begin=pki.now + begin, end=pki.now + end)(bridge, pki, request)


def changed(**changes: Any) -> Make:
    return lambda bridge, _pki, request: bridge.answer(request) | changes


def wg(**changes: Any) -> Make:
    return lambda bridge, _pki, request: bridge.answer(request, wg=changes)


def chain(*, of: Callable[[Any], list[Any]]) -> Make:
    return lambda bridge, pki, request: bridge.answer(request, chain=of(pki))


def two_leaves(bridge: Any, _pki: Any, request: Any) -> dict[str, Any]:
    answer: dict[str, Any] = bridge.answer(request)
    return answer | {"cert": answer["cert"] * 2}


def other_root(bridge: Any, pki: Any, request: Any) -> Any:
    root = pki.new_root("Provider Root")  # the same name, another key
    ica = root.sub("Provider ICA")
    sub = ica.sub("Tenant Sub-CA")
    return bridge.answer(request, leaf=sub.leaf(own_key(request), "dev-1"), chain=[sub.certificate, ica.certificate])


def self_signed_issuer(bridge: Any, pki: Any, request: Any) -> Any:
    fake = pki.new_root("Tenant Sub-CA")
    return bridge.answer(request, leaf=fake.leaf(own_key(request), "dev-1"), chain=[fake.certificate])


def below(sub: Callable[[Any], Any]) -> Make:
    """A leaf by a further issuer on top of the right chain."""

    def make(bridge: Any, pki: Any, request: Any) -> Any:
        issuer = sub(pki)
        return bridge.answer(
            request, leaf=issuer.leaf(own_key(request), "dev-1"), chain=[issuer.certificate, *pki.chain]
        )

    return make


def beside(sub: Callable[[Any], Any]) -> Make:
    """A leaf by another sub-CA of the same provider."""

    def make(bridge: Any, pki: Any, request: Any) -> Any:
        issuer = sub(pki)
        return bridge.answer(
            request, leaf=issuer.leaf(own_key(request), "dev-1"), chain=[issuer.certificate, pki.ica.certificate]
        )

    return make


def expired_issuer(pki: Any) -> Any:
    return pki.ica.sub("Old Sub-CA", begin=pki.now - 9 * A_DAY, end=pki.now - A_DAY)


def neighbour(pki: Any) -> Any:
    return pki.ica.sub("Neighbour Sub-CA")


LEAVES: dict[str, tuple[Make, str]] = {
    "another key's certificate": (leaf(key=NEVER), "carries another key"),
    "another device's certificate": (leaf(id="dev-2"), "names .*dev-2"),
    "another id's SAN": (leaf(san=["dev-2"]), "not exactly DNS:dev-1"),
    "a SAN too many": (leaf(san=["dev-1", "bridge.example"]), "not exactly DNS:dev-1"),
    "an IP in the SAN": (leaf(san=["dev-1", "10.0.0.1"]), "not exactly DNS:dev-1"),
    "no SAN": (leaf(san=[]), "no subject alternative name"),
    "no EKU": (leaf(usages=[]), "does not say that it is for client"),
    "serverAuth": (lambda b, p, r: leaf(usages=[p.client_auth, p.server_auth])(b, p, r), "serverAuth"),
    "serverAuth alone": (lambda b, p, r: leaf(usages=[p.server_auth])(b, p, r), "not for client authentication"),
    "CA leaf": (leaf(ca=True), "the certificate is a CA certificate"),
    "expired": (dated(-3 * A_DAY, -2 * A_DAY), "CN=dev-1 is valid from .*check the clock"),
    "not yet valid": (dated(2 * A_DAY, 3 * A_DAY), "CN=dev-1 is valid from .*check the clock"),
    "two leaves": (two_leaves, "2 certificates; exactly one"),
    "no leaf": (changed(cert="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "'cert' is no PEM"),
}

CHAINS: dict[str, tuple[Make, str]] = {
    "garbage chain": (changed(ca_chain="none"), "'ca_chain' is no PEM"),
    "wrong order": (chain(of=lambda p: [p.ica.certificate, p.sub.certificate]), "not in issuing order"),
    "gap": (chain(of=lambda p: [p.sub.certificate]), "issuer is missing in the chain"),
    "too long": (chain(of=lambda p: [p.sub.certificate] * 9), "holds 9 certificates"),
    "another root": (other_root, "another key signed it; .*another root than the pinned"),
    "self-signed issuer": (self_signed_issuer, "self-signed, and not the pinned root"),
    "issued by a device": (below(lambda p: p.sub.sub("dev-9", ca=False)), "not a CA certificate"),
    "path length": (below(lambda p: p.sub.sub("Deeper CA")), "does not allow"),
    "expired issuer": (beside(expired_issuer), "CN=Old Sub-CA is valid from .*check the clock"),
}

FIELDS: dict[str, tuple[Make, str]] = {
    "answer for another id": (changed(device_id="dev-2"), "for .dev-2"),
    "no generation": (changed(generation=0), "no generation"),
    "a generation beyond all": (changed(generation=10**400), "no generation"),
    "a generation without end": (changed(generation=1e300), "'generation' is missing or is not a whole"),
    "a generation that is true": (changed(generation=True), "'generation' is missing or is not a whole"),
    "a state of its own": (changed(state="promised"), "neither 'current' nor 'pending'"),
    "a renewal that never comes": (changed(renew_after="2100-01-01T00:00:00Z"), "renew_after"),
    "a renewal before all": (changed(renew_after="0001-01-01T00:00:00Z"), "renew_after"),
    "a time out of all time": (changed(renew_after="0001-01-01T00:00:00+23:59"), "'renew_after' is out of all time"),
    "a server time out of all time": (changed(server_time="9999-12-31T23:59:59-23:59"), "'server_time' is out of"),
    "a time without offset": (changed(server_time="2026-01-01T00:00:00"), "no UTC offset"),
    "not a JSON object": (lambda _b, _p, _r: [], "not a JSON object"),
    "missing field": (changed(not_after=None), "not_after"),
    "wg: text": (changed(wg="none"), "'wg' is neither null nor an object"),
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
    "wg: routes without end": (wg(allowed_ips=[f"10.8.{n}.0/24" for n in range(256)] * 20), "allowed_ips"),
    "wg: address takes a network": (wg(address="10.8.0.7/8"), "single address"),
    "wg: address is a number": (wg(address=168296455), "'address' is missing or is not text"),
    "wg: keepalive": (wg(persistent_keepalive=-1), "keepalive"),
    "wg: keepalive for ever": (wg(persistent_keepalive=10**30), "keepalive"),
    "mqtt: port": (changed(mqtt={"host": "b.example", "port": 0}), "mqtt"),
    "mqtt: port beyond all": (changed(mqtt={"host": "b.example", "port": 10**300}), "mqtt"),
    "mqtt: host": (changed(mqtt={"host": "b example\n", "port": 8883}), "mqtt"),
    "hawkbit: scheme": (changed(hawkbit={"url": "file:///etc/passwd", "tenant": "x"}), "web address"),
    "hawkbit: control": (changed(hawkbit={"url": "https://h.example/\x1b[2J", "tenant": "x"}), "hawkbit"),
    "hawkbit: long": (changed(hawkbit={"url": "https://h.example/", "tenant": "x" * 9999}), "hawkbit"),
}

UNREASONABLE = (
    *("127.0.0.1/32", "0.0.0.0/32", "169.254.7.7/32", "224.0.0.1/32", "240.0.0.1/32", "255.255.255.255/32"),
    *("::/128", "::1/128", "::ffff:10.8.0.7/128", "fe80::7/128", "ff02::1/128"),
)

ADDRESSES: dict[str, tuple[Make, str]] = {
    f"address {text}": (wg(address=text), f"{re.escape(text.partition('/')[0])}.* is no address for a device")
    for text in UNREASONABLE
} | {
    "address fe80::7%wg0": (wg(address="fe80::7%wg0/128"), "address"),
    "address of somebody": (wg(address="9.9.9.9/32"), "a public one outside of wg.allowed_ips"),
}
ADDRESSES["address ::ffff:10.8.0.7/128"] = (wg(address="::ffff:10.8.0.7/128"), "is no address for a device")

ANSWERS: dict[str, tuple[Make, str]] = LEAVES | CHAINS | FIELDS | ADDRESSES
"""For every request that asks for a certificate, and for the activation of one."""

TEXTS: dict[str, Callable[[str], Make]] = {
    "wg.address": lambda bad: wg(address=f"10.8.0{bad}.7/32"),
    "wg.address, its end": lambda bad: wg(address=f"10.8.0.7/32{bad}"),
    "wg.server_public_key": lambda bad: wg(server_public_key=f"{'B' * 20}{bad}{'B' * 23}="),
    "wg.endpoint": lambda bad: wg(endpoint=f"vpn{bad}.example:51820"),
    "wg.endpoint, its end": lambda bad: wg(endpoint=f"vpn.example:51820{bad}"),
    "wg.allowed_ips": lambda bad: wg(allowed_ips=[f"10.8.0.0/24{bad}"]),
    "mqtt": lambda bad: changed(mqtt={"host": f"b.example{bad}", "port": 8883}),
    "hawkbit, its url": lambda bad: changed(hawkbit={"url": f"https://h.example/{bad}", "tenant": "x"}),
    "hawkbit, its tenant": lambda bad: changed(hawkbit={"url": "https://h.example", "tenant": f"x{bad}y"}),
}
"""Every text field that comes from the answer to the disk, with room for a character that has no place in it."""

CONTROLS = ("\n", "\r", "\0", "\t", "\x1b[2J", "\x7f", "\x85", "\u2028", "\u202e", "\ud800", "\nPostUp = id\n")
