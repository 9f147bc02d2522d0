"""Brings a database to the schema of this code, or says why it cannot be used.

There is no way back: an older program refuses a newer database instead of guessing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, Engine, inspect, text

from bridge.errors import Misconfigured
from bridge.store.faults import DATABASE_ERRORS, unavailable
from bridge.store.migrations import HEAD

if TYPE_CHECKING:
    from alembic.config import Config

_ADVISORY_LOCK: Final = 0x10B71D6E
"""Any number that all replicas agree on."""


def current_version(connection: Connection) -> str | None:
    """Return the version the database is at; ``None`` if it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return version


def prepare(engine: Engine, *, migrate: bool) -> None:
    """Check the schema's version and, where allowed, bring the database to ours in one transaction.

    :raises Misconfigured: the database is of another version, or empty, and must not be migrated by this process.
    :raises bridge.errors.StoreUnavailable: it does not answer.
    """
    try:
        with engine.connect() as connection, connection.begin():
            if migrate and connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            version = current_version(connection)
            if version == HEAD:
                return
            if not migrate:
                raise Misconfigured(_advice(version))
            _upgrade(connection, version)
    except DATABASE_ERRORS as e:
        raise unavailable(e) from e


def _upgrade(connection: Connection, version: str | None) -> None:
    # Imported here: a start that has nothing to migrate is a tenth of a second shorter.
    from alembic import command  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = configuration(connection)
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise Misconfigured(_advice(version))
    command.upgrade(config, "head")


def configuration(connection: Connection) -> Config:
    """Return Alembic's configuration for steps on ``connection``, inside its transaction."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "bridge.store:migrations")
    config.attributes["connection"] = connection
    return config


def _advice(version: str | None) -> str:
    if version is None:
        return (
            "there is no registry in this database yet; start `iot-bridge serve` on it first"
            " (BRIDGE_DATA, BRIDGE_DATABASE_URL)"
        )
    return (
        f"the database has schema {version}, this program speaks {HEAD}; start the newer `iot-bridge serve` on it,"
        " or use the program that wrote it (BRIDGE_DATA, BRIDGE_DATABASE_URL)"
    )
