"""No statement walks a table: both planners are asked about each, with two thousand devices in it."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from sqlalchemy import event

from bridge.model.records import Kind, System, Window
from bridge.ports.registry import Registration, Settlement
from bridge.store import statements
from bridge.store.open import RegistryStore
from bridge.store.statement import Statement

DEVICES = 2000
HOT = {name: value for name, value in vars(statements).items() if isinstance(value, Statement) and name != "PEERS"}
"""All but the one that is meant to read the whole fleet."""
TABLES = "device|device_key|issuance|wireguard_key|lease|link|reenroll_window|audit|[dkwlgi]"
SQLITE_SCAN = re.compile(rf"SCAN (?:{TABLES})\b(?! USING (?:COVERING )?INDEX \S*(?:deadline|abandoned|superseded))")
"""A partial index over the few open attempts, abandoned ids or replaced leaves may be walked from end to end."""

FILL = [
    (
        "INSERT INTO device (id_folded, id, state, epoch, generation, proven, registered, abandoned, created_at)"
        " SELECT 'dev-' || n, 'dev-' || n, 'active', 2, 1, FALSE, FALSE, FALSE, 0 FROM numbers"
    ),
    "INSERT INTO device_key (spki, device, generation) SELECT 'key-' || n, 'dev-' || n, 1 FROM numbers",
    (
        "INSERT INTO issuance (serial, device, device_state, epoch, generation, kind, proven, spki, state, deadline,"
        " refused, taken, leaf, chain, leaf_sha256, not_before, not_after, created_at)"
        " SELECT n || '', 'dev-' || n, 'active', 1, 1, 'first', FALSE, 'key-' || n, 'current', 0, FALSE, TRUE, "
        " 'l', 'c', 's', 0, 1, 0 FROM numbers"
    ),
    "INSERT INTO wireguard_key (public_key, device, generation) SELECT 'wg-' || n, 'dev-' || n, 1 FROM numbers",
    "INSERT INTO lease (address, device, public_key) SELECT n, 'dev-' || n, 'wg-' || n FROM numbers WHERE n <= 1000",
    "INSERT INTO lease (address, free_at, former_device) SELECT n, n, 'dev-' || n FROM numbers WHERE n > 1000",
    (
        "INSERT INTO reenroll_window (device, generation, opened_by, opened_at, expires_at, compromised,"
        " closed_at, outcome) SELECT 'dev-' || n, 1, 'a', 0, n, FALSE, CASE WHEN n > 1000 THEN 1 END,"
        " CASE WHEN n > 1000 THEN 'replaced' END FROM numbers"
    ),
    (
        "INSERT INTO link (device, system, device_state, wanted, foreign_object, next_at, hints, attempts)"
        " SELECT 'dev-' || n, s.system, 'active', 'present', FALSE, n, 0, 0"
        " FROM numbers, (SELECT 'thingsboard' AS system UNION SELECT 'wireguard' UNION SELECT 'hawkbit') AS s"
    ),
]
VALUES: dict[str, Any] = {
    **dict.fromkeys(("now", "until", "deadline", "free_at", "next_at", "settled_at", "at", "address"), 5),
    **dict.fromkeys(("not_before", "not_after", "epoch", "generation", "hints", "most", "sequence", "end"), 5),
    **dict.fromkeys(("proven", "taken", "foreign_object", "agreed"), True),
    "system": "thingsboard",
    "wanted": "present",
    "state": "current",
    "device_state": "active",
    "kind": "first",
}


class Some(dict[str, Any]):
    """A value for every parameter."""

    def __missing__(self, name: str) -> Any:
        return VALUES.get(name, "dev-7")


@pytest.fixture
async def full(registry: RegistryStore) -> RegistryStore:
    with registry.engine.begin() as connection:
        postgresql = connection.dialect.name == "postgresql"
        series = (
            f"SELECT n FROM generate_series(1, {DEVICES}) AS n"
            if postgresql
            else f"WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < {DEVICES}) SELECT n FROM r"
        )
        connection.exec_driver_sql(f"CREATE TEMPORARY TABLE numbers AS {series}")
        for statement in FILL:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("DROP TABLE numbers")
        if postgresql:
            connection.exec_driver_sql("ANALYZE")
    return registry


def postgresql_scans(plan: dict[str, Any]) -> list[str]:
    """Name every node that reads a whole table, or a whole index that is not a partial one for that purpose."""
    found = [scan for child in plan.get("Plans", ()) for scan in postgresql_scans(child)]
    kind = plan["Node Type"]
    whole_index = kind in {"Index Scan", "Index Only Scan"} and "Index Cond" not in plan
    if kind == "Seq Scan" or (whole_index and not re.search("deadline|abandoned|superseded", plan["Index Name"])):
        found.append(f"{kind} on {plan.get('Relation Name')}")
    return found


def scans(registry: RegistryStore, sqlite: str, postgresql: str, values: Any) -> list[str]:
    with registry.engine.connect() as connection, connection.begin():
        driver = connection.connection.driver_connection
        if connection.dialect.name == "sqlite":
            plan = [row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {sqlite}", values)]
            return [step for step in plan if SQLITE_SCAN.match(step)]
        # Where a table is small the planner may like to walk it; what matters is whether it has to.
        driver.execute("SET LOCAL enable_seqscan = off")
        with psycopg.ClientCursor(driver) as cursor:
            (plan,) = cursor.execute(f"EXPLAIN (FORMAT JSON) {postgresql}", values).fetchone()
        return postgresql_scans(plan[0]["Plan"])


async def test_no_hot_statement_walks_a_table(full: RegistryStore) -> None:
    found = {name: scans(full, one.sqlite, one.postgresql, Some()) for name, one in HOT.items()}
    assert {name: steps for name, steps in found.items() if steps} == {}
    assert len(found) > 30


async def test_the_test_above_would_notice_a_walk(full: RegistryStore) -> None:
    walk = "SELECT 1 FROM device WHERE name = 'x'"
    assert scans(full, walk, walk, {}) != []


async def test_no_operators_statement_walks_a_table(full: RegistryStore, fleet: Any) -> None:
    """Everything but listing: what the operations really send is caught and explained."""
    sent: list[tuple[str, Any]] = []

    def catch(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: Any) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE")):
            sent.append((statement, parameters))

    one_row = ("FROM installation", "FROM issuer")
    event.listen(full.engine, "before_cursor_execute", catch)
    await live(full, fleet)
    event.remove(full.engine, "before_cursor_execute", catch)
    assert len(sent) > 15
    found = {
        statement: scans(full, statement, statement, values)
        for statement, values in sent
        if not any(row in statement for row in one_row)
    }
    assert {statement: steps for statement, steps in found.items() if steps} == {}


async def live(registry: RegistryStore, fleet: Any) -> None:
    """Walk one device through a life."""
    await fleet.begin(registry, fleet.request("left"))
    await registry.write(lambda t: t.register(Registration(fleet.id("cam-1"), fleet.now)))
    await fleet.enroll(registry, "cam-1")
    window = Window(fleet.id("cam-1"), 1, "a", fleet.now, fleet.later, None, None, compromised=False)
    await registry.write(lambda t: t.open_window(window))
    await fleet.begin(registry, fleet.request("cam-1", key="2", wg="2"), kind=Kind.REENROLL, generation=2)
    for claim in await registry.write(lambda t: t.claim_due(System.WIREGUARD, "me", fleet.now, fleet.later, 5)):
        await registry.write(lambda t, c=claim: t.settle(c, Settlement(fleet.now, None), fleet.now))
    await registry.write(lambda t: t.sweep_attempts(fleet.later, 10))
    device = fleet.id("cam-1")
    await registry.write(
        lambda t: [t.picture(device), t.window(device, fleet.now), t.links(device), t.lease(device), t.installation()]
    )
    await registry.write(lambda t: t.tombstone(device, fleet.now))
    picture = await registry.read(lambda t: t.picture(device))
    await registry.write(lambda t: t.mark_revoked(picture.revoking, fleet.now))
    await registry.write(lambda t: t.free_lease(device, fleet.now))
    await registry.write(lambda t: t.reinstate(device, fleet.now))
    await registry.write(lambda t: t.abandon(fleet.id("left"), fleet.now))
    await registry.write(lambda t: t.sweep_attempts(fleet.later, 10))
