"""A CA that is down, slow, broken or somebody else's: nothing wrong is delivered, and nothing that it signed is lost.

All devices come at once to one bridge, each with its own misfortune at the CA; then the CA behaves again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from starlette.responses import Response

from ca.standin.hierarchy import INTERMEDIATE_NAME, ISSUING_NAME, Hierarchy, make_authority, make_hierarchy
from ca.standin.signing import Signer, Wish
from tests.e2e.background import Background
from tests.e2e.hostile_ca import Behaviour, HangUpError, Signing
from tests.e2e.processes import Bridge, wait_for
from tests.e2e.requests import csr
from tests.e2e.standins import StandIns, now, standins

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
DEADLINE = 11.0
"""Seconds that an attempt is open: the least that the bridge takes, for the CA is given ten."""


def answer(chain: list[str], status: int = 201) -> Response:
    body = {"crt": chain[0], "ca": chain[1], "certChain": chain, "tlsOptions": {}}
    return Response(json.dumps(body), status, media_type="application/json")


def refusal(status: int) -> Behaviour:
    async def behave(_: Signing) -> Response:
        return Response(json.dumps({"status": status, "message": "no"}), status, media_type="application/json")

    return behave


def saying(text: str, status: int = 200, media_type: str = "text/html", **headers: str) -> Behaviour:
    async def behave(_: Signing) -> Response:
        return Response(text, status, headers, media_type)

    return behave


async def hang_up(_: Signing) -> Response:
    raise HangUpError


async def never(_: Signing) -> Response:
    await asyncio.sleep(30)
    raise HangUpError


def wish(signing: Signing, **other: Any) -> Wish:
    key = x509.load_pem_x509_csr(signing.csr_pem.encode()).public_key()
    begin, end = now() - timedelta(minutes=1), now() + timedelta(days=90)
    subject = other.get("subject", signing.claims["sub"])
    span = other.get("begin", begin), other.get("end", end)
    return Wish(subject, other.get("names", (subject,)), other.get("key", key), *span, "iot-bridge", "kid")


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


@dataclass
class Forger:
    """Whoever holds the tenant's issuing key, or another one."""

    own: Hierarchy

    def leaf(self, **other: Any) -> Behaviour:
        """A leaf of the tenant's own CA that is not the one asked for."""

        async def behave(signing: Signing) -> Response:
            claims = dict(signing.claims) | {"serial": str(other.get("serial", signing.claims["serial"]))}
            made = Signer(self.own).device(wish(signing, **other), claims)
            return answer([pem(made), *signing.answer["certChain"][1:]])

        return behave

    def purpose(self, purpose: x509.ObjectIdentifier) -> Behaviour:
        async def behave(signing: Signing) -> Response:
            made = Signer(self.own)._sign(wish(signing), int(signing.claims["serial"]), purpose)
            return answer([pem(made), *signing.answer["certChain"][1:]])

        return behave

    def under(self, hierarchy: Hierarchy) -> Behaviour:
        """Exactly the leaf asked for, by another CA, with that one's chain."""

        async def behave(signing: Signing) -> Response:
            signer = Signer(hierarchy)
            return answer([pem(signer.device(wish(signing), signing.claims)), *signer.chain_pems])

        return behave

    def with_chain(self, *issuers: x509.Certificate) -> Behaviour:
        """The right leaf, with these issuers."""

        async def behave(signing: Signing) -> Response:
            return answer([signing.answer["certChain"][0], *map(pem, issuers)])

        return behave

    def expired(self) -> x509.Certificate:
        """The issuing CA's certificate, same name and key, as it was years ago."""
        issuing, above = self.own.issuing, self.own.intermediate
        builder = x509.CertificateBuilder().subject_name(issuing.certificate.subject)
        builder = builder.issuer_name(above.certificate.subject).public_key(issuing.key.public_key())
        builder = builder.serial_number(7).not_valid_before(LONG_AGO).not_valid_after(LONG_AGO + timedelta(days=366))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return builder.sign(above.key, hashes.SHA256())


def another_tenant(own: Hierarchy) -> Hierarchy:
    """A sub-CA of the same name under the same root and intermediate."""
    return Hierarchy(own.root, own.intermediate, make_authority(ISSUING_NAME, own.intermediate, 0, now(), 1))


def another_intermediate(own: Hierarchy) -> Hierarchy:
    above = make_authority(INTERMEDIATE_NAME, own.root, 1, now(), 1)
    return Hierarchy(own.root, above, make_authority(ISSUING_NAME, above, 0, now(), 1))


def behaviours(own: Hierarchy) -> dict[str, tuple[str, str, Behaviour]]:
    """Each misfortune with the code that the device gets, and the reason that the log gives."""
    forger, past = Forger(own), now() - timedelta(days=2)
    chain = (own.issuing.certificate, own.intermediate.certificate)
    return {
        "slow": ("ca_unreachable", "within 10 s", never),
        "cut": ("ca_unreachable", "broke", hang_up),
        "status-400": ("ca_refused", "400", refusal(400)),
        "status-401": ("ca_refused", "401", refusal(401)),
        "status-403": ("ca_refused", "403", refusal(403)),
        "status-500": ("ca_bad_answer", "status", refusal(500)),
        "status-503": ("ca_bad_answer", "status", saying("overloaded", 503, "text/plain")),
        "redirect": ("ca_bad_answer", "status", saying("", 302, Location="https://localhost/")),
        "html": ("ca_bad_answer", "json", saying("<html>Welcome to the hotel's WLAN</html>")),
        "html-403": ("ca_bad_answer", "json", saying("<html>Forbidden</html>", 403)),
        "not-json": ("ca_bad_answer", "json", saying('{"certChain":[', 201, "application/json")),
        "no-chain": ("ca_bad_answer", "json", saying("{}", 201, "application/json")),
        "no-pem": ("ca_bad_answer", "pem", saying('{"certChain":["x","y"]}', 201, "application/json")),
        "endless": ("ca_bad_answer", "size", saying(" " * (2 << 20), 201, "application/json")),
        "another-key": ("ca_bad_answer", "key", forger.leaf(key=ec.generate_private_key(ec.SECP256R1()).public_key())),
        "another-serial": ("ca_bad_answer", "serial", forger.leaf(serial=4711)),
        "another-name": ("ca_bad_answer", "cn", forger.leaf(subject="somebody-else")),
        "more-names": ("ca_bad_answer", "san", forger.leaf(names=("more-names", "localhost"))),
        "expired-leaf": ("ca_bad_answer", "validity", forger.leaf(begin=past, end=past + timedelta(days=1))),
        "too-long": ("ca_bad_answer", "validity", forger.leaf(end=now() + timedelta(days=900))),
        "server-auth": ("ca_bad_answer", "eku", forger.purpose(ExtendedKeyUsageOID.SERVER_AUTH)),
        "any-purpose": ("ca_bad_answer", "eku", forger.purpose(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)),
        "expired-chain": ("ca_bad_answer", "issuer", forger.with_chain(forger.expired(), chain[1])),
        "chain-upside-down": ("ca_bad_answer", "issuer", forger.with_chain(*reversed(chain))),
        "chain-too-short": ("ca_bad_answer", "chain", forger.with_chain(chain[0])),
        "another-root": ("ca_bad_answer", "issuer", forger.under(make_hierarchy(now()))),
        "another-tenant": ("ca_bad_answer", "issuer", forger.under(another_tenant(own))),
        "another-intermediate": ("ca_bad_answer", "issuer", forger.under(another_intermediate(own))),
    }


KINDS = sorted(behaviours(make_hierarchy(now())))


@dataclass
class House:
    """A bridge before the hostile CA, and the first answer that each device got."""

    systems: StandIns
    bridge: Bridge
    http: httpx.Client
    expected: dict[str, tuple[str, str]]
    keys: dict[str, ec.EllipticCurvePrivateKey]
    first: dict[str, httpx.Response]

    def enroll(self, name: str) -> httpx.Response:
        return self.http.post(f"/devices/{name}/enroll", json={"csr_pem": csr(name, self.keys[name])})

    def reason(self, told: httpx.Response) -> str:
        """Why the bridge's log says that this request failed at the CA."""
        lines = map(json.loads, self.bridge.log.splitlines())
        request = told.headers["x-request-id"]
        found = [one for one in lines if one.get("request_id") == request and one["event"].startswith("ca.")]
        assert len(found) == 1, found
        return str(found[0].get("failed") or found[0].get("status") or found[0]["error"])

    def revoked(self) -> set[int]:
        der = self.systems.background.run(self._crl())
        return {one.serial_number for one in x509.load_der_x509_crl(der)}

    async def _crl(self) -> bytes:
        return self.systems.ca._authority.crl()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, background: Background) -> Iterator[House]:
    with ExitStack() as stack:
        systems = stack.enter_context(standins(tmp_path_factory.mktemp("systems"), background))
        more = {"BRIDGE_SIGN_DEADLINE": f"{DEADLINE:.0f}s"}
        bridge = stack.enter_context(Bridge(tmp_path_factory.mktemp("bridge"), systems.variables() | more))
        systems.point_webhook(bridge, stack)
        http = stack.enter_context(bridge.client(systems.ca.anchor.root_pem))
        table = behaviours(systems.ca._authority.hierarchy)
        systems.proxy.behaviours = {name: behave for name, (_, _, behave) in table.items()}
        keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in table}
        made = House(systems, bridge, http, {name: (code, why) for name, (code, why, _) in table.items()}, keys, {})
        with ThreadPoolExecutor(len(table)) as pool:
            made.first = dict(zip(table, pool.map(made.enroll, table), strict=True))
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_the_device_is_told_to_come_back_and_nothing_is_delivered(house: House, kind: str) -> None:
    told, (code, why) = house.first[kind], house.expected[kind]

    assert (told.status_code, told.json()["code"]) == (503, code), told.text
    assert why in house.reason(told)
    assert int(told.headers["retry-after"]) > 0
    assert "CERTIFICATE" not in told.text
    assert "hotel" not in told.text


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_signed_is_revoked_and_the_device_gets_another_one(house: House, kind: str) -> None:
    house.systems.proxy.behaviours.pop(kind, None)

    def comes_again() -> httpx.Response:
        told = house.enroll(kind)
        assert told.status_code == 201, told.text
        return told

    told = wait_for(comes_again, 2 * DEADLINE)

    leaf = x509.load_pem_x509_certificate(told.json()["cert"].encode())
    signed = [one.serial for one in house.systems.ca.signed() if one.name == kind]
    assert signed[-1] == leaf.serial_number

    def in_order() -> bool:
        states = {int(one["serial"]): one["state"] for one in house.bridge.show(kind)["issuances"]}
        assert {serial: states.get(serial) for serial in signed} == dict.fromkeys(signed[:-1], "revoked") | {
            signed[-1]: "current"
        }
        return True

    wait_for(in_order, 2 * DEADLINE)
    assert set(signed[:-1]) <= house.revoked()
    assert leaf.serial_number not in house.revoked()
    assert house.enroll(kind).json()["cert"] == told.json()["cert"]


def test_a_ca_that_is_down_costs_nothing(house: House) -> None:
    house.keys["down"] = ec.generate_private_key(ec.SECP256R1())
    background, proxy = house.systems.background, house.systems.proxy
    signed = house.systems.signed()
    background.run(proxy.stop())
    try:
        told = house.enroll("down")
        ready = house.http.get("/readyz")
    finally:
        background.run(proxy.start())

    assert (told.status_code, told.json()["code"]) == (503, "ca_unreachable")
    assert (ready.status_code, ready.json()["parts"]["ca"]["up"]) == (503, False)
    assert house.http.get("/healthz").status_code == 200
    assert house.systems.signed() == signed
    # The request surely never left: no deadline has to pass.
    assert house.enroll("down").status_code == 201
    assert len(house.bridge.show("down")["issuances"]) == 1


def test_no_certificate_exists_that_the_registry_does_not_know(house: House) -> None:
    listed = [one["device_id"] for one in house.bridge.order("device", "list")]
    known = {int(one["serial"]) for name in listed for one in house.bridge.show(name)["issuances"]}

    assert house.systems.signed() <= known
