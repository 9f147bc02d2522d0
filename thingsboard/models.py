"""The values that pass between ThingsBoard and the rest: parsed once, at the edge, and frozen.

Not responsible for transport, log-in, or for what the bridge decides with them.
"""

import base64
import hashlib
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

JsonScalar = str | int | float | bool | None
JsonValue = JsonScalar | list["JsonValue"] | dict[str, "JsonValue"]

OWNER_ATTRIBUTE = "iot_bridge"
"""Server-scope attribute that holds the installation id of the bridge that made the device."""


def credentials_id(leaf_der: bytes) -> str:
    """Return the `credentialsId` that ThingsBoard gives a certificate: hex SHA3-256 of the base64 of its DER.

    Source: ThingsBoard's `EncryptionUtil.getSha3Hash` over `certTrimNewLines`; checked with recordings.
    """
    return hashlib.sha3_256(base64.b64encode(leaf_der)).hexdigest()


@dataclass(frozen=True, slots=True)
class Leaf:
    """Exactly one certificate in DER: ThingsBoard hashes what it is given, a chain would never match."""

    der: bytes

    def __post_init__(self) -> None:
        x509.load_der_x509_certificate(self.der)

    @classmethod
    def from_pem(cls, pem: str | bytes) -> "Leaf":
        """Take the only certificate of `pem`.

        Raises ValueError where there is none or more than one: which one is the leaf would be a guess.
        """
        found = x509.load_pem_x509_certificates(pem.encode() if isinstance(pem, str) else pem)
        if len(found) != 1:
            raise ValueError(f"expected one certificate, the leaf alone, found {len(found)}")
        return cls(found[0].public_bytes(Encoding.DER))

    @property
    def pem(self) -> str:
        """The certificate in PEM, with a final newline."""
        return ssl.DER_cert_to_PEM_cert(self.der)

    @property
    def credentials_id(self) -> str:
        """The hash by which ThingsBoard admits it."""
        return credentials_id(self.der)


@dataclass(frozen=True, slots=True)
class PlatformDevice:
    """A device as ThingsBoard holds it. `version` is None where an older ThingsBoard keeps none."""

    id: str
    name: str
    label: str | None = None
    profile_id: str | None = None
    version: int | None = None

    def __post_init__(self) -> None:
        require_uuid(self.id)
        if not self.name:
            raise ValueError("a device has a name")


class CredentialsType(StrEnum):
    """Kinds of credentials; those that the bridge never writes are one value."""

    X509_CERTIFICATE = "X509_CERTIFICATE"
    ACCESS_TOKEN = "ACCESS_TOKEN"  # noqa: S105 - the name of a kind, not a token
    OTHER = "OTHER"

    @classmethod
    def _missing_(cls, value: object) -> "CredentialsType":  # noqa: ARG003 - the signature is enum's
        return cls.OTHER


@dataclass(frozen=True, slots=True)
class Credentials:
    """The one credential of a device.

    `credentials_id` is the certificate's hash, or the token itself (so neither is shown in `repr`). `raw` is
    the object as it was read: a write sends it back changed, so that fields of newer versions survive.
    """

    id: str
    device_id: str
    type: CredentialsType
    credentials_id: str = field(repr=False)
    value: str | None = field(default=None, repr=False)
    version: int | None = None
    raw: Mapping[str, JsonValue] = field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False, hash=False
    )

    def __post_init__(self) -> None:
        require_uuid(self.id)
        require_uuid(self.device_id)

    @property
    def is_tombstone(self) -> bool:
        """Whether no certificate opens the door: the credential is a token.

        A dummy X.509 credential would not do, a profile with chain provisioning overwrites it.
        """
        return self.type is CredentialsType.ACCESS_TOKEN

    def is_leaf(self, leaf: Leaf) -> bool:
        """Whether exactly this leaf opens the door."""
        return self.type is CredentialsType.X509_CERTIFICATE and self.credentials_id == leaf.credentials_id


@dataclass(frozen=True, slots=True)
class ServerAttributes:
    """Server-scope attributes of a device, with the ones ThingsBoard keeps itself read out."""

    values: Mapping[str, JsonValue] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def active(self) -> bool:
        """Whether ThingsBoard thinks the device is there; stays true for its inactivity time-out."""
        return self.values.get("active") is True

    @property
    def last_connect(self) -> datetime | None:
        """When the device last connected (aware UTC), None if never."""
        return instant(self.values.get("lastConnectTime"))

    @property
    def last_disconnect(self) -> datetime | None:
        """When its session last ended (aware UTC), None if never."""
        return instant(self.values.get("lastDisconnectTime"))

    @property
    def installation(self) -> str | None:
        """The installation id of the bridge that made the device, None where it says nothing."""
        owner = self.values.get(OWNER_ATTRIBUTE)
        return owner if isinstance(owner, str) else None


@dataclass(frozen=True, slots=True)
class ChainProfile:
    """A device profile that trusts certificates by their issuer (`X509_CERTIFICATE_CHAIN`).

    ThingsBoard checks only that each certificate signs the one before it, not that the signer is a CA; where
    `creates_devices` is set, a retired device with a chain comes back.
    """

    id: str
    name: str
    creates_devices: bool


@dataclass(frozen=True, slots=True)
class PlatformHealth:
    """What a configuration check learned: the login works, and this is the profile new devices get."""

    default_profile_id: str
    chain_profiles: tuple[ChainProfile, ...]


@dataclass(frozen=True, slots=True)
class ConnectEvent:
    """ThingsBoard says that a device connected. Says only "look at this id now"; nothing of it is proof.

    `device_name` is None where the rule chain sent the event without a name.
    """

    device_name: str | None = None
    device_id: str | None = None
    device_type: str | None = None
    last_connect: datetime | None = None


@dataclass(frozen=True, slots=True)
class OtherEvent:
    """Anything else that reached the webhook. `kind` is the event's name where it has one, bounded."""

    kind: str | None = None
    device_name: str | None = None


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def require_uuid(text: str) -> None:
    """Raise ValueError unless `text` is a UUID in canonical form: ids go into URL paths."""
    if not _UUID.fullmatch(text) or str(UUID(text)) != text:
        raise ValueError(f"not a UUID: {text[:64]!r}")


def instant(milliseconds: object) -> datetime | None:
    """Read ThingsBoard's times (milliseconds since 1970); 0, absent and nonsense are None."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int) or milliseconds <= 0:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
