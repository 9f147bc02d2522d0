"""Device keys in a TPM 2.0: made inside, used inside, useless elsewhere.

Responsible for the provider ``tpm``: ``device.key`` holds a TSS2 PEM file, which the TPM itself wrapped.
Signatures go through the ``openssl`` command, TLS through OpenSSL's provider tpm2 in this process, which
``enroll.keys.process`` has configured before the interpreter started.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enroll.errors import ConfigurationError, StorageError
from enroll.keys import identity, kinds, spki, tss2
from enroll.keys.file import FileKey
from enroll.keys.provider import KeyFormatError
from enroll.keys.remote import RemoteEcKey
from enroll.keys.tpm_command import TpmCommand

_ADVICE: Final = (
    "check that the TPM can be reached, and that OPENSSL_CONF (unset, or with the provider tpm2) was so when "
    "iot-enroll started"
)


@dataclass(frozen=True, slots=True)
class TpmKey:
    """A key that one TPM can use."""

    private: RemoteEcKey = field(repr=False)
    spki_sha256: str
    """Lower-case hex SHA-256 of the public key's SubjectPublicKeyInfo (DER)."""
    _content: bytes = field(repr=False)

    def content(self) -> bytes:
        """Return the TSS2 PEM."""
        return self._content

    def load_into(self, context: ssl.SSLContext, chain: bytes, key_file: Path) -> None:
        """Give a TLS context the device's identity (``DeviceKey.load_into``)."""
        identity.load(context, chain, key_file, _ADVICE)


class TpmKeys:
    """The provider ``tpm``."""

    name: Final = "tpm"

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Reach the TPM as the environment says (``TPM2OPENSSL_TCTI``), by default this process's."""
        self._tpm = TpmCommand(os.environ if environment is None else environment)
        self._read: dict[bytes, TpmKey] = {}

    def generate(self) -> TpmKey:
        """Make a new EC P-256 key in the TPM.

        :raises StorageError: the TPM does not answer.
        :raises ConfigurationError: tpm2-openssl is missing, or the way to the TPM makes no sense.
        """
        # The property is mandatory here: without it OpenSSL may quietly make a key of its own.
        query = ("-propquery", "provider=tpm2", "-quiet")
        content = self._tpm.run("genpkey", *query, "-algorithm", "EC", "-pkeyopt", "group:P-256")
        try:
            return self._own(content)
        except KeyFormatError as e:
            raise StorageError(f"the TPM made something that {e}") from e

    def read(self, content: bytes) -> TpmKey | FileKey:
        """Read a TSS2 PEM file; the TPM is asked once whether it can use the key.

        A key in a file, from before there was a TPM, goes on until its renewal makes one in the TPM.

        :raises KeyFormatError: torn, foreign, or wrapped by another TPM (or by this one before it was cleared).
        :raises StorageError: the TPM does not answer.
        :raises ConfigurationError: a good file, but of a kind that the agent does not use; or as ``generate``.
        """
        kinds.refuse_others(content, self.name, "file")
        if kinds.kind(content) == "file":
            return FileKey.from_pem(content)
        return self._own(content)

    def _own(self, content: bytes) -> TpmKey:
        if content not in self._read:
            self._read[content] = self._loaded(content)
        return self._read[content]

    def _loaded(self, content: bytes) -> TpmKey:
        wrapped = tss2.parse(content)
        if wrapped.curve is None or wrapped.needs_secret:
            why = "needs a password" if wrapped.curve else "is neither P-256 nor P-384"
            raise ConfigurationError("ENROLL_KEY", f"is tpm, but the TPM's key in device.key {why}; move it away")
        arguments = ("-propquery", "?provider=tpm2", "-in", "KEY", "-pubout", "-outform", "DER")
        public = serialization.load_der_public_key(self._tpm.run("pkey", *arguments, key=content))
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise StorageError("the TPM's key is not of the kind that its file says")

        def sign_digest(digest: bytes, algorithm: str) -> bytes:
            arguments = ("-propquery", "?provider=tpm2", "-sign", "-inkey", "KEY", "-pkeyopt", f"digest:{algorithm}")
            try:
                return self._tpm.run("pkeyutl", *arguments, key=content, given=digest)
            except KeyFormatError as e:
                raise StorageError(f"device.key {e}, since this run began") from e

        return TpmKey(RemoteEcKey(public, "TPM", sign_digest), spki.sha256(public), content)

    def sweep(self, keep: Sequence[bytes]) -> int:  # noqa: ARG002 - the Protocol's
        """Remove nothing: the TPM keeps no key, only what wraps them."""
        return 0
