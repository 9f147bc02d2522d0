"""Operators' orders. Each is committed, with its audit entry, before the method returns.

Responsible for the orders and for what an operator is shown. Not responsible for carrying them out in outside
systems: the links that an order makes due are worked off by :mod:`bridge.reconcile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bridge.errors import BridgeError
from bridge.lifecycle.view import DeviceView, ShownState
from bridge.model.identity import DeviceId, Fingerprint
from bridge.model.records import DeviceState, Window
from bridge.ports.registry import Entry, Page, Registration, Registry, Transaction
from bridge.ports.runtime import Clock


class OrderRefused(BridgeError):
    """The order does not fit the device's state; nothing was changed."""

    advice = "Look at the device: iot-bridge device show ID."


@dataclass(frozen=True, slots=True)
class WindowTerms:
    """What an operator may ask of a re-enrollment window."""

    lasts: timedelta = timedelta(hours=1)
    voucher_hash: Fingerprint | None = None
    key_digest: Fingerprint | None = None
    compromised: bool = False


class Lifecycle:
    """Orders over the registry, on behalf of one named actor."""

    def __init__(self, registry: Registry, clock: Clock, actor: str, request_id: str | None = None) -> None:
        """Take what it works with; ``request_id`` stands in the entries of everything that is ordered here."""
        self._registry = registry
        self._clock = clock
        self._actor = actor
        self._request_id = request_id

    async def register(
        self,
        device: DeviceId,
        *,
        key_digest: Fingerprint | None = None,
        voucher_hash: Fingerprint | None = None,
        lasts: timedelta | None = None,
        name: str | None = None,
        type: str | None = None,  # noqa: A002 - the wire's own word
    ) -> None:
        """Let a new device in at its next request.

        :raises OrderRefused: the id is known, in this or another spelling.
        """
        now = self._clock.now()
        expires = now + lasts if lasts is not None else None
        registration = Registration(device, now, key_digest, voucher_hash, expires, name, type)

        def unit(tx: Transaction) -> bool:
            return tx.register(registration) and self._note(tx, now, "device.registered", device, {})

        if not await self._registry.write(unit):
            raise OrderRefused(f"the id {device} is known already")

    async def decommission(self, device: DeviceId, reason: str | None) -> None:
        """Retire the device: from this commit on the registry refuses it, and every door is ordered shut.

        Done again on a tombstone it changes nothing.

        :raises OrderRefused: the id is unknown.
        """
        now = self._clock.now()

        def unit(tx: Transaction) -> bool:
            known = tx.device(device)
            if known is None:
                return False
            if tx.tombstone(known.id, now):
                self._note(tx, now, "device.decommissioned", known.id, {"reason": reason})
            return True

        if not await self._registry.write(unit):
            raise OrderRefused(f"the id {device} is not known")

    async def open_window(self, device: DeviceId, terms: WindowTerms) -> Window:
        """Open a window in which the device may come once with a new key.

        :raises OrderRefused: the device is not active.
        """
        now = self._clock.now()

        def unit(tx: Transaction) -> Window | None:
            known = tx.device(device)
            if known is None or known.state is not DeviceState.ACTIVE:
                return None
            window = Window(
                device=known.id,
                generation=known.generation,
                opened_by=self._actor,
                opened_at=now,
                expires_at=now + terms.lasts,
                voucher_hash=terms.voucher_hash,
                key_digest=terms.key_digest,
                compromised=terms.compromised,
            )
            if not tx.open_window(window):
                return None
            self._note(tx, now, "window.opened", known.id, {"expires_at": window.expires_at.isoformat()})
            return window

        opened = await self._registry.write(unit)
        if opened is None:
            raise OrderRefused(f"the id {device} is not active: only an active device can be re-enrolled")
        return opened

    async def reinstate(self, device: DeviceId) -> None:
        """End a tombstone whose retirement is complete; the device may enroll again as a new generation.

        :raises OrderRefused: the device is not retired.
        """
        now = self._clock.now()

        def unit(tx: Transaction) -> ShownState | None:
            view = _view(tx, device, now)
            if view is None:
                return None
            state = view.state(now)
            if state is ShownState.RETIRED and tx.reinstate(device, now):
                self._note(tx, now, "device.reinstated", view.device.id, {})
            return state

        state = await self._registry.write(unit)
        if state is None:
            raise OrderRefused(f"the id {device} is not known")
        if state is not ShownState.RETIRED:
            raise OrderRefused(f"the device {device} is {state}; only a retired one can be reinstated")

    async def abandon(self, device: DeviceId) -> None:
        """Forget an id that never got a certificate.

        :raises OrderRefused: it is unknown, a tombstone, or has a certificate.
        """
        now = self._clock.now()

        def unit(tx: Transaction) -> bool:
            known = tx.device(device)
            if known is None or not tx.abandon(known.id, now):
                return False
            return self._note(tx, now, "device.abandoned", known.id, {})

        if not await self._registry.write(unit):
            raise OrderRefused(f"the id {device} is unknown or got a certificate: use decommission for the latter")

    async def trust_issuer(self, issuing: Fingerprint) -> None:
        """Let the server start with a new issuing CA of the tenant, under the same root.

        :raises OrderRefused: it is trusted already.
        """
        now = self._clock.now()

        def unit(tx: Transaction) -> bool:
            trusted = tx.trust_issuer(issuing, now)
            if trusted:
                self._note(tx, now, "ca.trusted", None, {"sha256": issuing.hex})
            return trusted

        if not await self._registry.write(unit):
            raise OrderRefused(f"the issuing CA {issuing} is trusted already")

    async def show(self, device: DeviceId) -> DeviceView:
        """Return everything about one device.

        :raises OrderRefused: the id is unknown.
        """
        view = await self._registry.read(lambda tx: _view(tx, device, self._clock.now()))
        if view is None:
            raise OrderRefused(f"the id {device} is not known")
        return view

    async def page(self, after: str | None, limit: int, state: DeviceState | None) -> Page:
        """Return part of the list of devices."""
        return await self._registry.read(lambda tx: tx.devices(after, limit, state))

    def _note(
        self, tx: Transaction, now: datetime, action: str, device: DeviceId | None, detail: Mapping[str, Any]
    ) -> bool:
        tx.audit(Entry(now, self._actor, action, device, detail, self._request_id))
        return True


def _view(tx: Transaction, device: DeviceId, now: datetime) -> DeviceView | None:
    known = tx.device(device)
    if known is None:
        return None
    return DeviceView(known, tx.issuances(device), tx.links(device), tx.lease(device), tx.window(device, now))
