"""A signing attempt's life before there is a certificate: facts, intent, refusal, sweep, and its VPN address."""

from __future__ import annotations

import json
from datetime import datetime

from bridge.errors import IdSpelling, KeyInUse, PoolEmpty, Retired, WireGuardKeyInUse
from bridge.model.facts import EnrollmentRequest, Facts, NewAttempt
from bridge.model.identity import DeviceId, Serial
from bridge.model.records import Issuance, KeyOwner, Kind, WireGuardKeyOwner
from bridge.store import statements as sql
from bridge.store.rows import (
    DEVICE_COLUMNS,
    LEASE_COLUMNS,
    WINDOW_COLUMNS,
    device_of,
    issuance_of,
    lease_of,
    micros,
    window_of,
)
from bridge.store.session import Session

_KEY = len(DEVICE_COLUMNS)
_WINDOW = _KEY + 2
_LEASE = _WINDOW + len(WINDOW_COLUMNS)
_WG_KEY = _LEASE + len(LEASE_COLUMNS)


class Attempts(Session):
    """The operations before a certificate exists."""

    def facts(self, request: EnrollmentRequest, now: datetime) -> Facts:
        """Read what the decision table looks at; in a writing unit nobody else changes it until the commit."""
        device_id = request.device
        self._hold(device_id)
        spki = request.csr.spki.hex
        row = self._hot.row(
            sql.FACTS,
            {
                "folded": device_id.folded,
                "spki": spki,
                "now": micros(now),
                "wg_key": None if request.wg_key is None else request.wg_key.text,
            },
        )
        if row is None:
            raise AssertionError("the statement always yields one row")
        device = None if row[0] is None else device_of(row)
        if device is None:
            self._absent.add(device_id.folded)
        found: dict[str, Issuance] = {}
        if device is not None or row[_KEY] is not None:
            for part in self._hot.rows(
                sql.ISSUANCES_OF_REQUEST, {"device": None if device is None else device.id.value, "spki": spki}
            ):
                found[part[0]] = issuance_of(part[1:])
        return Facts(
            now=now,
            device=device,
            key_owner=None if row[_KEY] is None else KeyOwner(DeviceId(row[_KEY]), row[_KEY + 1]),
            stored=found.get("stored"),
            attempt=found.get("attempt"),
            current=found.get("current"),
            window=None if row[_WINDOW] is None else window_of(row[_WINDOW:]),
            lease=None if row[_LEASE] is None else lease_of(row[_LEASE:]),
            wg_owner=None if row[_WG_KEY] is None else WireGuardKeyOwner(DeviceId(row[_WG_KEY]), row[_WG_KEY + 1]),
        )

    def begin_attempt(self, attempt: NewAttempt) -> None:
        """Record the intent to have ``attempt.serial`` signed."""
        try:
            self._begin(attempt)
        except (PoolEmpty, KeyInUse, WireGuardKeyInUse) as e:
            self.doomed = e
            raise

    def _begin(self, attempt: NewAttempt) -> None:
        request = attempt.request
        now = micros(attempt.now)
        device, state, epoch = self._raise_epoch(attempt, now)
        known = epoch > 1
        if known:
            self._close_intents(device, state, now)
        spki = request.csr.spki.hex
        if self._hot.row(sql.TAKE_KEY, {"spki": spki, "device": device}) is None:
            raise KeyInUse("this key belongs to another identity, or to an earlier one of this id")
        wg_key = None if request.wg_key is None else request.wg_key.text
        if wg_key is not None and attempt.kind is not Kind.RENEW:
            values = {"wg_key": wg_key, "device": device, "generation": attempt.generation, "now": now}
            if self._hot.row(sql.TAKE_WIREGUARD_KEY, values) is None:
                raise WireGuardKeyInUse("this WireGuard key is held by another identity")
        self._hot.run(
            sql.INSERT_INTENT,
            {
                "serial": str(attempt.serial),
                "device": device,
                "device_state": state,
                "epoch": epoch,
                "generation": attempt.generation,
                "kind": attempt.kind.value,
                "proven": attempt.proven,
                "spki": spki,
                "deadline": micros(attempt.deadline),
                "wg_key": wg_key,
                "now": now,
            },
        )
        if wg_key is not None:
            # Last: the pool's counter is the one row that all enrollments share.
            self._lease(device, now, known=known)

    def _raise_epoch(self, attempt: NewAttempt, now: int) -> tuple[str, str, int]:
        """Return the device's id as first spelled, its state and its new epoch; make the device if there is none."""
        request = attempt.request
        folded = request.device.folded
        values = {
            "folded": folded,
            "device": request.device.value,
            "proven": attempt.proven,
            "name": request.name,
            "type": request.type,
            "inventory": None if request.inventory is None else json.dumps(request.inventory, separators=(",", ":")),
            "now": now,
        }
        if folded not in self._absent:
            statement = sql.RAISE_EPOCH if attempt.kind is Kind.RENEW else sql.RAISE_EPOCH_AND_DESCRIBE
            row = self._hot.row(statement, values)
            if row is not None:
                if row[0] != request.device.value:
                    self.doomed = IdSpelling("this id is known under another spelling")
                    raise self.doomed
                return row[0], row[1], row[2]
            if self._hot.row(sql.KNOWN, values) is not None:
                raise Retired("this device was decommissioned")
        # Facts that saw no device were decided upon: a device that came in between must not be written over.
        self._hot.run(sql.INSERT_DEVICE, values)
        self._absent.discard(folded)
        return request.device.value, "registered", 1

    def _lease(self, device: str, now: int, *, known: bool) -> None:
        """Give the device an address, if it has none: its former one, a new one, or the one free for longest."""
        values: dict[str, object] = {"device": device, "now": now}
        if known and (self._hot.row(sql.OWN_LEASE, values) or self._hot.row(sql.LEASE_AGAIN, values)):
            return
        fresh = self._hot.row(sql.LEASE_NEW, values)
        if fresh is not None:
            self._hot.run(sql.INSERT_LEASE, {"address": fresh[0], "device": device})
        elif self._hot.row(sql.LEASE_FREED, values) is None:
            raise PoolEmpty("no VPN address is free")

    def refuse_attempt(self, attempt: Serial) -> None:
        """Close an attempt that the CA refused."""
        self._hot.run(sql.REFUSE, {"serial": str(attempt)})

    def forget_attempt(self, attempt: Serial) -> None:
        """Delete an intent whose request surely never left."""
        for device, wg_key in self._hot.rows(sql.FORGET, {"serial": str(attempt)}):
            self._drop_wireguard_key(device, wg_key)
