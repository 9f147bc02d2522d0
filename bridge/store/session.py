"""What every operation stands on: one connection inside one transaction.

Responsible for holding the device's row (PostgreSQL) and for making links due. Not responsible for beginning or ending
the transaction: that is :mod:`bridge.store.sqlite` and :mod:`bridge.store.postgresql`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection

from bridge.model.identity import DeviceId
from bridge.model.records import System, Wanted
from bridge.store import statements as sql
from bridge.store.drivers import Driver


class ConflictingWrite(Exception):
    """Another transaction wrote what this one had read; the unit must be run again. Never leaves the store."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operations need to know of the configuration."""

    systems: frozenset[System]
    """Those switched on; no link rows are made for others."""
    quarantine: timedelta
    """How long an address or a WireGuard key rests before another device may have it."""


@dataclass(frozen=True, slots=True)
class Order:
    """A link that has something new to do."""

    system: System
    wanted: Wanted
    next_at: int | None


class Session:
    """One transaction's state, shared by the operations."""

    def __init__(self, connection: Connection, driver: Driver, rules: Rules, *, writing: bool) -> None:
        self._core = connection
        self._hot = driver
        self._rules = rules
        self._writing = writing
        self._absent: set[str] = set()
        self._quarantine = rules.quarantine // timedelta(microseconds=1)
        self.stirred = False
        """Something was written that another process may be waiting for."""
        self.doomed: Exception | None = None
        """Set where a half-done operation was given up: the transaction must not be committed, even if the unit
        swallows the error."""

    def _hold(self, device: DeviceId) -> None:
        """Lock the device's row until the transaction ends, or remember that there is none."""
        if not self._writing or not self._hot.locks:
            return
        if self._hot.row(sql.LOCK_DEVICE_FOLDED, {"folded": device.folded}) is None:
            self._absent.add(device.folded)
        elif device.folded in self._absent:
            raise ConflictingWrite

    def _known(self, device: DeviceId) -> tuple[str, str] | None:
        """Lock the device and return its id as first spelled, and its state."""
        self._hold(device)
        row = self._hot.row(sql.KNOWN, {"folded": device.folded})
        return None if row is None else (row[0], row[1])

    def _call(self, device: str, state: str, orders: Iterable[Order]) -> None:
        """Give links of systems that are switched on something new to do."""
        # In one order everywhere, so that two transactions never wait for each other's rows.
        for order in sorted(orders, key=lambda order: order.system):
            if order.system in self._rules.systems:
                self._hot.run(
                    sql.CALL_LINK,
                    {
                        "device": device,
                        "system": order.system.value,
                        "device_state": state,
                        "wanted": order.wanted.value,
                        "next_at": order.next_at,
                    },
                )
                self.stirred = True

    def _call_ca(self, device: str, state: str, now: int) -> None:
        """Something of the device is to be revoked."""
        self._call(device, state, (Order(System.CA, Wanted.ABSENT, now),))

    def _release_superseded(self, device: str, now: int) -> bool:
        """Order the revocation of the device's replaced leaves, unless the platform may still admit one of them."""
        released = self._hot.rows(sql.RELEASE_SUPERSEDED, {"device": device})
        if released:
            self._call_ca(device, released[0][0], now)
        return bool(released)

    def _close_intents(self, device: str, state: str, now: int) -> bool:
        """Turn the device's intent into ``revoking``, whatever became of it; return whether there was one."""
        closed = self._hot.rows(sql.CLOSE_INTENTS, {"device": device})
        for (wg_key,) in closed:
            self._drop_wireguard_key(device, wg_key)
        if closed:
            self._call_ca(device, state, now)
        return bool(closed)

    def _drop_wireguard_key(self, device: str, wg_key: str | None) -> None:
        if wg_key is not None:
            self._hot.run(sql.DROP_WIREGUARD_KEY, {"wg_key": wg_key, "device": device})
