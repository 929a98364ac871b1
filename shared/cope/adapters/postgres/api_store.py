"""`ApiStore` on Postgres, as role `cope_api`: row-level security shows each transaction one project's rows, or none."""

from cope.adapters.postgres.api_audits import ApiAudits
from cope.adapters.postgres.api_ledger import ApiLedger
from cope.adapters.postgres.api_prices import ApiPrices
from cope.adapters.postgres.api_spend import ApiSpend
from cope.adapters.postgres.api_webhooks import ENDPOINT, ApiWebhooks
from cope.adapters.postgres.database import Database, fetch, fetch_one
from cope.adapters.postgres.migrate import SCHEMA
from cope.adapters.postgres.paging import page_of
from cope.adapters.postgres.records import endpoint_of, event_of
from cope.adapters.postgres.sealing import Sealer
from cope.core.errors import StoreUnavailable
from cope.core.ids import BatchId, EndpointId, ProjectId
from cope.core.records import Event, WebhookEndpoint
from cope.ports.store import Page


class PostgresApiStore(ApiPrices, ApiAudits, ApiSpend, ApiLedger, ApiWebhooks):
    """One project at a time. `secret_key` is the Fernet key that webhook secrets are sealed with.

    Raises `StoreUnavailable` where the database does not answer. One instance per process and event loop.
    """

    def __init__(self, url: str, *, secret_key: str, min_size: int = 1, max_size: int = 4) -> None:
        super().__init__(Database(url, min_size=min_size, max_size=max_size, name="cope-api"), Sealer(secret_key))

    async def open(self) -> None:
        """Start the connection pool."""
        await self._db.open()

    async def aclose(self) -> None:
        """Close connections."""
        await self._db.close()

    async def ping(self) -> None:
        """Raises `StoreUnavailable` unless the database answers and its schema is this version's."""
        async with self._db.connection() as conn:
            row = await fetch_one(conn, "SELECT version_num FROM alembic_version")
        if row is None or row["version_num"] != SCHEMA:
            found = "none" if row is None else row["version_num"]
            raise StoreUnavailable(f"the database's schema is {found}, this version needs {SCHEMA}: run the migrations")

    # ---- webhook endpoints -----------------------------------------------------------------------------------------

    async def create_endpoint(self, endpoint: WebhookEndpoint) -> WebhookEndpoint:
        """The row as stored."""
        async with self._db.transaction(project=endpoint.project_id) as conn:
            await conn.execute(
                """
                INSERT INTO webhook_endpoints (id, project_id, name, url, event_types, created_at, updated_at, secret,
                                               disabled_at, concurrency)
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
                """,
                [
                    endpoint.id,
                    endpoint.project_id,
                    endpoint.name,
                    endpoint.url,
                    list(endpoint.event_types),
                    endpoint.created_at,
                    endpoint.updated_at,
                    self._sealer.seal(endpoint.secret),
                    endpoint.disabled_at,
                    endpoint.concurrency,
                ],
            )
        return endpoint

    async def list_endpoints(
        self, project_id: ProjectId, *, after: EndpointId | None, limit: int
    ) -> Page[WebhookEndpoint]:
        """Oldest first."""
        async with self._db.transaction(project=project_id) as conn:
            rows = await fetch(
                conn,
                f"{ENDPOINT} WHERE e.project_id = %s AND (%s::text IS NULL OR e.id > %s) ORDER BY e.id LIMIT %s",
                [project_id, after, after, limit + 1],
            )
        return page_of([endpoint_of(row, self._sealer) for row in rows], limit)

    async def get_endpoint(self, project_id: ProjectId, endpoint_id: EndpointId) -> WebhookEndpoint | None:
        """This project's endpoint, or None."""
        async with self._db.transaction(project=project_id) as conn:
            return await self._endpoint(conn, project_id, endpoint_id)

    async def delete_endpoint(self, project_id: ProjectId, endpoint_id: EndpointId) -> bool:
        """Deliveries still due to it are dropped with it."""
        async with self._db.transaction(project=project_id) as conn:
            deleted = await conn.execute(
                "DELETE FROM webhook_endpoints WHERE id = %s AND project_id = %s", [endpoint_id, project_id]
            )
            await conn.execute(
                """
                UPDATE deliveries SET state = 'dead', finished_at = now()
                WHERE endpoint_id = %s AND state = 'pending'
                """,
                [endpoint_id],
            )
            await conn.execute("DELETE FROM webhook_troubles WHERE lane = %s", [endpoint_id])
        return deleted.rowcount == 1

    # ---- events ----------------------------------------------------------------------------------------------------

    async def list_events(
        self, project_id: ProjectId, *, after: int, limit: int, batch_id: BatchId | None
    ) -> tuple[Event, ...]:
        """Sequenced events beyond offset `after` (0: from the first)."""
        async with self._db.transaction(project=project_id) as conn:
            rows = await fetch(
                conn,
                """
                SELECT * FROM events WHERE project_id = %(project)s AND "offset" > %(after)s
                  AND (%(batch)s::text IS NULL OR batch_id = %(batch)s) ORDER BY "offset" LIMIT %(limit)s
                """,
                {"project": project_id, "after": after, "batch": batch_id, "limit": limit},
            )
        return tuple(event_of(row) for row in rows)
