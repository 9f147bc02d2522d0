"""A certificate's way into the registry: taken while its attempt is open, else kept only to be revoked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import select

from bridge.model.facts import Lost, SignedLeaf, Stored
from bridge.model.identity import Serial
from bridge.model.records import DeviceState, Issuance, IssuanceState, Kind, Lease, System, Wanted
from bridge.ports.registry import UnknownAttempt
from bridge.store import statements as sql
from bridge.store.drivers import Row
from bridge.store.rows import ISSUANCE_COLUMNS, issuance_of, lease_of, micros
from bridge.store.schema import ISSUANCE
from bridge.store.session import Order, Session

_OWN = len(ISSUANCE_COLUMNS)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An attempt and the device as it stands now."""

    issuance: Issuance
    proven: bool
    device_state: DeviceState
    device_epoch: int
    device_generation: int
    connected: bool

    @classmethod
    def of(cls, row: Row) -> _Attempt:
        proven, state, epoch, generation, connected = row[_OWN:]
        return cls(issuance_of(row), bool(proven), DeviceState(state), epoch, generation, connected is not None)


class Certificates(Session):
    """Taking, or keeping for revocation, what the CA returned."""

    def store_certificate(self, attempt: Serial, signed: SignedLeaf, now: datetime) -> Stored | Lost:
        """Take the leaf if its attempt is still open at the device's present epoch, else record it as ``revoking``.

        :raises UnknownAttempt: no such attempt was ever begun, or its id was abandoned and forgotten.
        """
        found = self._attempt(attempt)
        issuance = found.issuance
        if issuance.leaf is not None:
            return self._again(found, signed, now)
        if issuance.is_open(now) and issuance.epoch == found.device_epoch:
            if issuance.kind is Kind.RENEW:
                return self._take_pending(found, signed, now)
            return self._take_current(found, signed, now)
        return self._keep_for_revocation(found, signed, now)

    def _attempt(self, serial: Serial) -> _Attempt:
        values = {"serial": str(serial)}
        if self._hot.locks:
            self._hot.row(sql.LOCK_DEVICE_OF_SERIAL, values)
        row = self._hot.row(sql.ATTEMPT, values)
        if row is None:
            replaced = self._core.scalar(select(ISSUANCE.c.serial).where(ISSUANCE.c.requested == str(serial)))
            if replaced is None:
                raise UnknownAttempt(f"no signing attempt {serial} was recorded")
            return self._attempt(Serial(int(replaced)))
        return _Attempt.of(row)

    def _take_current(self, found: _Attempt, signed: SignedLeaf, now: datetime) -> Stored:
        issuance, moment = found.issuance, micros(now)
        device = issuance.device.value
        values: dict[str, Any] = {"device": device, "generation": issuance.generation, "proven": found.proven}
        replaced = found.device_generation > 0 and self._hot.run(sql.REPLACE_CURRENT, values) > 0
        self._hot.run(sql.ACTIVATE_DEVICE, values)
        self._write_leaf(found, signed, IssuanceState.CURRENT, taken=True)
        window_used = False
        if issuance.kind is Kind.REENROLL:
            used = {"device": device, "now": moment, "serial": str(signed.serial)}
            window_used = self._hot.run(sql.USE_WINDOW, used) > 0
        if found.device_generation > 0:
            # What the earlier identity's tunnel had rests like an address that was given back.
            self._hot.run(sql.RETIRE_WIREGUARD_KEYS, values | {"free_at": moment + self._quarantine})
        lease = self._lease_for(issuance, earlier=found.device_generation > 0)
        revoking = replaced or (issuance.epoch > 1 and self._hot.row(sql.ANY_REVOKING, {"device": device}) is not None)
        self._call(device, "active", self._orders(lease, moment, connected=found.connected, revoking=revoking))
        return Stored(_with_leaf(issuance, signed, IssuanceState.CURRENT), lease, window_used)

    def _lease_for(self, issuance: Issuance, *, earlier: bool) -> Lease | None:
        """Give the device's lease the attempt's key; an earlier identity's key goes, whether or not a new one came."""
        values = {"device": issuance.device.value, "wg_key": None if issuance.wg_key is None else issuance.wg_key.text}
        statement = sql.SET_LEASE_KEY if issuance.wg_key is not None or earlier else sql.OWN_LEASE
        row = self._hot.row(statement, values)
        return None if row is None else lease_of(row)

    @staticmethod
    def _orders(lease: Lease | None, now: int, *, connected: bool, revoking: bool) -> list[Order]:
        orders = [
            Order(System.THINGSBOARD, Wanted.PRESENT, now),
            Order(System.HAWKBIT, Wanted.PRESENT, now if connected else None),
        ]
        if lease is not None:
            orders.append(Order(System.WIREGUARD, Wanted.ABSENT if lease.wg_key is None else Wanted.PRESENT, now))
        if revoking:
            orders.append(Order(System.CA, Wanted.ABSENT, now))
        return orders

    def _take_pending(self, found: _Attempt, signed: SignedLeaf, now: datetime) -> Stored:
        issuance = found.issuance
        device = issuance.device.value
        replaced = self._hot.run(sql.REPLACE_PENDING, {"device": device}) > 0
        self._write_leaf(found, signed, IssuanceState.PENDING, taken=True)
        if replaced:
            self._call_ca(device, found.device_state.value, micros(now))
        row = self._hot.row(sql.OWN_LEASE, {"device": device})
        return Stored(_with_leaf(issuance, signed, IssuanceState.PENDING), None if row is None else lease_of(row))

    def _keep_for_revocation(self, found: _Attempt, signed: SignedLeaf, now: datetime) -> Lost:
        issuance = found.issuance
        # The CA may have been told of our serial already, and that covers this leaf; of another serial it was not.
        done = issuance.state is IssuanceState.REVOKED and signed.serial == issuance.serial
        state = IssuanceState.REVOKED if done else IssuanceState.REVOKING
        self._write_leaf(found, signed, state, taken=False)
        self._drop_wireguard_key(issuance.device.value, None if issuance.wg_key is None else issuance.wg_key.text)
        if not done:
            self._call_ca(issuance.device.value, found.device_state.value, micros(now))
        return Lost(signed.serial)

    def _again(self, found: _Attempt, signed: SignedLeaf, now: datetime) -> Stored | Lost:
        """Answer for an attempt that already has a leaf: the same one once more, or one too many."""
        issuance = found.issuance
        if signed.leaf_sha256 == issuance.leaf_sha256:
            row = self._hot.row(sql.OWN_LEASE, {"device": issuance.device.value})
            live = issuance.state in {IssuanceState.CURRENT, IssuanceState.PENDING}
            return Stored(issuance, None if row is None else lease_of(row)) if live else Lost(signed.serial)
        if signed.serial != issuance.serial:
            self._hot.run(
                sql.INSERT_SURPLUS,
                {
                    "serial": str(signed.serial),
                    "device": issuance.device.value,
                    "device_state": found.device_state.value,
                    "epoch": issuance.epoch,
                    "generation": issuance.generation,
                    "kind": issuance.kind.value,
                    "proven": found.proven,
                    "spki": issuance.spki.hex,
                    "deadline": micros(issuance.deadline),
                    "now": micros(now),
                    **_leaf_values(signed),
                },
            )
            self._call_ca(issuance.device.value, found.device_state.value, micros(now))
        return Lost(signed.serial)

    def _write_leaf(self, found: _Attempt, signed: SignedLeaf, state: IssuanceState, *, taken: bool) -> None:
        issuance = found.issuance
        ours, theirs = str(issuance.serial), str(signed.serial)
        if ours != theirs:
            self._hot.run(sql.REPLACE_SERIAL, {"serial": ours, "leaf_serial": theirs})
        self._hot.run(sql.STORE_LEAF, {"serial": theirs, "state": state.value, "taken": taken, **_leaf_values(signed)})
        if taken:
            self._hot.run(sql.SET_KEY_GENERATION, {"generation": issuance.generation, "spki": issuance.spki.hex})


def _leaf_values(signed: SignedLeaf) -> dict[str, Any]:
    return {
        "leaf": signed.leaf,
        "chain": signed.chain,
        "leaf_sha256": signed.leaf_sha256.hex,
        "not_before": micros(signed.not_before),
        "not_after": micros(signed.not_after),
    }


def _with_leaf(issuance: Issuance, signed: SignedLeaf, state: IssuanceState) -> Issuance:
    return replace(
        issuance,
        serial=signed.serial,
        state=state,
        leaf=signed.leaf,
        chain=signed.chain,
        leaf_sha256=signed.leaf_sha256,
        not_before=signed.not_before,
        not_after=signed.not_after,
    )
