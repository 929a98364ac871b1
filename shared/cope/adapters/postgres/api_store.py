"""`ApiStore` on Postgres, as role `cope_api`: row-level security shows each transaction one project's rows, or none."""

from cope.adapters.postgres.api_audits import ApiAudits
from cope.adapters.postgres.api_events import ApiEvents
from cope.adapters.postgres.api_facts import ApiFacts
from cope.adapters.postgres.api_prices import ApiPrices
from cope.adapters.postgres.api_reading import ApiReading
from cope.adapters.postgres.api_retention import RetentionReading
from cope.adapters.postgres.api_spend import ApiSpend
from cope.adapters.postgres.api_webhooks import ENDPOINT, ApiWebhooks
from cope.adapters.postgres.database import Database, fetch, fetch_one
from cope.adapters.postgres.dead_letters import ApiDeadLetters
from cope.adapters.postgres.event_consumers import ApiEventConsumers
from cope.adapters.postgres.journal import Note, write_notes
from cope.adapters.postgres.migrate import SCHEMA
from cope.adapters.postgres.paging import page_of
from cope.adapters.postgres.records import endpoint_of
from cope.adapters.postgres.sealing import Sealer
from cope.core.errors import StoreUnavailable
from cope.core.ids import EndpointId, ProjectId
from cope.core.records import WebhookEndpoint
from cope.ports.store import Page


class PostgresApiStore(
    ApiPrices,
    ApiAudits,
    ApiSpend,
    ApiReading,
    ApiFacts,
    ApiEvents,
    ApiEventConsumers,
    ApiDeadLetters,
    ApiWebhooks,
    RetentionReading,
):
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
        """Raises `StoreUnavailable` unless the database answers and its schema is this version's or newer."""
        async with self._db.connection() as conn:
            row = await fetch_one(conn, "SELECT version_num FROM alembic_version")
        # A newer one serves too: migrations only add, so that old and new processes work side by side in a roll-out.
        if row is None or row["version_num"] < SCHEMA:
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
            made = Note(endpoint.project_id, "webhook_endpoint.created", data={"id": endpoint.id, "url": endpoint.url})
            await write_notes(conn, [made])
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
            if deleted.rowcount:
                await write_notes(conn, [Note(project_id, "webhook_endpoint.deleted", data={"id": endpoint_id})])
            await conn.execute("DELETE FROM webhook_troubles WHERE lane = %s", [endpoint_id])
        return deleted.rowcount == 1
