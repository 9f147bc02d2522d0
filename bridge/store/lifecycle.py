"""What an operator does to a device: register, open a window, retire, reinstate, abandon; and the sweep of attempts.

By an operator's hand or once in seconds, so these are expressions; the constraints of :mod:`bridge.store.schema` hold
the order in which states are flipped.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Table, delete, insert, select, update
from sqlalchemy import exists as exists_

from bridge.model.identity import DeviceId
from bridge.model.records import DeviceState, IssuanceState, System, Wanted, Window
from bridge.ports.registry import Registration
from bridge.store import statements as sql
from bridge.store.attempts import Attempts
from bridge.store.rows import micros
from bridge.store.schema import DEVICE, DEVICE_KEY, ISSUANCE, LEASE, LINK, WINDOW, WIREGUARD_KEY
from bridge.store.session import Order

_NOT_ADMITTED: dict[str, Any] = {
    "key_digest": None,
    "voucher_hash": None,
    "admission_expires_at": None,
}
_LIVE = tuple(
    state.value
    for state in (IssuanceState.INTENT, IssuanceState.PENDING, IssuanceState.CURRENT, IssuanceState.SUPERSEDED)
)


class Lifecycle(Attempts):
    """Changes of a device's fate."""

    def register(self, registration: Registration) -> bool:
        """Register a new id; return False if the id is known (nothing is changed)."""
        values: dict[str, Any] = {
            "registered": True,
            "proven": False,
            "name": registration.name,
            "type": registration.type,
            "key_digest": None if registration.key_digest is None else registration.key_digest.hex,
            "voucher_hash": None if registration.voucher_hash is None else registration.voucher_hash.hex,
            "admission_expires_at": micros(registration.expires_at),
        }
        known = self._known(registration.device)
        self.stirred = True
        if known is not None:
            # An abandoned id waits only for its last serial; to operators it is gone, so it may be registered again.
            revived = (
                update(DEVICE)
                .where(DEVICE.c.id == known[0], DEVICE.c.id == registration.device.value, DEVICE.c.abandoned)
                .values(abandoned=False, epoch=DEVICE.c.epoch + 1, **values)
            )
            return self._core.execute(revived).rowcount == 1
        self._core.execute(
            insert(DEVICE).values(
                id_folded=registration.device.folded,
                id=registration.device.value,
                state=DeviceState.REGISTERED.value,
                epoch=1,
                generation=0,
                abandoned=False,
                created_at=micros(registration.at),
                **values,
            )
        )
        self._absent.discard(registration.device.folded)
        return True

    def open_window(self, window: Window) -> bool:
        """Open a window for an active device, replacing an open one; False if it is not active in that generation."""
        known = self._known(window.device)
        if known is None:
            return False
        device = known[0]
        generation = self._core.scalar(
            select(DEVICE.c.generation).where(DEVICE.c.id == device, DEVICE.c.state == DeviceState.ACTIVE.value)
        )
        if generation != window.generation:
            return False
        self._close_windows(device, micros(window.opened_at), "replaced")
        self._core.execute(
            insert(WINDOW).values(
                device=device,
                generation=window.generation,
                opened_by=window.opened_by,
                opened_at=micros(window.opened_at),
                expires_at=micros(window.expires_at),
                voucher_hash=None if window.voucher_hash is None else window.voucher_hash.hex,
                key_digest=None if window.key_digest is None else window.key_digest.hex,
                compromised=window.compromised,
            )
        )
        self.stirred = True
        return True

    def _close_windows(self, device: str, now: int, outcome: str) -> None:
        self._core.execute(
            update(WINDOW)
            .where(WINDOW.c.device == device, WINDOW.c.closed_at.is_(None))
            .values(closed_at=now, outcome=outcome)
        )

    def tombstone(self, device: DeviceId, now: datetime) -> bool:
        """Retire the device in one step; return False if it is unknown or already a tombstone."""
        known = self._known(device)
        if known is None or known[1] == DeviceState.TOMBSTONE:
            return False
        name, moment = known[0], micros(now)
        self._close_intents(name, known[1], moment)
        self._core.execute(
            update(ISSUANCE)
            .where(ISSUANCE.c.device == name, ISSUANCE.c.state.in_(_LIVE))
            .values(state=IssuanceState.REVOKING.value)
        )
        self._close_windows(name, moment, "decommissioned")
        self._core.execute(
            update(LINK)
            .where(LINK.c.device == name)
            .values(wanted=Wanted.ABSENT.value, settled_at=None, next_at=moment)
        )
        # Only now: before, the database would not have let the state pass.
        self._core.execute(
            update(DEVICE)
            .where(DEVICE.c.id == name)
            .values(
                state=DeviceState.TOMBSTONE.value,
                epoch=DEVICE.c.epoch + 1,
                registered=False,
                abandoned=False,
                **_NOT_ADMITTED,
            )
        )
        # Every system, also one that this id never reached: whatever carries the name there is to be cut.
        self._call(name, DeviceState.TOMBSTONE.value, [Order(system, Wanted.ABSENT, moment) for system in System])
        self.stirred = True
        return True

    def reinstate(self, device: DeviceId, now: datetime) -> bool:
        """Turn a tombstone into ``registered`` (epoch raised, admission without voucher or key); False if it is none.

        The first connect is forgotten: the next identity has to connect itself. ``now`` is not stored.
        """
        del now
        known = self._known(device)
        if known is None or known[1] != DeviceState.TOMBSTONE:
            return False
        self._core.execute(
            update(DEVICE)
            .where(DEVICE.c.id == known[0])
            .values(
                state=DeviceState.REGISTERED.value,
                epoch=DEVICE.c.epoch + 1,
                registered=True,
                proven=False,
                first_connected_at=None,
                **_NOT_ADMITTED,
            )
        )
        self.stirred = True
        return True

    def abandon(self, device: DeviceId, now: datetime) -> bool:
        """Forget an id that never got a certificate; False if it is unknown, got one, or is a tombstone."""
        known = self._known(device)
        if known is None or known[1] != DeviceState.REGISTERED:
            return False
        name, moment = known[0], micros(now)
        if self._core.scalar(select(exists_().where(ISSUANCE.c.device == name, ISSUANCE.c.taken))):
            return False
        self._core.execute(
            update(LEASE)
            .where(LEASE.c.device == name)
            .values(device=None, public_key=None, free_at=moment + self._quarantine, former_device=name)
        )
        self._close_intents(name, known[1], moment)
        self._core.execute(
            update(DEVICE)
            .where(DEVICE.c.id == name)
            .values(abandoned=True, registered=False, epoch=DEVICE.c.epoch + 1, **_NOT_ADMITTED)
        )
        self._delete_abandoned(name)
        self.stirred = True
        return True

    def _delete_abandoned(self, device: str) -> None:
        """Delete everything of an abandoned id, unless something of it is still to be revoked."""
        revoking = (ISSUANCE.c.device == device) & (ISSUANCE.c.state == IssuanceState.REVOKING.value)
        if self._core.scalar(select(exists_().where(revoking))):
            return
        children: tuple[Table, ...] = (LINK, WINDOW, WIREGUARD_KEY, ISSUANCE, DEVICE_KEY)
        for table in children:
            self._core.execute(delete(table).where(table.c.device == device))
        self._core.execute(delete(DEVICE).where(DEVICE.c.id == device, DEVICE.c.abandoned))

    def sweep_attempts(self, now: datetime, limit: int) -> int:
        """Turn intents that are refused or past their deadline into ``revoking``, ``ca`` link due; return how many.

        Pending certificates that ended are counted with them. So are replaced ones that no platform holds any more.
        Abandoned ids with nothing left to revoke are deleted, at most ``limit`` of them; they are not counted.
        """
        moment = micros(now)
        swept = self._sweep_intents(moment, limit) + self._sweep_renewals(moment, limit)
        for (device,) in sorted(self._hot.rows(sql.LEFT_BEHIND, {"most": limit})):
            self._hold(DeviceId(device))
            if self._hot.row(sql.STILL_ABANDONED, {"device": device}) is not None:
                self._delete_abandoned(device)
                self.stirred = True
        return swept

    def _sweep_intents(self, moment: int, limit: int) -> int:
        swept = 0
        for (device,) in sorted(self._hot.rows(sql.LATE_INTENTS, {"now": moment, "most": limit})):
            known = self._known(DeviceId(device))
            # Asked again under the lock: another attempt may have taken its place.
            late = self._hot.row(sql.STILL_LATE, {"device": device, "now": moment}) is not None
            if known is not None and late and self._close_intents(device, known[1], moment):
                swept += 1
        return swept

    def _sweep_renewals(self, moment: int, limit: int) -> int:
        values: dict[str, Any] = {"now": moment, "most": limit}
        swept = 0
        for (device,) in sorted(self._hot.rows(sql.PENDING_ENDED, values)):
            known = self._known(DeviceId(device))
            if known is not None and self._hot.run(sql.REPLACE_ENDED, values | {"device": device}):
                self._call_ca(device, known[1], moment)
                swept += 1
        for (device,) in sorted(self._hot.rows(sql.REPLACED, values)):
            self._hold(DeviceId(device))
            swept += self._release_superseded(device, moment)
        return swept
