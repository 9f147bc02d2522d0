"""What the agent asks of a device key, wherever the key lives, and who makes one.

Responsible for the two Protocols, for the one error of unreadable content, and for choosing a provider by
configuration. Not responsible for any kind of key: a provider's module is imported only when it is chosen,
because ``iot-enroll status`` and a typing error need none of them.

==========  =======================================================  ===========================
provider    the private key                                          ``device.key`` holds
==========  =======================================================  ===========================
``file``    in the file                                              PKCS#8 PEM
``tpm``     wrapped by the TPM, usable in that TPM only              TSS2 PEM
``pkcs11``  in the token                                             the key's PKCS#11 URI
==========  =======================================================  ===========================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import ssl
    from typing import TypeAlias

    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    from enroll.names import DeviceId

    PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
    """Kinds of key a CSR may carry (WIRE §1)."""


class KeyFormatError(ValueError):
    """The content is no key this provider can ever use again: torn, foreign, or of hardware that is gone.

    The text completes "device.key ..." and holds no key material. Hardware that merely does not answer is a
    ``StorageError`` instead: a new key must not be made because a cable is loose.
    """


class DeviceKey(Protocol):
    """The key behind the device's certificate."""

    @property
    def spki_sha256(self) -> str:
        """Lower-case hex SHA-256 of the public key's SubjectPublicKeyInfo (DER)."""

    @property
    def private(self) -> PrivateKey:
        """The key as cryptography's builders and PyJWT take it; its ``sign`` may go to hardware.

        Signing with hardware raises ``StorageError`` where the hardware does not answer.
        """

    def content(self) -> bytes:
        """Return what ``device.key`` holds: a secret where the provider is ``file``."""

    def load_into(self, context: ssl.SSLContext, chain: bytes, key_file: Path) -> None:
        """Give a TLS context the device's identity.

        :param chain: PEM, leaf first, then its issuers.
        :param key_file: where ``content()`` lies.
        :raises StorageError: the key cannot be used, or does not fit the leaf.
        """


class KeyProvider(Protocol):
    """Where device keys are made and used."""

    @property
    def name(self) -> str:
        """The provider's name in ``ENROLL_KEY``."""

    def generate(self) -> DeviceKey:
        """Make a new key.

        :raises StorageError: the hardware does not answer or has no room.
        :raises ConfigurationError: the provider cannot work as it is configured.
        """

    def read(self, content: bytes) -> DeviceKey:
        """Read what ``content()`` gave; a provider of hardware also reads a key in a file, from before.

        :raises KeyFormatError: torn, foreign, or of hardware that cannot use it any more.
        :raises StorageError: the hardware does not answer; the key may well be good.
        :raises ConfigurationError: the provider cannot work as it is configured, or the content is another's.
        """

    def sweep(self, keep: Sequence[bytes]) -> int:
        """Remove this device's keys from the hardware, but for those that one of the contents names.

        Only a token has something to remove: keys of earlier certificates, and keys made just before a crash.

        :return: how many were removed.
        :raises StorageError: the hardware does not answer.
        """


class KeySettings(Protocol):
    """The part of the agent's settings that chooses and configures a provider."""

    @property
    def key(self) -> str:
        """``file``, ``tpm`` or ``pkcs11``."""

    @property
    def device_id(self) -> DeviceId:
        """The device's id: keys in a token carry it as their label."""

    @property
    def folder(self) -> Path:
        """Where ``device.key`` lies."""

    @property
    def pkcs11_module(self) -> Path | None:
        """The token's library."""

    @property
    def pkcs11_token(self) -> str | None:
        """The token's label."""

    @property
    def pkcs11_pin_file(self) -> Path | None:
        """File that holds the PIN."""


def provider(settings: KeySettings) -> KeyProvider:
    """Return the provider the settings name; hardware is reached only when it is used.

    :raises ConfigurationError: the settings of the provider are incomplete.
    """
    match settings.key:
        case "tpm":
            from enroll.keys.tpm import TpmKeys  # noqa: PLC0415 - see the module's docstring

            return TpmKeys()
        case "pkcs11":
            from enroll.keys.pkcs11 import TokenKeys  # noqa: PLC0415 - as above

            return TokenKeys.of(settings)
        case _:
            from enroll.keys.file import FileKeys  # noqa: PLC0415 - as above

            return FileKeys()
