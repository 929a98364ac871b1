"""Alembic's entry. The connection is handed over by `cope.adapters.postgres.migrate`, which runs as `cope_owner`.

Tables with a project's rows have row-level security *forced*: even their owner sees nothing of them. A migration that
changes data says `ALTER TABLE … NO FORCE ROW LEVEL SECURITY` first and forces it again in the same transaction.
"""

from alembic import context

from cope.adapters.postgres.tables import METADATA

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=METADATA,
    compare_type=True,
    compare_server_default=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
