"""Whose key a file is, by its first words.

Responsible for telling the providers' files apart, so that another ``ENROLL_KEY`` never makes a good key look
damaged. Not responsible for reading any of them.
"""

from __future__ import annotations

from typing import Final

from enroll.errors import ConfigurationError

_HELD: Final = {"file": "a key in a file", "tpm": "a key of a TPM", "pkcs11": "the name of a token's key"}


def kind(content: bytes) -> str | None:
    """Return the provider that made this content: ``file``, ``tpm``, ``pkcs11``; ``None`` for no key's content."""
    if content.startswith(b"pkcs11:"):
        return "pkcs11"
    if b"-----BEGIN TSS2 PRIVATE KEY-----" in content:
        return "tpm"
    return "file" if b"PRIVATE KEY-----" in content else None


def refuse_others(content: bytes, *known: str) -> None:
    """Refuse the content of a provider that is not among the known ones.

    :raises ConfigurationError: a person must say which key is meant; nothing is set aside.
    """
    found = kind(content)
    if found is not None and found not in known:
        raise ConfigurationError(
            "ENROLL_KEY",
            f"is {known[0]}, but device.key holds {_HELD[found]}; set ENROLL_KEY={found}, or move device.key away "
            "to begin with a new key",
        )
