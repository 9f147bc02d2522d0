"""Reading the registry for people and for the reconciler; the installation; the audit trail."""

from __future__ import annotations

import json
from datetime import datetime
from ipaddress import IPv4Address
from typing import Any

from sqlalchemy import Select, Table, func, select, update

from bridge.model.identity import DeviceId, Fingerprint
from bridge.model.records import Device, DeviceState, Installation, Issuance, IssuanceState, Lease, Link, Window
from bridge.ports.registry import Entry, Page, Picture
from bridge.store import statements as sql
from bridge.store.rows import (
    DEVICE_COLUMNS,
    ISSUANCE_COLUMNS,
    LEASE_COLUMNS,
    LINK_COLUMNS,
    WINDOW_COLUMNS,
    Values,
    device_of,
    issuance_of,
    lease_of,
    link_of,
    micros,
    window_of,
)
from bridge.store.schema import DEVICE, INSTALLATION, ISSUANCE, ISSUER, LEASE, LEASE_POOL, LINK, WINDOW
from bridge.store.session import Session

_LEASE = len(DEVICE_COLUMNS)


def _select(table: Table, names: tuple[str, ...]) -> Select[Any]:
    return select(*(table.c[name] for name in names))


_DEVICES = _select(DEVICE, DEVICE_COLUMNS)
_ISSUANCES = _select(ISSUANCE, ISSUANCE_COLUMNS)
_LINKS = _select(LINK, LINK_COLUMNS)
_LEASES = _select(LEASE, LEASE_COLUMNS)
_WINDOWS = _select(WINDOW, WINDOW_COLUMNS)


class Reading(Session):
    """Operations that show; of the writing ones only those that nothing else depends on."""

    def _first(self, query: Select[Any]) -> Values | None:
        return self._core.execute(query).first()

    def _spelled(self, device: DeviceId) -> Any:
        """Return a subquery for the id as it was first spelled."""
        return select(DEVICE.c.id).where(DEVICE.c.id_folded == device.folded).scalar_subquery()

    def device(self, device: DeviceId) -> Device | None:
        """Return the device by its folded id."""
        row = self._first(_DEVICES.where(DEVICE.c.id_folded == device.folded))
        return None if row is None else device_of(row)

    def devices(self, after: str | None, limit: int, state: DeviceState | None) -> Page:
        """Return at most ``limit`` devices whose folded id is greater than ``after``."""
        query = _DEVICES.order_by(DEVICE.c.id_folded).limit(limit + 1)
        if after is not None:
            query = query.where(DEVICE.c.id_folded > after)
        if state is not None:
            query = query.where(DEVICE.c.state == state.value)
        found = [device_of(row) for row in self._core.execute(query)]
        shown = tuple(found[:limit])
        return Page(shown, shown[-1].id.folded if shown and len(found) > limit else None)

    def issuances(self, device: DeviceId) -> tuple[Issuance, ...]:
        """Return all of the device, oldest first."""
        query = _ISSUANCES.where(ISSUANCE.c.device == self._spelled(device))
        rows = self._core.execute(query.order_by(ISSUANCE.c.created_at, ISSUANCE.c.epoch))
        return tuple(issuance_of(row) for row in rows)

    def links(self, device: DeviceId) -> tuple[Link, ...]:
        """Return all of the device."""
        rows = self._core.execute(_LINKS.where(LINK.c.device == self._spelled(device)).order_by(LINK.c.system))
        return tuple(link_of(row) for row in rows)

    def lease(self, device: DeviceId) -> Lease | None:
        """Return the device's lease."""
        row = self._first(_LEASES.where(LEASE.c.device == self._spelled(device)))
        return None if row is None else lease_of(row)

    def window(self, device: DeviceId, now: datetime) -> Window | None:
        """Return the device's open window."""
        row = self._first(
            _WINDOWS.where(
                WINDOW.c.device == self._spelled(device),
                WINDOW.c.closed_at.is_(None),
                WINDOW.c.expires_at > micros(now),
            )
        )
        return None if row is None else window_of(row)

    def picture(self, device: DeviceId) -> Picture | None:
        """Read what the reconciler needs about a device."""
        row = self._hot.row(sql.PICTURE, {"folded": device.folded})
        if row is None:
            return None
        found = device_of(row)
        issuances = [issuance_of(one) for one in self._hot.rows(sql.ISSUANCES_OF_DEVICE, {"device": row[0]})]
        revoking = [one for one in issuances if one.state is IssuanceState.REVOKING]
        return Picture(
            device=found,
            current=next((one for one in issuances if one.state is IssuanceState.CURRENT), None),
            leaves=tuple(one.leaf for one in issuances if one.leaf is not None),
            revoking=tuple(one.serial for one in revoking),
            unseen=tuple(one.serial for one in revoking if one.leaf is None),
            lease=None if row[_LEASE] is None else lease_of(row[_LEASE:]),
        )

    def installation(self) -> Installation | None:
        """Return the installation row."""
        row = self._first(
            select(
                INSTALLATION.c.installation_id, INSTALLATION.c.mode, INSTALLATION.c.tenant, INSTALLATION.c.root_sha256
            )
        )
        if row is None:
            return None
        issuers = self._core.scalars(select(ISSUER.c.sha256).order_by(ISSUER.c.position))
        return Installation(row[0], row[1], row[2], Fingerprint(row[3]), tuple(map(Fingerprint, issuers)))

    def install(self, installation: Installation, first: IPv4Address, last: IPv4Address, now: datetime) -> None:
        """Write the installation row and the address pool, once: if another process was first, its rows stay."""
        written = self._hot.row(
            sql.INSERT_INSTALLATION,
            {
                "installation_id": installation.id,
                "mode": installation.mode,
                "tenant": installation.tenant,
                "root_sha256": installation.root_sha256.hex,
                "now": micros(now),
            },
        )
        if written is None:
            return
        issuers = enumerate(installation.issuing_sha256, 1)
        rows = [{"position": position, "sha256": one.hex, "added_at": micros(now)} for position, one in issuers]
        if rows:
            self._core.execute(ISSUER.insert(), rows)
        self._core.execute(LEASE_POOL.insert().values(id=1, next_address=int(first), last_address=int(last)))
        self.stirred = True

    def adopt_pool(self, first: IPv4Address, last: IPv4Address) -> bool:
        """Make the address pool this one; False, and nothing changed, if an address outside of it was ever leased."""
        low, high = self._core.execute(select(func.min(LEASE.c.address), func.max(LEASE.c.address))).one()
        if low is not None and (low < int(first) or high > int(last)):
            return False
        changed = {"last_address": int(last)}
        if low is None:
            changed["next_address"] = int(first)
        self._core.execute(update(LEASE_POOL).values(changed))
        return True

    def trust_issuer(self, issuing: Fingerprint, now: datetime) -> bool:
        """Trust leaves of one more issuing CA, the newest; False if it was trusted before."""
        known: dict[str, int] = {
            row[0]: row[1] for row in self._core.execute(select(ISSUER.c.sha256, ISSUER.c.position))
        }
        if issuing.hex in known:
            return False
        position = max(known.values(), default=0) + 1
        self._core.execute(ISSUER.insert().values(position=position, sha256=issuing.hex, added_at=micros(now)))
        return True

    def audit(self, entry: Entry) -> None:
        """Append to the audit trail."""
        self._hot.run(
            sql.INSERT_AUDIT,
            {
                "at": micros(entry.at),
                "actor": entry.actor,
                "action": entry.action,
                "device": None if entry.device is None else entry.device.value,
                "detail": json.dumps(entry.detail, sort_keys=True, separators=(",", ":")),
                "request_id": entry.request_id,
            },
        )
