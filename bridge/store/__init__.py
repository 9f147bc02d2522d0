"""The registry's store: SQLModel schema, migrations, transactions on SQLite and PostgreSQL.

The only package that speaks SQL. Rows and database errors never leave it: frozen records of :mod:`bridge.model` and
errors of :mod:`bridge.errors` do. Entered through :func:`bridge.store.open.open_registry`.
"""
