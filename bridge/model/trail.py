"""The form of the audit trail: an entry's octets, how entries are chained, what a signed head says.

Stated exactly, so that another program can check it:

- An entry's canonical form is RFC 8785 JSON of an object with the members of :data:`FIELDS`, no more and no less. Its
  values are strings, ``null`` and integers below 2**53. ``at`` is in microseconds since 1970-01-01 UTC; ``detail`` is
  the JSON text as it is stored, as one string.
- Its digest is the SHA-256 of those octets.
- ``chain(n) = SHA-256(chain(n-1) || digest(n))`` over 32 and 32 octets, for n from 1 on; ``chain(0)`` is
  :func:`genesis` of the installation.
- A head is the RFC 8785 JSON of :class:`Head`, in a JWS (:mod:`bridge.model.signing`).

Not responsible for who writes, seals or compares: :mod:`bridge.audit`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

FIELDS: Final = ("id", "at", "actor", "action", "device", "request_id", "detail")
"""What an entry consists of; every column of its row but number and chain value."""

_NUMBERS: Final = frozenset({"id", "at"})
_MAY_BE_MISSING: Final = frozenset({"device", "request_id"})
_LARGEST: Final = 2**53 - 1
"""RFC 8785 writes numbers as IEEE 754 doubles: integers are exact up to here."""
_HEX: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_GENESIS: Final = b"iot-bridge audit trail 1\x00"


class Malformed(ValueError):
    """It does not have the form of an entry or a head."""


def jcs(value: Mapping[str, Any]) -> bytes:
    """Return RFC 8785 JSON of an object of strings, integers below 2**53, ``None``, and lists or objects of such.

    Member names must be ASCII: then sorting by code points is sorting by UTF-16 units.

    :raises Malformed: a string is no Unicode text.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (UnicodeEncodeError, TypeError) as e:
        raise Malformed("it holds something that JSON cannot hold") from e


def canonical(entry: Mapping[str, Any]) -> bytes:
    """Return the octets that an entry's digest is of; members beside :data:`FIELDS` are not looked at.

    :raises Malformed: a field is missing or of another type.
    """
    chosen = {name: entry.get(name) for name in FIELDS}
    for name, value in chosen.items():
        if name in _NUMBERS:
            good = type(value) is int and -_LARGEST <= value <= _LARGEST
        else:
            good = type(value) is str or (value is None and name in _MAY_BE_MISSING)
        if not good:
            raise Malformed(f"its field {name} is of a type that no entry has")
    return jcs(chosen)


def digest(entry: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 of an entry's canonical form.

    :raises Malformed: it is no entry.
    """
    return hashlib.sha256(canonical(entry)).digest()


def genesis(installation: str) -> str:
    """Return the chain value before the first entry, in hex: no entry of another installation fits behind it."""
    return hashlib.sha256(_GENESIS + installation.encode()).hexdigest()


def link(previous: str, entry_digest: bytes) -> str:
    """Return the chain value of an entry, in hex, from the one before it."""
    return hashlib.sha256(bytes.fromhex(previous) + entry_digest).hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """What is signed of the trail: everything up to the entry with this number."""

    installation: str
    sequence: int
    chain: str
    """Of that entry, in hex."""
    previous: int
    """Number of the entry that the head before this one ends at; 0 for the first."""
    at: int
    """When it was sealed, in microseconds since 1970-01-01 UTC, by the sealing host's clock."""

    def __post_init__(self) -> None:
        if not 0 <= self.previous < self.sequence:
            raise Malformed("a head's number is above that of the head before it")
        if not _HEX.fullmatch(self.chain):
            raise Malformed("a chain value is 64 lower-case hex digits")

    def payload(self) -> bytes:
        """Return the octets to sign."""
        return jcs(asdict(self))

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Return the head that these octets are exactly the payload of.

        :raises Malformed: they are of no head.
        """
        try:
            fields = json.loads(payload)
            kinds = {name: type(value) for name, value in fields.items()}
        except (ValueError, AttributeError) as e:
            raise Malformed("it is no signed head of an audit trail") from e
        if kinds != {"installation": str, "sequence": int, "chain": str, "previous": int, "at": int}:
            raise Malformed("it does not have the members of a head")
        head = cls(**fields)
        if head.payload() != payload:
            raise Malformed("it is not written canonically")
        return head
