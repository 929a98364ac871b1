"""How long reports over a large ledger take, and a reconciliation with a large file, on this machine.

Starts a Postgres of its own in a temporary folder, fills it, prints one line a question, and leaves nothing behind::

    python ops/bench/ledger_reports.py [--attempts 300000] [--doubtful 20000]
"""

import argparse
import asyncio
import resource
import shutil
import tempfile
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import psycopg
from cryptography.fernet import Fernet

from cope.adapters.postgres import PostgresApiStore
from cope.adapters.postgres.migrate import API, OWNER, create_roles, upgrade
from cope.adapters.usage_spool import SqliteSpool
from cope.core.ids import ProjectId
from cope.core.ledger import Cut, total_of
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier
from cope.ports.ledger import LedgerScope
from cope.usecases.reconcile import Orders, reconcile
from cope_local.postgres import EmbeddedPostgres

T = TypeVar("T")
_PASSWORD, _DATABASE = "only-for-benchmarks", "cope_bench"
_FILL = """
INSERT INTO projects (id, name, created_at, time_zone, cap, default_kind, webhook_secret)
SELECT 'proj_' || p, 'p', now(), 'Europe/Berlin', NULL, 'math', '' FROM generate_series(0, 9) p;
CREATE TEMP TABLE t AS SELECT n, 'proj_' || n %% 10 AS project, 'batch_' || n %% 500 AS batch,
  'task_' || lpad(n::text, 26, '0') AS task, 'att_' || lpad(n::text, 26, '0') AS id, n < %(doubtful)s AS doubt,
  now() - interval '2 hours' AS at, to_char(now() - interval '2 hours', 'YYYY-MM') AS month
  FROM generate_series(0, %(attempts)s - 1) n;
INSERT INTO attempts (id, task_id, project_id, batch_id, step, model, state, month, price_version, request_id, reserved,
                      cost, created_at, sent_at, settled_at, fence, usage, provider_id)
SELECT id, task, project, batch, 'stage3', 'large', CASE WHEN doubt THEN 'unconfirmed' ELSE 'settled' END, month, 'v1',
  task || '-000001', 9000, CASE WHEN doubt THEN NULL ELSE 4000 END, at, at, at, 1,
  CASE WHEN doubt THEN NULL ELSE ARRAY[800, 0, 200, 0, 1] END, 'chatcmpl-' || n FROM t;
INSERT INTO ledger (at, project_id, month, batch_id, attempt_id, kind, amount, freed, price_version)
SELECT at, project, month, batch, id, 'reserved', 9000, 0, 'v1' FROM t
UNION ALL SELECT at, project, month, batch, id, 'settled', 4000, 9000, 'v1' FROM t WHERE NOT doubt
UNION ALL SELECT at, project, month, batch, id, 'unconfirmed', 9000, 9000, 'v1' FROM t WHERE doubt;
INSERT INTO budgets (project_id, scope, month, spent, unconfirmed)
SELECT project, s.scope, s.month, sum(CASE WHEN doubt THEN 0 ELSE 4000 END), sum(CASE WHEN doubt THEN 9000 ELSE 0 END)
FROM t CROSS JOIN LATERAL (VALUES ('project', t.month), (t.batch, '')) AS s (scope, month) GROUP BY 1, 2, 3;
"""


async def timed(name: str, work: Awaitable[T]) -> T:
    began = time.perf_counter()
    result = await work
    print(f"{time.perf_counter() - began:8.2f} s  {name}", flush=True)
    return result


async def count_lines(store: PostgresApiStore) -> int:
    return sum([len(page) async for page in store.ledger_lines(LedgerScope(), month=None)])


async def settle(store: PostgresApiStore, rows: int, *, apply: bool) -> dict[str, int]:
    spool = SqliteSpool()
    await spool.write(b"request_id,provider_id,prompt_tokens,completion_tokens,cost_usd\n")
    for start in range(0, rows, 10_000):
        text = "".join(
            f"task_{n:026d}-000001-000x,chatcmpl-{n},800,200,0.000004\n"
            for n in range(start, min(rows, start + 10_000))
        )
        await spool.write(text.encode())
    large = ModelEntry("large", "l", "http://localhost/v1", Tier.LARGE, "instruct", 4096, price_id="p")
    found = await reconcile(
        store, spool, catalog=ModelCatalog({"large": large}, "large", "large", BUILT_IN), prices=PriceTable([]),
        now=datetime.now(UTC), orders=Orders(apply=apply),
    )  # fmt: skip
    await spool.aclose()
    return {verdict.value: tally.attempts for verdict, tally in found.tallies.items()}


async def ask(url: str, attempts: int, doubtful: int) -> None:
    store = PostgresApiStore(url, secret_key=Fernet.generate_key().decode())
    await store.open()
    one = LedgerScope(ProjectId("proj_3"))
    everything = LedgerScope()
    for name, scope, cuts in (
        ("costs of all projects by day", everything, {Cut.DAY}),
        ("costs of all projects by project, model and stage", everything, {Cut.PROJECT, Cut.MODEL, Cut.STAGE}),
        ("costs of all projects by batch", everything, {Cut.BATCH}),
        ("costs of one project (a tenth) by day", one, {Cut.DAY}),
    ):
        rows = await timed(name, store.costs(scope, first=None, last=None, cuts=frozenset(cuts)))
        assert total_of(rows) == 4000 * (attempts - doubtful) // (1 if scope is everything else 10)
    assert await timed("ledger check of all projects", store.ledger_difference(None)) == ()
    assert await timed("ledger check of one project", store.ledger_difference(ProjectId("proj_3"))) == ()
    await timed("metrics without the check", store.standings())
    await timed("the oldest 100 in doubt", store.unconfirmed(None, after=None, limit=100))
    lines = await timed("every line of the ledger, in pages", count_lines(store))
    print(f"{'':10}  ({lines} lines)")
    print(await timed(f"reconcile a file of {attempts} rows, dry", settle(store, attempts, apply=False)))
    print(await timed(f"the same for good: {doubtful} settled", settle(store, attempts, apply=True)))
    assert await store.ledger_difference(None) == ()
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")
    await store.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, default=300_000)
    parser.add_argument("--doubtful", type=int, default=20_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cope-bench-"))
    folder.chmod(0o755)
    try:
        with EmbeddedPostgres(folder / "postgres", password=_PASSWORD) as cluster:
            create_roles(
                cluster.url(), owner_password=_PASSWORD, api_password=_PASSWORD, worker_password=_PASSWORD,
                database=_DATABASE,
            )  # fmt: skip
            upgrade(cluster.url(_DATABASE, OWNER, _PASSWORD))
            with psycopg.connect(cluster.url(_DATABASE), autocommit=True) as conn:
                sizes = {"attempts": options.attempts, "doubtful": options.doubtful}
                conn.execute(psycopg.ClientCursor(conn).mogrify(_FILL, sizes))
                conn.execute("ANALYZE")
            asyncio.run(ask(cluster.url(_DATABASE, API, _PASSWORD), options.attempts, options.doubtful))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
