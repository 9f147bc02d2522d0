"""Alembic's entry point: runs the steps on the connection that :mod:`bridge.store.migrate` hands over."""

from __future__ import annotations

from alembic import context

from bridge.store.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # SQLite cannot alter most of a table: later steps copy it instead.
    render_as_batch=True,
    # The caller's transaction: all steps or none.
    transactional_ddl=False,
)
context.run_migrations()
