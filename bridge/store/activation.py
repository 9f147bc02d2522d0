"""A renewal's end: its pending certificate becomes the current one, and the replaced leaf is given up in its turn."""

from __future__ import annotations

from datetime import datetime

from bridge.model.facts import Activate, LeafFacts, Stored
from bridge.model.identity import DeviceId, Fingerprint
from bridge.model.records import DeviceState, Issuance, IssuanceState, System, Wanted
from bridge.store import statements as sql
from bridge.store.rows import DEVICE_COLUMNS, device_of, issuance_of, lease_of, micros
from bridge.store.session import Order, Session

_LEASE = len(DEVICE_COLUMNS)


class Activation(Session):
    """What the holder of a renewed certificate sets off."""

    def leaf_facts(self, device: DeviceId, leaf: Fingerprint, now: datetime) -> LeafFacts:
        """Read what is known of a leaf of the device; in a writing unit nobody else changes it until the commit."""
        self._hold(device)
        row = self._hot.row(sql.PICTURE, {"folded": device.folded})
        if row is None:
            return LeafFacts(now, None, None, None, None)
        found: dict[str, Issuance] = {}
        for part in self._hot.rows(sql.ISSUANCES_OF_LEAF, {"device": row[0], "leaf_sha256": leaf.hex}):
            found[part[0]] = issuance_of(part[1:])
        lease = None if row[_LEASE] is None else lease_of(row[_LEASE:])
        return LeafFacts(now, device_of(row), found.get("leaf"), found.get("attempt"), lease)

    def activate(self, activation: Activate, now: datetime) -> Stored | None:
        """Make the pending certificate the current one; None, and nothing written, if the epoch moved."""
        pending = activation.pending
        device, moment = pending.device.value, micros(now)
        values = {"device": device, "epoch": activation.epoch, "serial": str(pending.serial)}
        if self._hot.row(sql.RAISE_EPOCH_FROM, values) is None:
            return None
        active = DeviceState.ACTIVE.value
        # Its proof was by the leaf that is replaced now, or it is over: no leaf of it could be taken any more.
        self._close_intents(device, active, moment)
        self._hot.run(sql.SUPERSEDE_CURRENT, values)
        if self._hot.run(sql.MAKE_CURRENT, values) != 1:
            self.doomed = AssertionError(f"{pending.serial} is not pending at the epoch at which it was seen so")
            raise self.doomed
        self._call(device, active, (Order(System.THINGSBOARD, Wanted.PRESENT, moment),))
        self._release_superseded(device, moment)
        row = self._hot.row(sql.OWN_LEASE, values)
        return Stored(pending.with_state(IssuanceState.CURRENT), None if row is None else lease_of(row))
