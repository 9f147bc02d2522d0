"""Clients of complete-device-management, their bytes and their parsers, unchanged.

The requests below are what those clients put on the wire; the parsers do what theirs do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CURL = {"User-Agent": "curl/8.5.0", "Accept": "*/*", "Content-Type": "application/json"}
PREFIXES = ["", "/api"]


def body_of_jq(csr: str, wg_public_key: str) -> bytes:
    """`jq -n --arg … '{csr: $csr, …}'`: two blanks of indentation; `$(cat)` has cut the CSR's last newline."""
    fields = {
        "csr": csr.rstrip("\n"),
        "device_name": "Simulated Device 001",
        "device_type": "simulator",
        "wg_public_key": wg_public_key,
    }
    return json.dumps(fields, indent=2).encode()


def body_of_c(device: str, csr: str) -> bytes:
    """A format string and newlines as backslash n: FreeRTOS, and QEMU's awk."""
    escaped = csr.replace("\n", "\\n")
    return f'{{"device_id":"{device}","device_type":"freertos-posix","csr":"{escaped}"}}'.encode()


def body_of_yocto(device: str, csr: str) -> bytes:
    """A here-string with the tenant beside the id, blanks and newlines as typed."""
    escaped = csr.replace("\n", "\\n")
    return (
        f'{{\n        "device_id":   "{device}",\n        "tenant_id":   "tenant1",\n'
        f'        "device_type": "rpi4-tpm",\n        "csr":         "{escaped}"\n    }}'
    ).encode()


def as_freertos_reads(text: str, key: str) -> str | None:
    """The first `"key":`, blanks, a quote; knows no escape but newline and backslash."""
    found = re.search(rf'"{key}": *"((?:\\\\|\\n|[^"\\])*)"', text)
    return found[1].replace("\\n", "\n").replace("\\\\", "\\") if found else None


def as_qemu_reads(text: str, key: str) -> str | None:
    """`grep -o '"key":"[^"]*"'`: no blank after the colon, everything on one line."""
    found = re.search(rf'"{key}":"([^"\n]*)"', text)
    return found[1].replace("\\n", "\n") if found else None


def issuers_and_subjects(pem: str) -> list[tuple[str, str]]:
    certificates = x509.load_pem_x509_certificates(pem.encode())
    return [(c.issuer.rfc4514_string(), c.subject.rfc4514_string()) for c in certificates]


CHAIN_WITH_ROOT = [("CN=Workshop root", "CN=Workshop issuing CA"), ("CN=Workshop root", "CN=Workshop root")]


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_the_shell_client(
    open_house: Any, new_csr: Callable[..., str], new_wg_key: Callable[[], str], prefix: str
) -> None:
    csr = new_csr("sim-device-001", extensions=(x509.SubjectAlternativeName([x509.DNSName("sim-device-001")]),))
    async with open_house.client() as client:
        answer = await client.post(
            prefix + "/devices/sim-device-001/enroll", content=body_of_jq(csr, new_wg_key()), headers=CURL
        )

    assert answer.status_code == 201  # `curl -f` takes every 2xx
    fields = answer.json()  # it reads with jq
    leaf = x509.load_pem_x509_certificate(fields["certificate"].encode())
    assert leaf.public_key() == x509.load_pem_x509_csr(csr.encode()).public_key()
    assert issuers_and_subjects(fields["ca_chain"]) == CHAIN_WITH_ROOT
    assert fields["wireguard_ip"] == "10.8.0.2"
    config = fields["wireguard_config"].replace("<REPLACE_WITH_DEVICE_PRIVATE_KEY>", "cHJpdmF0ZQ==")
    assert "\nPrivateKey = cHJpdmF0ZQ==\nAddress = 10.8.0.2/32\n" in config
    assert fields["cert"] == fields["certificate"]


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_the_freertos_client(open_house: Any, new_csr: Callable[..., str], prefix: str) -> None:
    more = ((NameOID.ORGANIZATION_NAME, "CDM"), (NameOID.ORGANIZATIONAL_UNIT_NAME, "tenant1"))
    csr = new_csr("freertos-device-001", more=more)
    async with open_house.client() as client:
        answer = await client.post(
            prefix + "/v1/enroll",
            content=body_of_c("freertos-device-001", csr),
            headers={"Accept": "*/*", "Content-Type": "application/json"},
        )

    assert answer.status_code == 200
    certificate, chain = (as_freertos_reads(answer.text, key) for key in ("certificate", "ca_chain"))
    assert x509.load_pem_x509_certificate(certificate.encode()).subject.rfc4514_string() == "CN=freertos-device-001"
    assert issuers_and_subjects(chain) == CHAIN_WITH_ROOT
    assert len(chain) < 8192  # its buffer
    assert len(certificate) < 8192


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_the_qemu_client(open_house: Any, new_csr: Callable[..., str], prefix: str) -> None:
    csr = new_csr(
        "qemu-device-001",
        extensions=(x509.SubjectAlternativeName([x509.DNSName("qemu-device-001")]),),
        more=((NameOID.ORGANIZATION_NAME, "CDM"), (NameOID.ORGANIZATIONAL_UNIT_NAME, "tenant1")),
    )
    async with open_house.client() as client:
        answer = await client.post(prefix + "/v1/enroll", content=body_of_c("qemu-device-001", csr), headers=CURL)

    assert answer.status_code == 200
    assert '"certificate":"-----BEGIN CERTIFICATE-----' in answer.text
    certificate, chain = (as_qemu_reads(answer.text, key) for key in ("certificate", "ca_chain"))
    assert x509.load_pem_x509_certificate(certificate.encode()).subject.rfc4514_string() == "CN=qemu-device-001"
    assert issuers_and_subjects(chain) == CHAIN_WITH_ROOT


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_the_two_yocto_clients(open_house: Any, new_csr: Callable[..., str], prefix: str) -> None:
    csr = new_csr("rpi4-001", more=((NameOID.ORGANIZATION_NAME, "tenant1"),))
    async with open_house.client() as client:
        answer = await client.post(prefix + "/v1/enroll", content=body_of_yocto("rpi4-001", csr), headers=CURL)

    assert answer.status_code == 200
    assert x509.load_pem_x509_certificate(answer.json()["certificate"].encode())
    assert issuers_and_subjects(answer.json()["ca_chain"]) == CHAIN_WITH_ROOT


@pytest.mark.parametrize("address", ["/devices/old-1/enroll", "/v1/enroll"])
async def test_no_old_field_is_ever_null_or_missing(open_house: Any, new_csr: Callable[..., str], address: str) -> None:
    off = type(open_house.parts.terms)()
    async with open_house.client(terms=off) as client:
        answer = await client.post(address, content=body_of_c("old-1", new_csr("old-1")), headers=CURL)

    fields = answer.json()
    assert (fields["wireguard_ip"], fields["wireguard_config"]) == ("", "")
    assert all(isinstance(fields[name], str) for name in ("certificate", "ca_chain", "cert"))


async def test_old_and_new_addresses_are_one_use_case(open_house: Any, new_csr: Callable[..., str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    async with open_house.client() as client:
        first = await client.post("/v1/enroll", content=body_of_c("old-1", new_csr("old-1", key=key)), headers=CURL)
        again = await client.post("/v1/enroll", content=body_of_c("old-1", new_csr("old-1", key=key)), headers=CURL)
        new = await client.post("/api/devices/old-1/enroll", json={"csr_pem": new_csr("old-1", key=key)})
        both = await client.post(
            "/devices/old-1/enroll", json=dict.fromkeys(("csr", "csr_pem"), new_csr("old-1", key=key))
        )

    assert [answer.status_code for answer in (first, again, new, both)] == [200] * 4
    assert len({answer.json()["cert"] for answer in (first, again, new, both)}) == 1
    assert "certificate" not in new.json()
    assert "certificate" in both.json()
    assert open_house.ca.signed == 1


async def test_every_answer_is_compact(open_house: Any, new_csr: Callable[..., str]) -> None:
    async with open_house.client() as client:
        answer = await client.post("/v1/enroll", content=body_of_c("old-1", new_csr("old-1")), headers=CURL)

    assert answer.content == json.dumps(answer.json(), separators=(",", ":"), ensure_ascii=False).encode()
    assert b"\n" not in answer.content


async def test_step_ca_bootstrap_finds_the_root_where_it_asks(house: Any) -> None:
    digest = house.parts.trust.root_sha256.hex
    async with house.client() as client:
        answer: httpx.Response = await client.get(f"/root/{digest}")

    assert answer.json() == {"ca": house.parts.trust.root}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "bad_request"),
        ({"device_id": None}, "bad_request"),
        ({"device_id": 7}, "bad_request"),
        ({"device_id": ""}, "bad_device_id"),
        ({"device_id": "a/b"}, "bad_device_id"),
        ({"device_id": "other"}, "bad_csr"),
    ],
)
async def test_the_id_in_the_body_is_judged_like_the_one_in_the_address(
    open_house: Any, new_csr: Callable[..., str], body: Any, code: str
) -> None:
    async with open_house.client() as client:
        answer = await client.post("/v1/enroll", json={"csr": new_csr("old-1")} | body)

    assert (answer.status_code, answer.json()["code"]) == (422, code)
