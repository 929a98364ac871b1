"""Ended tasks found by what was asked of them: the answer pool.

A key of 16 bytes on each task (none on those that keep no texts), and an index over the tasks that are done.
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Additive: the code before it writes no key, and tasks without one are in no pool."""
    op.execute("ALTER TABLE tasks ADD COLUMN pool bytea")
    op.execute("CREATE INDEX tasks_pool ON tasks (project_id, pool, id) WHERE pool IS NOT NULL AND state = 'done'")


def downgrade() -> None:
    """Without the pool."""
    op.execute("DROP INDEX tasks_pool")
    op.execute("ALTER TABLE tasks DROP COLUMN pool")
