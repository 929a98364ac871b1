"""Postgres as the truth: both stores, and the migrations that make their tables.

Lock order everywhere: task → attempt → batch → project → budget. The database's clock is the only one.
"""

from cope.adapters.postgres.api_store import PostgresApiStore
from cope.adapters.postgres.worker_store import PostgresWorkerStore

__all__ = ["PostgresApiStore", "PostgresWorkerStore"]
