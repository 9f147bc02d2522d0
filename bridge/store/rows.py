"""Columns in the order they are read, and the way from a row to a frozen record.

The same order serves the statements as text and the expressions, so a record is built from positions. Times are
microseconds since 1970 UTC in the database and aware datetimes outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import Any, Final, overload

from bridge.model.identity import DeviceId, Fingerprint, Pem, Serial, WireGuardKey
from bridge.model.records import (
    Device,
    DeviceState,
    Issuance,
    IssuanceState,
    Kind,
    Lease,
    Link,
    System,
    Wanted,
    Window,
)

Values = Sequence[Any]
"""A row, or the part of a joined row that belongs to one record."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

DEVICE_COLUMNS: Final = (
    "id",
    "state",
    "epoch",
    "generation",
    "proven",
    "name",
    "type",
    "key_digest",
    "voucher_hash",
    "admission_expires_at",
    "registered",
    "created_at",
    "first_connected_at",
)
ISSUANCE_COLUMNS: Final = (
    "serial",
    "device",
    "epoch",
    "generation",
    "kind",
    "spki",
    "state",
    "deadline",
    "refused",
    "wg_public_key",
    "leaf",
    "chain",
    "leaf_sha256",
    "not_before",
    "not_after",
)
WINDOW_COLUMNS: Final = (
    "device",
    "generation",
    "opened_by",
    "opened_at",
    "expires_at",
    "voucher_hash",
    "key_digest",
    "compromised",
)
LINK_COLUMNS: Final = (
    "device",
    "system",
    "wanted",
    "settled_at",
    "foreign_object",
    "next_at",
    "hints",
    "attempts",
    "last_error",
    "external_id",
    "claimed_by",
    "claimed_until",
)
LEASE_COLUMNS: Final = ("address", "device", "public_key")


@overload
def micros(moment: datetime) -> int: ...
@overload
def micros(moment: datetime | None) -> int | None: ...
def micros(moment: datetime | None) -> int | None:
    """Return microseconds since 1970 UTC.

    :raises TypeError: the moment has no time zone.
    """
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND


def instant(value: int) -> datetime:
    """Return the aware UTC moment."""
    return _EPOCH + timedelta(microseconds=value)


def instant_or_none(value: int | None) -> datetime | None:
    """Return the aware UTC moment, if there is one."""
    return None if value is None else _EPOCH + timedelta(microseconds=value)


def _fingerprint(value: str | None) -> Fingerprint | None:
    return None if value is None else Fingerprint(value)


def _wg_key(value: str | None) -> WireGuardKey | None:
    return None if value is None else WireGuardKey(value)


def device_of(row: Values) -> Device:
    """Build a device from :data:`DEVICE_COLUMNS`."""
    return Device(
        id=DeviceId(row[0]),
        state=DeviceState(row[1]),
        epoch=row[2],
        generation=row[3],
        proven=bool(row[4]),
        name=row[5],
        type=row[6],
        key_digest=_fingerprint(row[7]),
        voucher_hash=_fingerprint(row[8]),
        admission_expires_at=instant_or_none(row[9]),
        registered=bool(row[10]),
        created_at=instant(row[11]),
        first_connected_at=instant_or_none(row[12]),
    )


def issuance_of(row: Values) -> Issuance:
    """Build an issuance from :data:`ISSUANCE_COLUMNS`."""
    return Issuance(
        serial=Serial(int(row[0])),
        device=DeviceId(row[1]),
        epoch=row[2],
        generation=row[3],
        kind=Kind(row[4]),
        spki=Fingerprint(row[5]),
        state=IssuanceState(row[6]),
        deadline=instant(row[7]),
        refused=bool(row[8]),
        wg_key=_wg_key(row[9]),
        leaf=None if row[10] is None else Pem(row[10]),
        chain=None if row[11] is None else Pem(row[11]),
        leaf_sha256=_fingerprint(row[12]),
        not_before=instant_or_none(row[13]),
        not_after=instant_or_none(row[14]),
    )


def window_of(row: Values) -> Window:
    """Build a window from :data:`WINDOW_COLUMNS`."""
    return Window(
        device=DeviceId(row[0]),
        generation=row[1],
        opened_by=row[2],
        opened_at=instant(row[3]),
        expires_at=instant(row[4]),
        voucher_hash=_fingerprint(row[5]),
        key_digest=_fingerprint(row[6]),
        compromised=bool(row[7]),
    )


def link_of(row: Values) -> Link:
    """Build a link from :data:`LINK_COLUMNS`."""
    return Link(
        device=DeviceId(row[0]),
        system=System(row[1]),
        wanted=Wanted(row[2]),
        settled_at=instant_or_none(row[3]),
        foreign=bool(row[4]),
        next_at=instant_or_none(row[5]),
        hints=row[6],
        attempts=row[7],
        last_error=row[8],
        external_id=row[9],
        claimed_by=row[10],
        claimed_until=instant_or_none(row[11]),
    )


def lease_of(row: Values) -> Lease:
    """Build a held lease from :data:`LEASE_COLUMNS`."""
    return Lease(address=IPv4Address(row[0]), device=DeviceId(row[1]), wg_key=_wg_key(row[2]))
