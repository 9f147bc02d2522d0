"""CSRs that ask for what no device gets: refused at the edge, the CA never asked, nothing written."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding


def sealed(**fields: Any) -> Any:
    return json.dumps(fields).encode()


def weak_rsa() -> Any:
    return rsa.generate_private_key(65537, 1024)


@pytest.mark.parametrize(
    "text",
    [
        "garbage",
        "",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "-----BEGIN CERTIFICATE REQUEST-----\nnot base64!\n-----END CERTIFICATE REQUEST-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "\u202e-----BEGIN CERTIFICATE REQUEST-----",
        "-----BEGIN CERTIFICATE REQUEST-----" * 100,
    ],
)
async def test_a_csr_that_is_garbage(post: Any, text: str) -> None:
    problem = await post("/devices/pump-7/enroll", sealed(csr_pem=text))
    assert problem.code == ("bad_csr" if text else "bad_request")


@pytest.mark.parametrize(
    "build",
    [
        lambda new: new("other"),
        lambda new: new("Pump-7"),
        lambda new: new("pump-7", names=("pump-7", "other")),
        lambda new: new("pump-7", names=("pump-7", "pump-7")),
        lambda new: new(
            "pump-7", extensions=(x509.SubjectAlternativeName([x509.DNSName("pump-7"), x509.DNSName("evil")]),)
        ),
        lambda new: new("pump-7", extensions=(x509.SubjectAlternativeName([x509.DNSName("bridge.test")]),)),
        lambda new: new("pump-7", extensions=(x509.SubjectAlternativeName([x509.IPAddress(ip_address("10.0.0.1"))]),)),
        lambda new: new("pump-7", extensions=(x509.BasicConstraints(ca=True, path_length=None),)),
        lambda new: new("pump-7", key=weak_rsa()),
        lambda new: new("pump-7", key=ec.generate_private_key(ec.SECP192R1())),
        lambda new: new("pump-7", key=ec.generate_private_key(ec.SECP256K1())),
        lambda new: new("pump-7", key=dsa.generate_private_key(1024)),
        lambda new: new("pump-7") + new("pump-7"),
    ],
    ids=[
        "other-id",
        "other-spelling",
        "two-cns",
        "one-cn-twice",
        "extra-san",
        "other-san",
        "ip-san",
        "ca-true",
        "rsa-1024",
        "p-192",
        "secp256k1",
        "dsa",
        "two-csrs",
    ],
)
async def test_a_csr_that_asks_for_what_no_device_gets(post: Any, new_csr: Callable[..., str], build: Any) -> None:
    problem = await post("/devices/pump-7/enroll", sealed(csr_pem=build(new_csr)))
    assert problem.code == "bad_csr"
    assert problem.final


async def test_a_csr_whose_signature_is_broken(post: Any, new_csr: Callable[..., str]) -> None:
    der = bytearray(x509.load_pem_x509_csr(new_csr("pump-7").encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE REQUEST-----\n"
    problem = await post("/devices/pump-7/enroll", sealed(csr_pem=pem))
    assert problem.code == "bad_csr"
    assert "signature" in problem.detail


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["p-384", "ed25519", "rsa-2048"],
)
async def test_the_other_kinds_of_key_are_taken(open_house: Any, new_csr: Callable[..., str], key: Any) -> None:
    async with open_house.client() as client:
        answer = await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7", key=key)})

    assert answer.status_code == 201


async def test_other_requested_extensions_are_ignored_and_never_copied(
    open_house: Any, new_csr: Callable[..., str]
) -> None:
    asked = (
        x509.KeyUsage(True, False, False, False, False, False, False, False, False),
        x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.BasicConstraints(ca=False, path_length=None),
    )
    async with open_house.client() as client:
        answer = await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7", extensions=asked)})

    leaf = x509.load_pem_x509_certificate(answer.json()["cert"].encode())
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert isinstance(leaf.signature_hash_algorithm, hashes.SHA256)
