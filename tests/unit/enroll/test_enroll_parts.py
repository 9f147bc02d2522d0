"""The small parts: keys, CSR, transport's reading of headers, the plan, and who may import what."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

import enroll
from enroll.keys import KeyFormatError, WireGuardKey, csr
from enroll.keys.file import FileKey
from enroll.network.transport import retry_after
from enroll.printable import printable


def pem_of(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | dsa.DSAPrivateKey,
) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


@pytest.mark.parametrize("kind", ["P-256", "P-384", "Ed25519", "RSA"])
def test_every_accepted_kind_of_key_makes_a_csr_for_one_name(kind: str) -> None:
    key = {
        "P-256": FileKey.generate,
        "P-384": lambda: FileKey.from_pem(pem_of(ec.generate_private_key(ec.SECP384R1()))),
        "Ed25519": lambda: FileKey.from_pem(pem_of(ed25519.Ed25519PrivateKey.generate())),
        "RSA": lambda: FileKey.from_pem(pem_of(rsa.generate_private_key(65537, 2048))),
    }[kind]()
    pem = csr.build(key.private, "dev-1")
    request = x509.load_pem_x509_csr(pem)
    assert request.subject.rfc4514_string() == "CN=dev-1"
    san = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(san) == [x509.DNSName("dev-1")]
    assert csr.fits(pem, key.private, "dev-1")
    assert not csr.fits(pem, key.private, "dev-2")
    assert not csr.fits(pem, FileKey.generate().private, "dev-1")
    assert not csr.fits(pem[:-60], key.private, "dev-1")
    assert not csr.fits(b"", key.private, "dev-1")


def test_keys_survive_their_files_and_are_not_shown() -> None:
    key, wireguard = FileKey.generate(), WireGuardKey.generate()
    assert FileKey.from_pem(key.content()).spki_sha256 == key.spki_sha256
    assert WireGuardKey.from_text(wireguard.to_text()) == wireguard
    assert wireguard.private not in repr(wireguard)
    assert "private" not in repr(key).lower()


def test_wireguard_keys_are_those_of_wg() -> None:
    wireguard = WireGuardKey.generate()
    ended = subprocess.run(["wg", "pubkey"], input=wireguard.to_text(), capture_output=True, timeout=10, check=True)
    assert ended.stdout.decode().strip() == wireguard.public


@pytest.mark.parametrize("text", [b"", b"AAAA", b"A" * 43 + b"=", b"\0" * 45, b"x" * 44, b"A" * 44])
def test_what_is_no_wireguard_key(text: bytes) -> None:
    with pytest.raises(KeyFormatError):
        WireGuardKey.from_text(text)


def test_what_is_no_device_key() -> None:
    for pem in (
        b"",
        b"\0" * 200,
        pem_of(ec.generate_private_key(ec.SECP521R1())),
        pem_of(dsa.generate_private_key(1024)),
    ):
        with pytest.raises(KeyFormatError):
            FileKey.from_pem(pem)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 40}, None),
        ({"retry-after": "Wed, 01 Jan 2025 00:00:30 GMT"}, None),
        ({"retry-after": "Wed, 01 Jan 2025 00:00:30 GMT", "date": "Wed, 01 Jan 2025 00:00:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 01 Jan 2025 00:00:00 GMT", "date": "Wed, 01 Jan 2025 00:00:30 GMT"}, None),
    ],
)
def test_retry_after_counts_from_the_answers_own_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_strangers_text_is_one_bounded_line() -> None:
    assert printable("a\nb\x1b[2Jc") == "a b [2Jc"
    assert len(printable("x" * 5000)) == 401


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module} | ({f"enroll.{a.name}" for a in node.names} if node.module == "enroll" else set())
    return found


def test_the_agent_stands_on_few_libraries_and_wire_on_none() -> None:
    folder = Path(enroll.__file__).parent
    allowed = {"enroll", "cryptography", "jwt", "paho", "pkcs11"} | sys.stdlib_module_names - {"asyncio"}
    for path in folder.rglob("*.py"):
        assert {name.split(".")[0] for name in imports_of(path)} <= allowed, path.name
    for name in ("wire.py", "names.py"):
        known = sys.stdlib_module_names | ({"enroll"} if name == "names.py" else set())
        assert {n.split(".")[0] for n in imports_of(folder / name)} <= known
