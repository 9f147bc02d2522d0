"""Frozen values that travel between the CA's client and its callers.

Each is parsed at the edge and cannot hold nonsense; none knows HTTP. Times are aware UTC, durations are
``timedelta``, serials are positive integers of at most 20 octets (RFC 5280, 4.1.2.2).
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

MAX_SERIAL = 2**159 - 1
"""The largest serial: twenty octets, the highest bit clear, so that DER needs no twenty-first."""

Profile = Literal["bridge", "plain"]
"""``bridge``: the provisioner has our template. ``plain``: any JWK provisioner; serial and EKU are the
CA's choice.
"""

_COLONS = re.compile(r"(?:[0-9a-fA-F]{2}:){31}[0-9a-fA-F]{2}")
_HEX = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """SHA-256 of a certificate's DER as 64 lower-case hex digits."""

    value: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.value):
            raise ValueError("a fingerprint is 64 lower-case hex digits")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``step certificate fingerprint`` or ``openssl x509 -fingerprint -sha256`` print.

        Colons between octets and upper case are accepted, blanks around it too; anything else is
        ``ValueError``.
        """
        text = text.strip()
        if not (_HEX.fullmatch(text) or _COLONS.fullmatch(text)):
            raise ValueError("a SHA-256 fingerprint is 64 hex digits, with or without colons")
        return cls(text.replace(":", "").lower())

    @classmethod
    def of_der(cls, der: bytes) -> Self:
        """Return the fingerprint of a certificate's DER."""
        return cls(hashlib.sha256(der).hexdigest())

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Self:
        """Return the fingerprint of ``certificate``."""
        return cls.of_der(certificate.public_bytes(Encoding.DER))

    def matches(self, der: bytes) -> bool:
        """Tell in constant time whether ``der`` has this fingerprint."""
        return hmac.compare_digest(hashlib.sha256(der).digest(), bytes.fromhex(self.value))

    def __str__(self) -> str:
        return self.value


def new_serial(randomness: Callable[[int], bytes]) -> int:
    """Choose a serial of 158 random bits below a set bit: never zero, always twenty octets.

    ``randomness(n)`` returns n random octets (``secrets.token_bytes``).
    """
    return (1 << 158) | (int.from_bytes(randomness(20), "big") & ((1 << 158) - 1))


def check_serial(serial: int) -> int:
    """Return ``serial`` if RFC 5280 allows it, else raise ``ValueError``."""
    if not 0 < serial <= MAX_SERIAL:
        raise ValueError("a serial is a positive integer of at most 20 octets")
    return serial


@dataclass(frozen=True, slots=True)
class Provisioner:
    """A JWK provisioner as ``GET /provisioners`` shows it.

    ``template`` is the text of ``options.x509.template`` (decoded where ca.json holds base64), None when
    there is none or when it cannot be read over the API (``templateFile``). Durations are None where the
    provisioner leaves them to the CA. ``encrypted_key`` is the compact JWE where the CA publishes it.
    """

    name: str
    kid: str
    public_jwk: Mapping[str, Any]
    encrypted_key: str | None = field(default=None, repr=False)
    template: str | None = None
    disable_renewal: bool = False
    default_duration: timedelta | None = None
    max_duration: timedelta | None = None


@dataclass(frozen=True, slots=True)
class SignedChain:
    """What ``/1.0/sign`` answered, unchecked: PEM of the leaf and of its issuers, issuing CA first.

    Kept as text: the check parses the leaf once and knows the issuers already.
    """

    leaf_pem: str
    issuer_pems: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.leaf_pem or not self.issuer_pems:
            raise ValueError("a signed chain has a leaf and at least one issuer")


@dataclass(frozen=True, slots=True)
class CheckedLeaf:
    """A leaf that passed every check of ``ca.check``.

    ``chain_pem`` is the issuing CA first, then its issuers, without the root: what WIRE calls ``ca_chain``.
    ``issuer`` is the fingerprint of the CA that signed it; ``spki_sha256`` is lower-case hex of its
    public key's SubjectPublicKeyInfo.
    """

    pem: str
    der: bytes = field(repr=False)
    fingerprint: Fingerprint
    serial: int
    not_before: datetime
    not_after: datetime
    spki_sha256: str
    issuer: Fingerprint
    chain_pem: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TrustAnchor:
    """A tenant's CA: the pinned root, the CA that issues leaves, and what lies between, from leaf to root.

    Built by ``ca.bootstrap`` or ``anchor_of``, which check that each certificate was issued by the next.
    """

    root: x509.Certificate
    issuing_ca: x509.Certificate
    intermediates: tuple[x509.Certificate, ...] = ()

    @property
    def root_fingerprint(self) -> Fingerprint:
        """The fingerprint that devices are given."""
        return Fingerprint.of(self.root)

    @property
    def issuing_fingerprint(self) -> Fingerprint:
        """The fingerprint that every leaf's issuer must have."""
        return Fingerprint.of(self.issuing_ca)

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """Issuing CA first, then its issuers, without the root. Empty when the root itself issues."""
        if self.issuing_ca == self.root:
            return ()
        return (self.issuing_ca, *self.intermediates)

    @property
    def chain_pem(self) -> str:
        """``chain`` as PEM."""
        return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in self.chain)

    @property
    def root_pem(self) -> str:
        """The root as PEM."""
        return self.root.public_bytes(Encoding.PEM).decode()


@dataclass(frozen=True, slots=True)
class Crl:
    """A verified certificate revocation list."""

    serials: frozenset[int] = field(repr=False)
    this_update: datetime
    next_update: datetime | None
    number: int | None = None

    def is_revoked(self, serial: int) -> bool:
        """Tell whether the list names ``serial``."""
        return serial in self.serials

    def is_fresh(self, now: datetime) -> bool:
        """Tell whether the list may still be relied on at ``now``."""
        return self.next_update is None or now < self.next_update


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A server's certificate with its private key.

    ``chain_pem`` is the leaf followed by its issuers, without the root; ``key_pem`` is unencrypted PKCS#8.
    """

    chain_pem: str
    key_pem: str = field(repr=False)
    not_before: datetime
    not_after: datetime
    names: tuple[str, ...]
