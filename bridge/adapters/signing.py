"""The signing key in a file: PEM, PKCS#8, Ed25519, made with mode 0600."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt import PyJWS

from bridge.errors import Misconfigured
from bridge.model.signing import ALGORITHM, Purpose, VerifyKey

_JWS: Final = PyJWS(algorithms=[ALGORITHM])


class FileSigner:
    """Signs with a key that was read once. Implements :class:`bridge.ports.signing.Signer`."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public = VerifyKey(key.public_key().public_bytes_raw())
        self._kid = self._public.fingerprint.hex

    @property
    def public_key(self) -> VerifyKey:
        """The key that its signatures are checked with."""
        return self._public

    def sign(self, payload: bytes, purpose: Purpose) -> str:
        """Return a compact JWS of the payload."""
        return _JWS.encode(payload, self._key, ALGORITHM, {"kid": self._kid, "typ": purpose.value})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the signer of a key file.

        :raises Misconfigured: it cannot be read, or holds no Ed25519 key in PEM without a password.
        """
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except OSError as e:
            raise Misconfigured(f"the signing key {path} cannot be read ({e.strerror}); {_ADVICE}") from e
        except (ValueError, TypeError, UnsupportedAlgorithm) as e:
            raise Misconfigured(f"the signing key {path} is no private key in PEM without password; {_ADVICE}") from e
        if not isinstance(key, Ed25519PrivateKey):
            raise Misconfigured(f"the signing key {path} is no Ed25519 key; {_ADVICE}")
        return cls(key)

    @classmethod
    def make(cls, path: Path) -> Self:
        """Make a key and its file, durably; where another process was faster, read its.

        :raises Misconfigured: the file cannot be written.
        """
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
        try:
            _write(beside, pem)
            try:
                os.link(beside, path)
            except FileExistsError:
                return cls.read(path)
            finally:
                beside.unlink()
            _sync_folder(path.parent)
        except OSError as e:
            raise Misconfigured(f"the signing key {path} cannot be written ({e.strerror}); check BRIDGE_DATA") from e
        return cls.read(path)


_ADVICE: Final = "check BRIDGE_SIGNING_KEY_FILE; one is made by: openssl genpkey -algorithm ed25519 -out FILE"


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
