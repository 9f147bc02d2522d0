"""step-ca's JSON answers turned into this package's values; whatever does not fit is CaBadAnswer.

Not responsible for fetching them. Formats: ``api/api.go`` and ``authority/provisioner`` of
smallstep/certificates.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from cryptography import x509

from ca.exchange import nonsense
from ca.models import Provisioner, SignedChain
from ca.path import parse_one

_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_MAX_CERTIFICATES: Final = 64


def signed_chain(answer: Mapping[str, Any]) -> SignedChain:
    """Read the answer of ``/1.0/sign``: ``certChain`` is the leaf, the issuing CA and its issuers, as PEM."""
    chain = answer.get("certChain")
    if not isinstance(chain, list) or not 2 <= len(chain) <= _MAX_CERTIFICATES:  # noqa: PLR2004 - leaf and issuer
        raise nonsense("json", "the CA's answer holds no chain of certificates")
    if not all(isinstance(pem, str) and pem for pem in chain):
        raise nonsense("pem", "the CA's answer holds a certificate that is no PEM")
    return SignedChain(chain[0], tuple(chain[1:]))


def certificates(answer: Mapping[str, Any]) -> tuple[x509.Certificate, ...]:
    """Read ``{"crts": [PEM, ...]}``."""
    listed = answer.get("crts")
    if not isinstance(listed, list) or not 0 < len(listed) <= _MAX_CERTIFICATES:
        raise nonsense("json", "the CA's answer holds no list of certificates")
    return tuple(parse_one(pem) for pem in listed)


def provisioners(answer: Mapping[str, Any]) -> tuple[tuple[Provisioner, ...], str]:
    """Read one page of ``/provisioners``: its JWK provisioners, and the cursor of the next page (or "")."""
    listed, cursor = answer.get("provisioners"), answer.get("nextCursor") or ""
    if listed is None:
        listed = []
    if not isinstance(listed, list) or not isinstance(cursor, str):
        raise nonsense("json", "the CA's list of provisioners cannot be read")
    entries = [one for one in listed if isinstance(one, dict) and one.get("type") == "JWK"]
    return tuple(_provisioner(one) for one in entries), cursor


def _provisioner(entry: Mapping[str, Any]) -> Provisioner:
    name, key, encrypted = entry.get("name"), entry.get("key"), entry.get("encryptedKey")
    kid = key.get("kid") if isinstance(key, dict) else None
    if not (isinstance(name, str) and isinstance(key, dict) and isinstance(kid, str)):
        raise nonsense("json", "a JWK provisioner of the CA has no name or key")
    claims = _object(entry.get("claims"))
    return Provisioner(
        name=name,
        kid=kid,
        public_jwk=dict(key),
        encrypted_key=encrypted if isinstance(encrypted, str) and encrypted else None,
        template=_template(_object(_object(entry.get("options")).get("x509")).get("template")),
        disable_renewal=claims.get("disableRenewal") is True,
        default_duration=_duration(claims.get("defaultTLSCertDuration")),
        max_duration=_duration(claims.get("maxTLSCertDuration")),
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _template(value: Any) -> str | None:
    """ca.json may hold a template as text or in base64; step-ca takes what begins with a brace as text."""
    if not isinstance(value, str) or not value.strip():
        return None
    if value.lstrip().startswith("{"):
        return value
    try:
        return b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        return value


def _duration(value: Any) -> timedelta | None:
    """Go's duration format: ``8760h0m0s``, ``1h30m``, ``90s``."""
    if not isinstance(value, str) or not value:
        return None
    parts = _PART.findall(value)
    if "".join(number + unit for number, unit in parts) != value:
        return None
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
    except OverflowError:
        return timedelta.max
