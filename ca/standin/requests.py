"""What a CSR may ask for: step-ca's validators (``provisioner/sign_options.go``), in their order and words.

Not responsible for tokens (``ca.standin.tokens``) nor for what the certificate then says
(``ca.standin.signing``).
"""

import hashlib
import hmac
from base64 import b64decode
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ca.standin.durations import undecodable
from ca.standin.refusals import bad_request, forbidden

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
_MIN_RSA_BITS: Final = 2048


def parse_csr(pem: object) -> x509.CertificateSigningRequest:
    """Parse the CSR of a request and check its own signature; 400 if it is missing or does not hold."""
    if pem is None or pem in {"", "null"}:
        raise bad_request("missing csr")
    if not isinstance(pem, str):
        raise undecodable()
    try:
        csr = x509.load_pem_x509_csr(pem.encode())
        good = csr.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, TypeError) as error:
        raise undecodable() from error
    if not good:
        raise bad_request("invalid csr")
    return csr


def names_of(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names that a token allows: its ``sans``, or its subject where it lists none."""
    return tuple(claims.get("sans") or (claims["sub"],))


def check_csr(csr: x509.CertificateSigningRequest, claims: Mapping[str, Any]) -> PublicKey:
    """Refuse a CSR that is not the token's: other bytes than ``cnf``, another CN, a weak key, other SANs.

    Returns its public key.
    """
    names = names_of(claims)
    _check_confirmation(csr, (claims.get("cnf") or {}).get("x5rt#S256"))
    common = [str(attribute.value) for attribute in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    allowed = (str(claims["sub"]), *names)
    if common and common[-1] not in allowed:
        raise forbidden(_differs("common name", common[-1], allowed))
    key = _check_key(csr)
    _check_sans(csr, names)
    return key


def _check_confirmation(csr: x509.CertificateSigningRequest, wanted: str | None) -> None:
    if not wanted:
        return
    try:
        digest = b64decode(wanted + "=" * (-len(wanted) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise forbidden("error decoding fingerprint") from error
    if not hmac.compare_digest(digest, hashlib.sha256(csr.public_bytes(Encoding.DER)).digest()):
        raise forbidden(f'certificate request fingerprint does not match "{wanted}"')


def _check_key(csr: x509.CertificateSigningRequest) -> PublicKey:
    try:
        key = csr.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise undecodable() from error
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        raise forbidden("certificate request RSA key must be at least 2048 bits (256 bytes)")
    if isinstance(key, PublicKey):
        return key
    raise bad_request(f"certificate request key of type '{type(key).__name__}' is not supported")


def split(names: Sequence[str]) -> dict[str, list[str]]:
    """Sort names as step-ca does: IP address, URI, e-mail, and DNS for all else."""
    sorted_names: dict[str, list[str]] = {"DNS names": [], "email addresses": [], "IP addresses": [], "URIs": []}
    for name in names:
        sorted_names[_kind(name)].append(name)
    return sorted_names


def _kind(name: str) -> str:
    try:
        ip_address(name)
    except ValueError:
        pass
    else:
        return "IP addresses"
    try:
        scheme = urlsplit(name).scheme
    except ValueError:
        scheme = ""
    if scheme:
        return "URIs"
    return "email addresses" if "@" in name else "DNS names"


def _check_sans(csr: x509.CertificateSigningRequest, names: Sequence[str]) -> None:
    try:
        san = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    except (ValueError, x509.DuplicateExtension) as error:
        raise undecodable() from error
    got = {
        "DNS names": san.get_values_for_type(x509.DNSName),
        "email addresses": san.get_values_for_type(x509.RFC822Name),
        "IP addresses": [str(one) for one in san.get_values_for_type(x509.IPAddress)],
        "URIs": san.get_values_for_type(x509.UniformResourceIdentifier),
    }
    for kind, wanted in split(names).items():
        if got[kind] and set(got[kind]) != set(wanted):
            raise forbidden(_differs(kind, _listed(got[kind]), wanted))


def _differs(what: str, got: str, wanted: Sequence[str]) -> str:
    return f"certificate request does not contain the valid {what} - got {got}, want {_listed(wanted)}"


def _listed(values: Sequence[str]) -> str:
    return f"[{' '.join(values)}]"
