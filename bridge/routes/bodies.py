"""The bodies of enrollment and activation, and how they become the use cases' requests.

Responsible for the shape of every field. Unknown fields are ignored, ``null`` is the same as leaving a field out.
Not responsible for the CSR's contents (:mod:`bridge.enrollment.csr`) or for who may enroll.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bridge.errors import BadRequest, BadWireGuardKey
from bridge.model.identity import Fingerprint, WireGuardKey
from enroll.wire import MAX_BODY

T = TypeVar("T")

_MAX_LABEL: Final = 255
_MAX_DEPTH: Final = 5
_MAX_ITEMS: Final = 256
_MAX_TEXT: Final = 1024
_MAX_NUMBER: Final = 1 << 63
# Control characters, line separators, and the marks that turn the direction of a line of text on a screen.
_PRINTABLE: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*$"


def _bounded(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """Accept inventory that is small and plain: it is stored and shown, never interpreted.

    :raises ValueError: it is too deep, too long, or holds what no JSON document may.
    """
    waiting: list[tuple[object, int]] = [(value, 1)]
    items = 0
    while waiting:
        part, depth = waiting.pop()
        if isinstance(part, dict | list):
            items += len(part)
            if depth > _MAX_DEPTH or items > _MAX_ITEMS:
                raise ValueError("inventory is too deep or has too many parts")
            if isinstance(part, dict):
                waiting.extend((key, depth) for key in part)
            waiting.extend((item, depth + 1) for item in (part.values() if isinstance(part, dict) else part))
        elif not _plain(part):
            raise ValueError("inventory holds a value that is too long or not a finite number")
    return value


def _plain(value: object) -> bool:
    if isinstance(value, str):
        # A lone surrogate is no character; the zero octet is refused by databases.
        return len(value) <= _MAX_TEXT and "\0" not in value and value.isascii() | _encodable(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or abs(value) < _MAX_NUMBER


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# A bound of any size also makes pydantic refuse lone surrogates, which no database and no log can take.
Text = Annotated[str, Field(max_length=MAX_BODY)]
Label = Annotated[str, Field(max_length=_MAX_LABEL, pattern=_PRINTABLE)]
Inventory = Annotated[dict[str, Any], AfterValidator(_bounded)]


class EnrollFields(BaseModel):
    """Every field that some dialect of the enrollment request has."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    csr_pem: Annotated[Text, Field(min_length=1)] | None = Field(
        None,
        description="PKCS#10 request, PEM, signed by the device's own key. Exactly one CN, the device id; SAN absent or"
        " exactly DNS:device-id; P-256, P-384, Ed25519 or RSA of 2048 bits and more. Other subject attributes and"
        " requested extensions are ignored and never copied into the certificate.",
    )
    csr: Annotated[Text, Field(min_length=1)] | None = Field(
        None,
        description="The same as `csr_pem`, as older clients name it. A request with it gets the older fields too.",
    )
    device_id: Text | None = Field(None, description="The device id, where it does not stand in the address.")
    wg_public_key: Text | None = Field(
        None,
        description="The device's WireGuard public key, as `wg pubkey` prints it. Without it there is no VPN address.",
    )
    device_name: Label | None = Field(None, description="A label for people. Not an identity.")
    device_type: Label | None = Field(None, description="A label for people: model or product. Not an identity.")
    voucher: Annotated[str, Field(max_length=_MAX_LABEL)] | None = Field(
        None,
        description="One-time code of the registration, or a labelled key, where the admission policy wants one. It may"
        " stand in the header `X-Provisioning-Key` instead. Only its SHA-256 is kept.",
    )
    proof: Text | None = Field(
        None, description="Compact JWS, `typ: iot-enroll+jws`, by the key of the current certificate: for a renewal."
    )
    hardware: Inventory | None = Field(
        None, description="Inventory: board model, CPU cores, RAM, operating system, architecture, kernel."
    )
    network: Inventory | None = Field(None, description="Inventory: host name, IP, MAC, connection type.")


class ActivateFields(BaseModel):
    """The field that an activation has."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    proof: Annotated[Text, Field(min_length=1)] = Field(
        description="Compact JWS, `typ: iot-enroll+jws`, `act: activate`, by the key of the pending certificate."
    )


_FIELDS: Final = TypeAdapter(EnrollFields)
_ACTIVATION: Final = TypeAdapter(ActivateFields)
_ADVICE: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "string_type": "is not text",
    "string_unicode": "is not Unicode text",
    "string_too_long": "is too long",
    "string_too_short": "is empty",
    "string_pattern_mismatch": "holds a control character",
    "dict_type": "is not an object",
    "value_error": "is too large, too deep, or holds a value that cannot be kept",
}


def parse_fields(body: Mapping[str, Any]) -> EnrollFields:
    """Return the fields, each of the agreed kind.

    :raises BadRequest: naming the field, never its value.
    """
    return _validated(_FIELDS, body)


def parse_activation(body: Mapping[str, Any]) -> ActivateFields:
    """Return the field of an activation.

    :raises BadRequest: it is missing, or no text.
    """
    return _validated(_ACTIVATION, body)


def _validated(fields: TypeAdapter[T], body: Mapping[str, Any]) -> T:
    try:
        return fields.validate_python(body)
    except ValidationError as e:
        first = e.errors(include_url=False, include_context=False, include_input=False)[0]
        raise BadRequest(f"field '{first['loc'][0]}' {_ADVICE.get(first['type'], 'is not as agreed')}") from None


def csr_of(fields: EnrollFields) -> str:
    """Return the CSR's text, from whichever field carries it.

    :raises BadRequest: there is none, or there are two different ones.
    """
    if fields.csr_pem is not None and fields.csr is not None and fields.csr_pem != fields.csr:
        raise BadRequest("fields 'csr_pem' and 'csr' differ; send one of them")
    pem = fields.csr_pem or fields.csr
    if pem is None:
        raise BadRequest("field 'csr_pem' is missing")
    return pem


def label(text: str | None) -> str | None:
    """Return the label without blanks around it; an empty one is none."""
    return (text.strip() or None) if text is not None else None


def voucher_hash(fields: EnrollFields, header: str | None) -> Fingerprint | None:
    """Return the SHA-256 of the voucher: the body's, else the header's. The voucher itself goes no further."""
    # Header values come in as Latin-1; encoding them so gives the octets that were sent.
    voucher = fields.voucher.encode() if fields.voucher else (header or "").encode("latin-1")
    return Fingerprint.of(voucher.strip()) if voucher.strip() else None


def wireguard_key(text: str | None, server: WireGuardKey | None) -> WireGuardKey | None:
    """Return the device's WireGuard key, if it sent one.

    :raises BadWireGuardKey: it is no usable key, or it is the server's own.
    """
    if text is None:
        return None
    key = WireGuardKey(text)
    if server is not None and _point(key) == _point(server):
        raise BadWireGuardKey("this is the VPN server's own key")
    return key


def _point(key: WireGuardKey) -> bytes:
    """Return the 255 bits that the curve looks at (RFC 7748, section 5): two spellings of a key are one key."""
    raw = base64.b64decode(key.text)
    return raw[:31] + bytes([raw[31] & 0x7F])


def inventory(fields: EnrollFields) -> Mapping[str, Any] | None:
    """Return what the device says of itself, by section."""
    sections = {"hardware": fields.hardware, "network": fields.network}
    return {name: section for name, section in sections.items() if section is not None} or None
