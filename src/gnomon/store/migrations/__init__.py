"""The migrations of the store: the same for SQLite and PostgreSQL, run by Alembic through `store.migrate`."""
