"""The database itself refuses what must never be, whoever writes it: raw SQL, without any code of ours."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from bridge.errors import StoreUnavailable
from bridge.model.records import Kind
from bridge.store.open import RegistryStore
from bridge.store.schema import ISSUANCE


@pytest.fixture
async def retired(registry: RegistryStore, fleet: Any) -> RegistryStore:
    """A tombstone with history, and one device that lives."""
    await fleet.enroll(registry, "dead")
    await fleet.enroll(registry, "alive")
    await fleet.store(registry, await fleet.begin(registry, fleet.request("alive", key="2"), kind=Kind.RENEW))
    await fleet.begin(registry, fleet.request("alive", key="3"), kind=Kind.RENEW)
    await registry.write(lambda t: t.tombstone(fleet.id("dead"), fleet.now))
    return registry


NEW_ISSUANCE = (
    "INSERT INTO issuance (serial, device, device_state, epoch, generation, kind, proven, spki, state, deadline,"
    " refused, taken, created_at) SELECT 'x', 'dead', '{}', 9, 9, 'first', FALSE, spki, 'intent', 0, FALSE, FALSE, 0"
    " FROM device_key WHERE device = 'dead'"
)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE issuance SET state = 'current' WHERE device = 'dead'",
        "UPDATE issuance SET state = 'pending' WHERE device = 'dead'",
        "UPDATE issuance SET state = 'intent' WHERE device = 'dead'",
        "UPDATE issuance SET state = 'current', device_state = 'active' WHERE device = 'dead'",
        NEW_ISSUANCE.format("tombstone"),
        NEW_ISSUANCE.format("active"),
        "UPDATE link SET wanted = 'present' WHERE device = 'dead'",
        "UPDATE link SET wanted = 'present', device_state = 'active' WHERE device = 'dead' AND system = 'hawkbit'",
        "UPDATE device SET state = 'tombstone' WHERE id = 'alive'",
        "UPDATE device SET state = 'registered' WHERE id = 'alive'",
        "UPDATE device SET state = 'gone' WHERE id = 'alive'",
    ],
)
async def test_nothing_living_can_be_written_for_the_dead(
    retired: RegistryStore, refused_by_database: Any, statement: str
) -> None:
    assert refused_by_database(retired, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE issuance SET state = 'current' WHERE device = 'alive'",
        "UPDATE issuance SET state = 'intent' WHERE device = 'alive' AND state = 'pending'",
        "UPDATE issuance SET state = 'pending' WHERE device = 'alive' AND state = 'current'",
        "UPDATE issuance SET state = 'current' WHERE device = 'alive' AND state = 'intent'",
        "UPDATE issuance SET leaf = NULL WHERE device = 'alive' AND state = 'current'",
        (
            "UPDATE issuance SET spki = (SELECT max(spki) FROM issuance WHERE taken AND device = 'alive')"
            " WHERE taken AND device = 'alive'"
        ),
        "UPDATE issuance SET serial = (SELECT min(serial) FROM issuance)",
        (
            "INSERT INTO device (id_folded, id, state, epoch, generation, proven, registered, abandoned, created_at)"
            " VALUES ('alive', 'ALIVE', 'registered', 1, 0, FALSE, FALSE, FALSE, 0)"
        ),
        (
            "INSERT INTO device (id_folded, id, state, epoch, generation, proven, registered, abandoned, created_at)"
            " VALUES ('Other', 'Other', 'registered', 1, 0, FALSE, FALSE, FALSE, 0)"
        ),
        "INSERT INTO device_key (spki, device) SELECT spki, 'dead' FROM device_key WHERE device = 'alive'",
        (
            "INSERT INTO wireguard_key (public_key, device, generation)"
            " SELECT public_key, 'dead', 1 FROM wireguard_key WHERE device = 'alive'"
        ),
        "INSERT INTO lease (address, device) SELECT address, 'dead' FROM lease WHERE device = 'alive'",
        "INSERT INTO lease (address, device) VALUES (1, 'alive')",
        "UPDATE lease SET public_key = (SELECT public_key FROM lease WHERE device = 'alive')",
        "UPDATE lease SET device = NULL WHERE device = 'alive'",
        "UPDATE lease SET free_at = 5 WHERE device = 'alive'",
        "UPDATE link SET wanted = 'present' WHERE system = 'ca'",
        "UPDATE link SET claimed_by = 'me' WHERE device = 'alive'",
        "DELETE FROM device WHERE id = 'alive'",
        "INSERT INTO lease_pool (id, next_address, last_address) VALUES (2, 1, 2)",
        (
            "INSERT INTO installation (id, installation_id, mode, tenant, root_sha256, created_at)"
            " VALUES (2, 'i', 'm', 't', 'r', 0)"
        ),
    ],
)
async def test_the_registry_cannot_contradict_itself(
    retired: RegistryStore, refused_by_database: Any, statement: str
) -> None:
    assert refused_by_database(retired, statement)


async def test_only_one_window_is_open(retired: RegistryStore, refused_by_database: Any) -> None:
    one = (
        "INSERT INTO reenroll_window (device, generation, opened_by, opened_at, expires_at, compromised)"
        " VALUES ('alive', 1, 'a', 0, 1, FALSE)"
    )
    assert not refused_by_database(retired, one)
    with retired.engine.begin() as connection:
        connection.execute(text(one))
    assert refused_by_database(retired, one)


async def test_the_tests_above_would_notice_a_database_that_takes_everything(
    retired: RegistryStore, refused_by_database: Any
) -> None:
    assert not refused_by_database(retired, "UPDATE link SET last_error = 'x'")
    assert not refused_by_database(retired, "UPDATE issuance SET state = 'revoked' WHERE device = 'dead'")


async def test_a_unit_that_breaks_a_rule_gets_an_error_of_ours_and_nothing_is_kept(
    registry: RegistryStore, fleet: Any
) -> None:
    serial = await fleet.begin(registry, fleet.request("cam-1"))

    def breaks(t: Any) -> None:
        t.refuse_attempt(serial)
        t._core.execute(ISSUANCE.update().values(state="current"))

    with pytest.raises(StoreUnavailable, match="rule of the registry"):
        await registry.write(breaks)
    (one,) = await registry.read(lambda t: t.issuances(fleet.id("cam-1")))
    assert not one.refused
