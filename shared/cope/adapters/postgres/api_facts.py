"""`ApiStore`'s part for `cope doctor`: what the database says of itself, as the API's own role sees it."""

from cope.adapters.postgres.api_restores import ApiRestores
from cope.adapters.postgres.database import fetch_one
from cope.adapters.postgres.migrate import API, OWNER, SCHEMA, WORKER
from cope.adapters.postgres.worker_store import LEADER_LOCK
from cope.core.doctor import StoreFacts
from cope.core.errors import StoreUnavailable

_FACTS = f"""
SELECT now() AS now, current_setting('server_version_num')::int / 10000 AS server,
  (SELECT version_num FROM alembic_version) AS schema,
  ARRAY(
    SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
      AND EXISTS (SELECT FROM pg_attribute a
                  WHERE a.attrelid = c.oid AND a.attname = 'project_id' AND NOT a.attisdropped)
      AND has_table_privilege('{API}', c.oid, 'SELECT')
    ORDER BY 1
  ) AS unguarded,
  ARRAY(
    SELECT rolname::text FROM pg_roles
    WHERE rolname IN ('{OWNER}', '{API}', '{WORKER}')
      AND (rolsuper OR rolcreatedb OR rolcreaterole OR (rolbypassrls AND rolname <> '{WORKER}'))
    ORDER BY 1
  ) AS loose_roles,
  to_regclass(to_char(now() AT TIME ZONE 'UTC' + interval '1 month', '"ledger_"YYYY_MM')) IS NOT NULL AS ledger_ahead,
  EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
          AND (classid::bigint << 32) | objid::bigint = {LEADER_LOCK}) AS led,
  (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = '{WORKER}') AS workers,
  (SELECT count(*) FROM pg_stat_activity WHERE backend_type IS NULL OR backend_type = 'client backend') AS connections,
  current_setting('max_connections')::int AS max_connections
"""  # noqa: S608 - constants of ours


class ApiFacts(ApiRestores):
    """Catalogs only: no project's rows."""

    async def facts(self) -> StoreFacts:
        """One snapshot."""
        async with self._db.transaction(operator="on") as conn:
            row = await fetch_one(conn, _FACTS)
        if row is None:
            raise StoreUnavailable("the database said nothing")
        return StoreFacts(
            schema=row["schema"],
            wanted_schema=SCHEMA,
            server=row["server"],
            now=row["now"],
            unguarded=tuple(row["unguarded"]),
            loose_roles=tuple(row["loose_roles"]),
            ledger_ahead=row["ledger_ahead"],
            led=row["led"],
            workers=row["workers"],
            connections=row["connections"],
            max_connections=row["max_connections"],
        )
