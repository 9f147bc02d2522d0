"""What lies in ``device.key`` of a token: a text that names the key and holds nothing of it.

Responsible for the PKCS#11 URI (RFC 7512) and for the PEM form in which OpenSSL's provider pkcs11 takes one, so
that the same file serves the agent, OpenSSL and a person:

::

    pkcs11:token=dev;serial=6184b7ceac8aef92;id=%01%02...;object=iot-enroll%20dev-1;type=private
    -----BEGIN PKCS#11 PROVIDER URI-----
    (DER: SEQUENCE { VisibleString "PKCS#11 Provider URI v1.0", UTF8String the URI })
    -----END PKCS#11 PROVIDER URI-----

The PEM form: https://github.com/latchset/pkcs11-provider (tools/uri2pem.py). A PIN is never in it.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from enroll.keys.provider import KeyFormatError

_NAME: Final = "PKCS#11 PROVIDER URI"
_DESCRIPTION: Final = b"PKCS#11 Provider URI v1.0"
_VISIBLE_STRING: Final = 0x1A
_UTF8_STRING: Final = 0x0C
_SEQUENCE: Final = 0x30
_ATTRIBUTES: Final = ("token", "serial", "id", "object", "type")
_URI: Final = re.compile(rb"(pkcs11:[!-~]{1,1024})\n")
_SHORT: Final = 0x80
_BYTE: Final = 0x100


@dataclass(frozen=True, slots=True)
class KeyName:
    """Which key of which token."""

    token: str
    """The token's label."""
    serial: str
    """The token's serial number: tells two tokens of one label apart."""
    identifier: bytes
    """CKA_ID of both halves of the key."""
    label: str
    """CKA_LABEL of both halves."""

    def uri(self) -> str:
        """Return the URI of the private key."""
        identifier = "".join(f"%{byte:02X}" for byte in self.identifier)
        texts = (quote_from_bytes(text.encode(), safe="") for text in (self.token, self.serial, self.label))
        token, serial, label = texts
        return f"pkcs11:token={token};serial={serial};id={identifier};object={label};type=private"

    def content(self) -> bytes:
        """Return the file's content."""
        uri = self.uri().encode()
        der = _element(_SEQUENCE, _element(_VISIBLE_STRING, _DESCRIPTION) + _element(_UTF8_STRING, uri))
        body = base64.b64encode(der).decode()
        lines = [body[at : at + 64] for at in range(0, len(body), 64)]
        return "\n".join([uri.decode(), f"-----BEGIN {_NAME}-----", *lines, f"-----END {_NAME}-----", ""]).encode()

    @classmethod
    def parse(cls, content: bytes) -> KeyName:
        """Read what ``content()`` gave, and nothing else.

        :raises KeyFormatError: torn, or another kind of file.
        """
        found = _URI.match(content)
        if found is None:
            raise KeyFormatError("names no key of a token (pkcs11:...)")
        try:
            parts = dict(part.split("=", 1) for part in found[1].decode().removeprefix("pkcs11:").split(";"))
            values = {name: unquote_to_bytes(parts[name]) for name in _ATTRIBUTES}
            named = cls(values["token"].decode(), values["serial"].decode(), values["id"], values["object"].decode())
        except (ValueError, KeyError) as e:
            raise KeyFormatError("names no key of a token (pkcs11:...)") from e
        if not named.identifier or named.content() != content:
            raise KeyFormatError("names a key of a token, but is damaged")
        return named


def _element(tag: int, value: bytes) -> bytes:
    """Return a DER element of up to 64 KiB."""
    size = len(value)
    if size < _SHORT:
        return bytes([tag, size]) + value
    if size < _BYTE:
        return bytes([tag, 0x81, size]) + value
    return bytes([tag, 0x82]) + size.to_bytes(2, "big") + value
