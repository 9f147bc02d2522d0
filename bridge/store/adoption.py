"""Links of systems that were switched on after devices had been enrolled, or retired, without them; and off again."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from bridge.model.records import System
from bridge.store.session import Session
from bridge.store.statement import Statement

_ADOPT: Final = Statement.of("""
    INSERT INTO link (device, system, device_state, wanted, foreign_object, next_at, hints, attempts)
    SELECT d.id, :system, d.state, CASE WHEN d.state = 'active' THEN 'present' ELSE 'absent' END, FALSE, 0, 0, 0
    FROM device AS d
    WHERE d.state IN ('active', 'tombstone')
    AND (:system <> 'wireguard' OR d.state = 'tombstone'
         OR EXISTS (SELECT 1 FROM lease WHERE lease.device = d.id AND lease.public_key IS NOT NULL))
    ON CONFLICT (device, system) DO NOTHING
    """)
"""Due since 1970, that is at once. ``hawkbit`` too: the reconciler finds out whether the device ever connected."""

_FORGET: Final = Statement.of("DELETE FROM link WHERE system = :system")


class Adoption(Session):
    """Run once by each start that may migrate."""

    def adopt_systems(self) -> None:
        """Give every active or retired device a link to each system that is switched on and knows nothing of it."""
        for system in sorted(self._rules.systems - {System.CA}):
            self._hot.run(_ADOPT, {"system": system.value})

    def forget_links(self, systems: Collection[System]) -> None:
        """Delete every link to systems that are switched off."""
        for system in sorted(systems):
            self._hot.run(_FORGET, {"system": system.value})
