"""The store of results: append-only, one transaction per result, SQLite by default and PostgreSQL by URL. No torch."""
