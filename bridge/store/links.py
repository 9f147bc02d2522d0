"""Orders for outside systems: claims, settlements, hints, what was observed, VPN peers, leases given back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import update

from bridge.model.identity import DeviceId, Serial
from bridge.model.records import DeviceState, IssuanceState, System, Wanted
from bridge.ports.registry import Claim, Settlement
from bridge.ports.tunnels import Peer
from bridge.store import statements as sql
from bridge.store.rows import LINK_COLUMNS, instant, link_of, micros
from bridge.store.schema import ISSUANCE, LEASE, WIREGUARD_KEY
from bridge.store.session import Session

_WANTED = LINK_COLUMNS.index("wanted")
_NEXT_AT = LINK_COLUMNS.index("next_at")


class Links(Session):
    """What the reconciler and the webhook do."""

    def claim_due(self, system: System, holder: str, now: datetime, until: datetime, limit: int) -> tuple[Claim, ...]:
        """Claim links of the system that are due and unclaimed (or whose claim ended), in one statement.

        Cuts come first, then the longest due. Each claim counts as one more attempt.
        """
        rows = self._hot.rows(
            sql.CLAIM_DUE,
            {"system": system.value, "now": micros(now), "until": micros(until), "holder": holder, "most": limit},
        )
        rows.sort(key=lambda row: (row[_WANTED], row[_NEXT_AT], row[0]))
        return tuple(Claim(link_of(row), row[len(LINK_COLUMNS)], holder, until) for row in rows)

    @staticmethod
    def _claim_values(claim: Claim, now: datetime) -> dict[str, Any]:
        return {
            "device": claim.link.device.value,
            "system": claim.link.system.value,
            "holder": claim.holder,
            "until": micros(claim.until),
            "epoch": claim.epoch,
            "now": micros(now),
        }

    def claim_holds(self, claim: Claim, now: datetime) -> bool:
        """Tell whether the claim is still ours, its deadline not passed, and the device still at its epoch."""
        return self._hot.row(sql.CLAIM_HOLDS, self._claim_values(claim, now)) is not None

    def settle(self, claim: Claim, settlement: Settlement, now: datetime) -> bool:
        """Write the result and give the claim back; False (and due again at once) if it was lost, or the epoch moved.

        ``external_id`` is kept either way: what was made outside is ours, whoever looks at it next.
        """
        values = self._claim_values(claim, now) | {
            "settled_at": micros(settlement.settled_at),
            "next_at": micros(settlement.next_at),
            "hints": claim.link.hints,
            "foreign_object": settlement.foreign,
            "last_error": settlement.error,
            "external_id": settlement.external_id,
            "agreed": settlement.settled_at is not None,
        }
        self.stirred = True
        if self._hot.locks:
            self._hot.row(sql.LOCK_DEVICE, values)
        if self._hot.run(sql.SETTLE, values) == 1:
            if claim.link.system is System.THINGSBOARD and claim.link.wanted is Wanted.PRESENT:
                self._release_superseded(claim.link.device.value, micros(now))
            return True
        if self._hot.run(sql.GIVE_BACK, values) == 0:
            self._hot.run(sql.LOOK_AGAIN, values)
        return False

    def next_due(self, system: System) -> datetime | None:
        """Return when the system's earliest link can be claimed: when it is due or, while claimed, when that ends."""
        named = {"system": system.value}
        found = [
            *(self._hot.row(sql.NEXT_UNCLAIMED, named | {"wanted": wanted.value}) for wanted in Wanted),
            self._hot.row(sql.NEXT_CLAIM_END, named),
        ]
        moments = [row[0] for row in found if row is not None]
        return instant(min(moments)) if moments else None

    def hint(self, devices: Sequence[DeviceId], now: datetime) -> int:
        """Make the ``thingsboard`` and ``hawkbit`` links of active devices due now, one hint more.

        Return how many of the devices are known, in whatever state.
        """
        moment = micros(now)
        known = 0
        for folded in sorted({device.folded for device in devices}):
            row = self._hot.row(sql.KNOWN, {"folded": folded})
            if row is None:
                continue
            known += 1
            if row[1] == DeviceState.ACTIVE:
                self._hot.run(sql.HINT, {"device": row[0], "now": moment})
                self.stirred = True
        return known

    def mark_connected(self, device: DeviceId, at: datetime, now: datetime) -> None:
        """Remember the first observed connect; ``hawkbit`` and ``thingsboard`` are due. Later calls change nothing."""
        row = self._hot.row(sql.CONNECTED, {"folded": device.folded, "at": micros(at)})
        if row is not None:
            self._hot.run(sql.HINT, {"device": row[0], "now": micros(now)})
            self.stirred = True

    def mark_revoked(self, serials: Sequence[Serial], now: datetime) -> None:
        """``revoking`` -> ``revoked``, for serials seen on the CRL."""
        for serial in sorted(map(str, serials)):
            self._core.execute(
                update(ISSUANCE)
                .where(ISSUANCE.c.serial == serial, ISSUANCE.c.state == IssuanceState.REVOKING.value)
                .values(state=IssuanceState.REVOKED.value, revoked_at=micros(now))
            )

    def raise_peer_revision(self) -> int:
        """Raise the revision of the peer set by one and return it."""
        raised = self._hot.row(sql.RAISE_PEER_REVISION, {})
        if raised is None:
            raise AssertionError("the statement always yields one row")
        revision: int = raised[0]
        return revision

    def peers(self) -> tuple[Peer, ...]:
        """Return every peer that is wanted now, in order of address."""
        return tuple(map(Peer._make, self._hot.rows(sql.PEERS, {})))

    def free_lease(self, device: DeviceId, free_at: datetime) -> None:
        """End the lease of a tombstoned id whose peer was seen gone; others may have it from ``free_at`` on.

        The same holds for its WireGuard key. Nothing happens to an id that is no tombstone.
        """
        known = self._known(device)
        if known is None or known[1] != DeviceState.TOMBSTONE:
            return
        name, moment = known[0], micros(free_at)
        self._core.execute(
            update(LEASE)
            .where(LEASE.c.device == name)
            .values(device=None, public_key=None, free_at=moment, former_device=name)
        )
        self._core.execute(
            update(WIREGUARD_KEY)
            .where(WIREGUARD_KEY.c.device == name, WIREGUARD_KEY.c.free_at.is_(None))
            .values(free_at=moment)
        )
