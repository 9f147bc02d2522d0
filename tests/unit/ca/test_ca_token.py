"""The one-time token, claim by claim."""

import hashlib
from base64 import urlsafe_b64decode
from datetime import UTC, datetime

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ca.models import MAX_SERIAL
from ca.provisioner_key import ProvisionerKey
from ca.token import TokenSigner

NOW = datetime(2026, 11, 1, 12, 0, 0, 900_000, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())


def signer(url: str = "https://ca.example:9000/") -> TokenSigner:
    counter = iter(range(1, 1000))
    return TokenSigner(
        ProvisionerKey(KEY, "the-kid", "ES256"),
        issuer="iot-bridge",
        url=url,
        clock=lambda: NOW,
        randomness=lambda n: next(counter).to_bytes(n, "big"),
    )


def read(token: str) -> dict[str, object]:
    options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
    claims: dict[str, object] = jwt.decode(token, KEY.public_key(), ["ES256"], options=options)
    return claims


def test_a_sign_token() -> None:
    token = signer().for_sign("dev-1", b"the csr", 2**150)
    issued = int(NOW.timestamp())
    claims = read(token)
    confirmation = claims.pop("cnf")
    assert claims == {
        "iss": "iot-bridge",
        "aud": "https://ca.example:9000/1.0/sign",
        "sub": "dev-1",
        "sans": ["dev-1"],
        "serial": str(2**150),
        "iat": issued,
        "nbf": issued,
        "exp": issued + 300,
        "jti": "0" * 31 + "1",
    }
    assert isinstance(confirmation, dict)
    digest = urlsafe_b64decode(confirmation["x5rt#S256"] + "=")
    assert digest == hashlib.sha256(b"the csr").digest()
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": "the-kid", "typ": "JWT"}


def test_a_revoke_token_is_for_that_serial_alone() -> None:
    claims = read(signer().for_revoke(7))
    assert (claims["sub"], claims["aud"]) == ("7", "https://ca.example:9000/1.0/revoke")
    assert not {"sans", "cnf", "serial"} & set(claims)


def test_a_server_token_carries_no_serial() -> None:
    claims = read(signer().for_server("bridge.example.com", b"csr"))
    assert claims["sans"] == ["bridge.example.com"]
    assert "serial" not in claims
    assert "cnf" in claims


def test_every_token_is_another() -> None:
    tokens = signer()
    assert len({read(tokens.for_revoke(1))["jti"] for _ in range(20)}) == 20


@pytest.mark.parametrize("serial", [0, -1, MAX_SERIAL + 1])
def test_serials_that_rfc_5280_forbids(serial: int) -> None:
    with pytest.raises(ValueError, match="serial"):
        signer().for_sign("dev-1", b"csr", serial)
    with pytest.raises(ValueError, match="serial"):
        signer().for_revoke(serial)
