"""WireGuard keys and names of interfaces, as texts that can stand in a file or an argument list.

Responsible for what no key and no name can be. Not responsible for making keys (``enroll.keys``).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

_KEY_BYTES: Final = 32
_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_=+.-]{1,15}", re.ASCII)
# Words that `wg show` takes for something else than an interface's name, and names of folders.
_NO_NAMES: Final = frozenset({"all", "interfaces", ".", ".."})
_PRIME: Final = 2**255 - 19
# All points whose order divides the cofactor 8: with any of them every shared secret is zero (RFC 7748 §6.1).
_LOW_ORDER: Final = frozenset(
    {
        0,
        1,
        _PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)


def interface_name(text: str) -> str:
    """Return the name if an interface can have it and every tool takes it for one.

    :raises ValueError: not 1 to 15 of ``A-Z a-z 0-9 _ = + . -``, or a word that ``wg`` means otherwise.
    """
    if not _NAME.fullmatch(text) or text in _NO_NAMES:
        raise ValueError(f"{text!r} is no name for a VPN interface")
    return text


def key_text(text: str) -> str:
    """Return the key if it is the canonical base64 of 32 bytes that are not all zero.

    :raises ValueError: it is not; the text is not shown, as it may be a private key.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != _KEY_BYTES or not any(raw) or base64.b64encode(raw).decode() != text:
        raise ValueError("no WireGuard key")
    return text


def check_public_key(text: str) -> None:
    """Refuse what no peer's public key can be.

    :raises ValueError: not the canonical base64 of 32 bytes, a point of low order (every secret shared with it is
        zero), or another spelling of a key: a point not below the field's prime.
    """
    try:
        raw = base64.b64decode(key_text(text))
    except ValueError as e:
        raise ValueError("server_public_key is no WireGuard key") from e
    point = int.from_bytes(raw, "little")
    if point >= _PRIME or point in _LOW_ORDER:
        raise ValueError("server_public_key is no key that a server can have")
