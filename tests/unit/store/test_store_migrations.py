"""One schema, two ways to it: the migrations and the models must agree; other versions are refused."""

from __future__ import annotations

import re
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from bridge.errors import Misconfigured, StoreUnavailable
from bridge.store.lock import FolderLock
from bridge.store.migrate import configuration
from bridge.store.migrations import HEAD
from bridge.store.open import RegistryStore, open_registry
from bridge.store.schema import METADATA


async def test_the_migrations_lead_to_the_models(registry: RegistryStore) -> None:
    with registry.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


async def test_constraints_and_conditions_of_indexes_are_the_models_too(tmp_path: Path, fleet: Any) -> None:
    """Alembic compares neither CHECKs nor an index's condition, so the text itself is compared."""
    store = await open_registry(
        tmp_path / "migrated.db", systems=frozenset(), quarantine=fleet.quarantine, migrate=True
    )
    await store.close()
    engine = create_engine(f"sqlite:///{tmp_path / 'models.db'}")
    METADATA.create_all(engine)
    engine.dispose()
    assert schema_of(tmp_path / "migrated.db") == schema_of(tmp_path / "models.db")


def schema_of(path: Path) -> dict[str, list[str]]:
    """Every table's and index's words, whatever their order within."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {
        name: sorted(part.strip().rstrip(",") for part in re.split(r",?\n", sql))
        for name, sql in rows
        if name != "alembic_version"
    }


async def test_the_version_that_starts_compare_is_the_newest_step(registry: RegistryStore) -> None:
    with registry.engine.connect() as connection:
        assert ScriptDirectory.from_config(configuration(connection)).get_current_head() == HEAD


async def test_opening_twice_changes_nothing(opened: Any, fleet: Any) -> None:
    first = await opened()
    await fleet.begin(first, fleet.request("cam-1", wg=None))
    second = await opened(migrate=False)
    assert await second.read(lambda t: t.device(fleet.id("cam-1"))) is not None


@pytest.mark.parametrize("migrate", [True, False])
async def test_another_version_is_refused(opened: Any, migrate: bool) -> None:
    store = await opened()
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Misconfigured, match="schema 9999"):
        await opened(migrate=migrate)


async def test_without_leave_to_migrate_an_empty_database_is_refused(opened: Any) -> None:
    with pytest.raises(Misconfigured, match="no registry"):
        await opened(migrate=False)


@pytest.mark.parametrize("url", ["mysql://host/db", "sqlite://", "://", "redis://:secret@host"])
async def test_other_databases_are_refused_without_their_secrets(url: str, fleet: Any) -> None:
    with pytest.raises(Misconfigured, match="BRIDGE_DATABASE_URL") as caught:
        await open_registry(url, systems=frozenset(), quarantine=fleet.quarantine, migrate=True)
    assert "secret" not in str(caught.value)


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path, fleet: Any) -> None:
    with pytest.raises(Misconfigured, match="missing"):
        await open_registry(
            tmp_path / "missing" / "r.db", systems=frozenset(), quarantine=fleet.quarantine, migrate=True
        )


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path, fleet: Any) -> None:
    path = tmp_path / "r.db"
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(StoreUnavailable, match="damaged"):
        await open_registry(path, systems=frozenset(), quarantine=fleet.quarantine, migrate=True)


async def test_database_files_are_for_their_owner_only(tmp_path: Path, fleet: Any) -> None:
    path = tmp_path / "r.db"
    path.touch(mode=0o644)
    store = await open_registry(path, systems=frozenset(), quarantine=fleet.quarantine, migrate=True)
    files = [tmp_path / name for name in ("r.db", "r.db-wal", "r.db-shm")]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.read(lambda t: t.installation())


def test_a_folder_has_one_server(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as lock:
        with pytest.raises(Misconfigured, match=r"pid \d+"):
            FolderLock(tmp_path).acquire()
        assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600
        lock.release()
        with FolderLock(tmp_path):
            pass


def test_a_lock_in_a_missing_folder_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="BRIDGE_DATA"):
        FolderLock(tmp_path / "missing").acquire()
