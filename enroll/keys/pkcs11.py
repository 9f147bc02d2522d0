"""Device keys in a PKCS#11 token: made inside, used inside, never given out.

Responsible for the provider ``pkcs11``: ``device.key`` holds the key's name. Signatures go through the token's
library; TLS goes through OpenSSL's provider pkcs11 where the system has it (Debian 13, Yocto; not Debian 12),
which ``enroll.keys.process`` has configured before the interpreter started.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, utils

from enroll.errors import ConfigurationError, StorageError
from enroll.keys import identity, kinds, openssl_conf, spki
from enroll.keys.file import FileKey
from enroll.keys.pkcs11_uri import KeyName
from enroll.keys.provider import KeyFormatError
from enroll.keys.remote import RemoteEcKey
from enroll.keys.token import Token

if TYPE_CHECKING:
    from pkcs11.types import Session

    from enroll.keys.provider import KeySettings

_P256: Final = bytes.fromhex("06082a8648ce3d030107")
"""CKA_EC_PARAMS: OBJECT IDENTIFIER prime256v1."""

_UNCOMPRESSED: Final = 65
_OCTET_STRING: Final = bytes([0x04, _UNCOMPRESSED])
_ADVICE: Final = "check the token, and that OPENSSL_CONF was unset (or has the provider pkcs11) when iot-enroll started"
_NO_TLS: Final = (
    "OpenSSL on this system cannot use keys in a token for TLS: the provider pkcs11 is missing. Install "
    "pkcs11-provider (Debian 13 and Yocto have it, Debian 12 does not); enrollment and renewal work without it"
)


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key that one token can use."""

    private: RemoteEcKey = field(repr=False)
    spki_sha256: str
    """Lower-case hex SHA-256 of the public key's SubjectPublicKeyInfo (DER)."""
    name: KeyName

    def content(self) -> bytes:
        """Return the text that names the key."""
        return self.name.content()

    def load_into(self, context: ssl.SSLContext, chain: bytes, key_file: Path) -> None:
        """Give a TLS context the device's identity (``DeviceKey.load_into``).

        :raises StorageError: also where OpenSSL has no provider for tokens.
        """
        if not openssl_conf.has_pkcs11_provider(os.environ):
            raise StorageError(_NO_TLS)
        identity.load(context, chain, key_file, _ADVICE)


class TokenKeys:
    """The provider ``pkcs11``."""

    name: Final = "pkcs11"

    def __init__(self, token: Token, device_id: str, random: Callable[[int], bytes] = os.urandom) -> None:
        """Use this token; keys are labelled with the device's id."""
        self._token = token
        self._label = f"iot-enroll {device_id}"
        self._random = random
        self._read: dict[bytes, TokenKey] = {}

    @classmethod
    def of(cls, settings: KeySettings) -> TokenKeys:
        """Return the provider for the token the settings name.

        :raises ConfigurationError: they name none.
        """
        module, label, pin_file = settings.pkcs11_module, settings.pkcs11_token, settings.pkcs11_pin_file
        if module is None or label is None or pin_file is None:
            raise ConfigurationError("ENROLL_KEY", "is pkcs11, but module, token and PIN file are not all named")
        return cls(Token(module, label, pin_file), str(settings.device_id))

    def generate(self) -> TokenKey:
        """Make a new EC P-256 key in the token.

        :raises StorageError: the token is not there, has no room, or made something else.
        :raises ConfigurationError: library, package or PIN are wrong.
        """
        with self._token.session() as session:
            from pkcs11 import Attribute, KeyType, MechanismFlag  # noqa: PLC0415 - an optional dependency, loaded by now

            named = KeyName(self._token.label, _serial(session), self._random(16), self._label)
            curve = session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: _P256}, local=True)
            _, private = curve.generate_keypair(
                store=True,
                id=named.identifier,
                label=named.label,
                capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
                private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True},
            )
            if private[Attribute.EXTRACTABLE] or not private[Attribute.SENSITIVE]:
                private.destroy()
                raise StorageError(f"the token {self._token.label!r} makes keys that can be read out of it")
        try:
            return self._own(named.content())
        except KeyFormatError as e:
            raise StorageError(f"the token {self._token.label!r} lost the key that it just made") from e

    def read(self, content: bytes) -> TokenKey | FileKey:
        """Read a text that names a key; the token is asked once for the public key.

        A key in a file, from before there was a token, goes on until its renewal makes one in the token.

        :raises KeyFormatError: torn or foreign; or this very token does not have the key any more.
        :raises StorageError: the token is not there, or another one of the same label is.
        :raises ConfigurationError: as ``generate``.
        """
        kinds.refuse_others(content, self.name, "file")
        if kinds.kind(content) == "file":
            return FileKey.from_pem(content)
        return self._own(content)

    def _own(self, content: bytes) -> TokenKey:
        if content not in self._read:
            self._read[content] = self._found(KeyName.parse(content))
        return self._read[content]

    def _found(self, named: KeyName) -> TokenKey:
        if named.token != self._token.label:
            raise ConfigurationError(
                "ENROLL_PKCS11_TOKEN", f"is {self._token.label!r}, but device.key names a key of {named.token!r}"
            )
        with self._token.session() as session:
            serial = _serial(session)
            if serial != named.serial:
                raise StorageError(
                    f"the token {named.token!r} is another one (serial {serial}, device.key names {named.serial}); "
                    "put the right one back, or move device.key away if it is gone for good"
                )
            point = _point(session, named)
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)

        def sign_digest(digest: bytes, _algorithm: str) -> bytes:
            return _signature(self._token, named, digest)

        return TokenKey(RemoteEcKey(public, "token", sign_digest), spki.sha256(public), named)

    def sweep(self, keep: Sequence[bytes]) -> int:
        """Remove this device's keys from the token, but for those that one of the contents names.

        :return: how many were removed; the two halves of a key count as one.
        :raises StorageError: the token is not there, or refuses; or one of the contents is damaged, and nothing
            was removed.
        """
        try:
            kept = {KeyName.parse(content).identifier for content in keep if kinds.kind(content) != "file"}
        except KeyFormatError as e:
            raise StorageError(f"no key was removed from the token: device.key {e}") from e
        removed: set[bytes] = set()
        with self._token.session() as session:
            from pkcs11 import Attribute  # noqa: PLC0415 - as above

            for found in list(session.get_objects({Attribute.LABEL: self._label})):
                identifier = bytes(found[Attribute.ID])
                if identifier not in kept:
                    found.destroy()
                    removed.add(identifier)
        return len(removed)


def _serial(session: Session) -> str:
    return bytes(session.token.serial).rstrip(b"\0 ").decode(errors="replace")


def _point(session: Session, named: KeyName) -> bytes:
    """Return the public key as an uncompressed point."""
    from pkcs11 import Attribute, ObjectClass  # noqa: PLC0415 - as above

    halves = {}
    for wanted in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
        found = list(session.get_objects({Attribute.CLASS: wanted, Attribute.ID: named.identifier}))
        if len(found) != 1:
            raise KeyFormatError(f"names a key that the token {named.token!r} does not have any more")
        halves[wanted] = found[0]
    if bytes(halves[ObjectClass.PRIVATE_KEY][Attribute.EC_PARAMS]) != _P256:
        raise ConfigurationError(
            "ENROLL_KEY", "is pkcs11, but the token's key in device.key is not P-256; move it away"
        )
    point = bytes(halves[ObjectClass.PUBLIC_KEY][Attribute.EC_POINT])
    # The standard wraps the point in an OCTET STRING; some tokens do not.
    return point.removeprefix(_OCTET_STRING) if len(point) != _UNCOMPRESSED else point


def _signature(token: Token, named: KeyName, digest: bytes) -> bytes:
    """Return an ECDSA signature in DER."""
    with token.session() as session:
        from pkcs11 import Mechanism, NoSuchKey, ObjectClass  # noqa: PLC0415 - as above

        try:
            key: Any = session.get_key(object_class=ObjectClass.PRIVATE_KEY, id=named.identifier)
        except NoSuchKey as e:
            raise StorageError(f"the token {named.token!r} lost the key since this run began") from e
        raw = key.sign(digest, mechanism=Mechanism.ECDSA)
    half = len(raw) // 2
    return utils.encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
