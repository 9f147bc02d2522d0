"""Bad input over real HTTPS: each gets its problem document, the registry stays as it was, the CA signs nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.e2e.processes import wait_for
from tests.e2e.requests import csr
from tests.e2e.tenants import Tenant, signed_by_embedded_ca
from wireguard.keys import PrivateKey

P256 = ec.SECP256R1()
PROBLEM = "application/problem+json"


@dataclass
class Known:
    """A device that is enrolled already, and what its registry knows."""

    id: str
    key: ec.EllipticCurvePrivateKey
    wg_key: str
    server_wg_key: str


@pytest.fixture(scope="module")
def http(embedded: Tenant) -> Iterator[httpx.Client]:
    with embedded.bridge.client(embedded.root_pem) as client:
        yield client


@pytest.fixture(scope="module")
def known(embedded: Tenant, http: httpx.Client) -> Known:
    name, key = embedded.device("Known").id, ec.generate_private_key(P256)
    wg_key = str(PrivateKey.generate().public_key)
    answer = http.post(f"/devices/{name}/enroll", json={"csr_pem": csr(name, key), "wg_public_key": wg_key})
    assert answer.status_code == 201
    return Known(name, key, wg_key, answer.json()["wg"]["server_public_key"])


@pytest.fixture(scope="module")
def new(embedded: Tenant) -> str:
    """A registered id that none of these requests gets to enroll."""
    return embedded.device("new").id


@pytest.fixture
def refused(embedded: Tenant, http: httpx.Client, known: Known, new: str) -> Callable[..., dict[str, Any]]:
    """Post, and return the problem: whatever was sent, nothing was written and nothing signed."""

    def state() -> Any:
        listed = embedded.bridge.order("device", "list")
        return listed, [embedded.bridge.show(name)["issuances"] for name in (known.id, new)]

    def post(path: str, content: bytes | dict[str, Any], **headers: str) -> dict[str, Any]:
        before, signed = state(), signed_by_embedded_ca(embedded.bridge)
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        answer = http.post(path, content=body, headers={"Content-Type": "application/json"} | headers)
        assert answer.headers["content-type"] == PROBLEM, answer.text
        problem: dict[str, Any] = answer.json()
        assert problem["status"] == answer.status_code
        assert state() == before
        assert signed_by_embedded_ca(embedded.bridge) == signed
        return problem

    return post


def pem_of(der: bytes) -> str:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


def broken_signature(name: str) -> str:
    der = bytearray(x509.load_pem_x509_csr(csr(name).encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    return pem_of(bytes(der))


def two_names(name: str) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one) for one in (name, "other")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(ec.generate_private_key(P256), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


CSRS: dict[str, Callable[[str], str]] = {
    "garbage": lambda _: "garbage",
    "not-der": lambda _: pem_of(b"garbage"),
    "a-certificate": lambda _: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "of-another-id": lambda _: csr("another"),
    "other-spelling": lambda name: csr(name.upper()),
    "two-names": two_names,
    "extra-san": lambda name: csr(name, san=[x509.DNSName(name), x509.DNSName("localhost")]),
    "other-san": lambda name: csr(name, san=[x509.DNSName("localhost")]),
    "mail-san": lambda name: csr(name, san=[x509.RFC822Name("root@example.com")]),
    "ca-true": lambda name: csr(name, extension=x509.BasicConstraints(ca=True, path_length=None)),
    "rsa-1024": lambda name: csr(name, rsa.generate_private_key(65537, 1024)),
    "p-192": lambda name: csr(name, ec.generate_private_key(ec.SECP192R1())),
    "broken-signature": broken_signature,
}


@pytest.mark.parametrize("kind", CSRS)
def test_a_csr_that_is_none_of_a_device(refused: Callable[..., dict[str, Any]], new: str, kind: str) -> None:
    problem = refused(f"/devices/{new}/enroll", {"csr_pem": CSRS[kind](new)})

    assert (problem["status"], problem["code"]) == (422, "bad_csr")


IDS = {
    "slash": "a/b",
    "encoded-slash": "a%2Fb",
    "dots": "..",
    "climbing": "../../etc/passwd",
    "blank": "a b",
    "new-line": "a\nb",
    "zero": "a\0b",
    "65-letters": "a" * 65,
    "not-ascii": "ä",
    "address": "10.0.0.1",
    "address-6": "::1",
    "localhost": "localhost",
    "our-host": "LocalHost",
}


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("door", ["address", "body"])
def test_an_id_that_can_be_none(refused: Callable[..., dict[str, Any]], kind: str, door: str) -> None:
    name = IDS[kind]
    request = {"csr_pem": csr("a"), "device_id": name}

    if door == "address":
        problem = refused(f"/devices/{quote(name, safe='%').replace('.', '%2E')}/enroll", request)
    else:
        problem = refused("/v1/enroll", request)

    assert (problem["status"], problem["code"]) == (422, "bad_device_id")


@pytest.mark.parametrize("spelling", [str.lower, str.upper])
def test_an_id_that_differs_by_case_alone(
    refused: Callable[..., dict[str, Any]], known: Known, embedded: Tenant, spelling: Callable[[str], str]
) -> None:
    name = spelling(known.id)

    problem = refused(f"/devices/{name}/enroll", {"csr_pem": csr(name)})

    assert (problem["status"], problem["code"]) == (409, "id_spelling")
    assert embedded.eyes.thingsboard.attributes(name) is None


WG_KEYS: dict[str, Callable[[Known], object]] = {
    "new-line": lambda _: f"{PrivateKey.generate().public_key}\nPostUp = reboot",
    "trailing-new-line": lambda _: f"{PrivateKey.generate().public_key}\n",
    "short": lambda _: base64.b64encode(b"short").decode(),
    "33-octets": lambda _: base64.b64encode(bytes(range(33))).decode(),
    "all-zero": lambda _: base64.b64encode(bytes(32)).decode(),
    "low-order": lambda _: base64.b64encode(b"\x01" + bytes(31)).decode(),
    "not-base64": lambda _: "!" * 44,
    "the-servers-own": lambda known: known.server_wg_key,
}


@pytest.mark.parametrize("kind", WG_KEYS)
def test_a_wireguard_key_that_no_peer_can_have(
    refused: Callable[..., dict[str, Any]], new: str, known: Known, kind: str
) -> None:
    problem = refused(f"/devices/{new}/enroll", {"csr_pem": csr(new), "wg_public_key": WG_KEYS[kind](known)})

    assert (problem["status"], problem["code"]) == (422, "bad_wg_key")


def test_a_wireguard_key_of_another_device(refused: Callable[..., dict[str, Any]], new: str, known: Known) -> None:
    problem = refused(f"/devices/{new}/enroll", {"csr_pem": csr(new), "wg_public_key": known.wg_key})

    assert (problem["status"], problem["code"]) == (409, "wg_key_in_use")
    assert known.id not in json.dumps(problem)


def test_another_wireguard_key_for_a_certificate_that_exists(
    refused: Callable[..., dict[str, Any]], known: Known
) -> None:
    other = str(PrivateKey.generate().public_key)

    problem = refused(f"/devices/{known.id}/enroll", {"csr_pem": csr(known.id, known.key), "wg_public_key": other})

    assert (problem["status"], problem["code"]) == (409, "wg_key_differs")


def test_one_device_key_under_two_ids(refused: Callable[..., dict[str, Any]], new: str, known: Known) -> None:
    problem = refused(f"/devices/{new}/enroll", {"csr_pem": csr(new, known.key)})

    assert (problem["status"], problem["code"]) == (409, "key_in_use")
    assert known.id not in json.dumps(problem)


def test_an_id_that_nobody_registered(refused: Callable[..., dict[str, Any]]) -> None:
    problem = refused("/devices/stranger/enroll", {"csr_pem": csr("stranger")})

    assert (problem["status"], problem["code"]) == (403, "not_admitted")


BODIES = {
    "not-json": (b"{", 422, "bad_request"),
    "not-utf-8": (b'{"csr_pem":"\xff"}', 422, "bad_request"),
    "a-list": (b"[]", 422, "bad_request"),
    "nothing": (b"", 422, "bad_request"),
    "no-csr": (b"{}", 422, "bad_request"),
    "a-number": (b'{"csr_pem": 1}', 422, "bad_request"),
    "deeply-nested": (b'{"hardware":' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}", 422, "bad_request"),
    "brackets": (b"[" * 30_000, 422, "bad_request"),
    "over-32-kib": (b'{"csr_pem":"' + b"a" * (32 << 10) + b'"}', 413, "too_large"),
    "a-megabyte": (b"a" * (1 << 20), 413, "too_large"),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_is_no_request(refused: Callable[..., dict[str, Any]], new: str, kind: str) -> None:
    body, status, code = BODIES[kind]

    problem = refused(f"/devices/{new}/enroll", body)

    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"]


def test_many_keys_at_once_for_one_id_get_one_certificate(embedded: Tenant, http: httpx.Client) -> None:
    name, before = embedded.device("race").id, len(signed_by_embedded_ca(embedded.bridge))
    requests = [{"csr_pem": csr(name), "wg_public_key": str(PrivateKey.generate().public_key)} for _ in range(12)]

    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(lambda body: http.post(f"/devices/{name}/enroll", json=body), requests))

    assert sorted(one.status_code for one in answers) == [201] + [409] * 11
    assert {one.json()["code"] for one in answers if one.status_code == 409} <= {"identity_exists", "in_progress"}
    shown = embedded.bridge.show(name)
    assert [one["state"] for one in shown["issuances"]] == ["current"]
    assert len(signed_by_embedded_ca(embedded.bridge)) == before + 1


def test_the_same_key_many_times_at_once_gets_one_certificate(embedded: Tenant, http: httpx.Client) -> None:
    name, key = embedded.device("eager").id, ec.generate_private_key(P256)
    requests = [{"csr_pem": csr(name, key)} for _ in range(12)]

    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(lambda body: http.post(f"/devices/{name}/enroll", json=body), requests))

    assert sorted(one.status_code for one in answers) == [200] * 11 + [201]
    assert len({one.json()["cert"] for one in answers}) == 1
    assert len(embedded.bridge.show(name)["issuances"]) == 1


# -- the webhook -----------------------------------------------------------------------------------------------------


def event(name: str) -> dict[str, Any]:
    return {"msgType": "CONNECT_EVENT", "metadata": {"deviceName": name, "deviceType": "default"}, "data": {}}


@pytest.fixture
def hook(embedded: Tenant, http: httpx.Client) -> Callable[[str], httpx.Response]:
    secret = (embedded.bridge.data / "embedded" / "webhook.secret").read_text().strip()

    def post(name: str) -> httpx.Response:
        headers = {"X-Bridge-Webhook-Secret": secret}
        return http.post("/webhooks/thingsboard", json=event(name), headers=headers)

    return post


@pytest.mark.parametrize("headers", [{}, {"X-Bridge-Webhook-Secret": "wrong"}, {"X-Bridge-Webhook-Secret": ""}])
def test_a_webhook_with_a_wrong_secret(http: httpx.Client, known: Known, headers: dict[str, str]) -> None:
    answer = http.post("/webhooks/thingsboard", json=event(known.id), headers=headers)

    assert (answer.status_code, answer.headers["content-type"]) == (401, PROBLEM)


def test_a_webhook_for_an_unknown_device(embedded: Tenant, hook: Callable[[str], httpx.Response]) -> None:
    before = embedded.bridge.order("device", "list")

    assert [hook(name).status_code for name in ("never-heard-of", "../x", "")] == [202, 202, 202]

    assert embedded.bridge.order("device", "list") == before
    assert embedded.eyes.hawkbit.target("never-heard-of") is None


def test_a_webhook_a_thousand_times_believed_in_nothing(
    embedded: Tenant, hook: Callable[[str], httpx.Response], known: Known
) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = {one.status_code for one in pool.map(hook, [known.id] * 1000)}

    assert answers == {202}
    # It says that the device connected; ThingsBoard does not, so there is no target.
    wait_for(lambda: embedded.eyes.thingsboard.attributes(known.id))
    shown = embedded.bridge.show(known.id)
    assert shown["first_connected_at"] is None
    assert embedded.eyes.hawkbit.target(known.id) is None
