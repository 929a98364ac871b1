"""Batches whose answers can't be read wait before paid calls; one SDK retry claims one batch."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Batches that exist go on as they are: nobody watched them from their first line."""
    op.execute("ALTER TABLE projects ADD COLUMN pause_unparsable boolean NOT NULL DEFAULT true")
    op.execute("""
        ALTER TABLE batches
          ADD COLUMN judged integer NOT NULL DEFAULT 0,
          ADD COLUMN parsed integer NOT NULL DEFAULT 0,
          ADD COLUMN parse_watch text NOT NULL DEFAULT 'passed',
          ADD COLUMN paused_at timestamptz,
          ADD COLUMN retries integer NOT NULL DEFAULT 0,
          ADD CONSTRAINT batches_parse_watch_check CHECK (parse_watch IN ('watching', 'passed', 'paused'))
    """)
    op.execute("ALTER TABLE batches ALTER COLUMN parse_watch SET DEFAULT 'watching'")


def downgrade() -> None:
    """Paused batches go on."""
    op.execute("""
        ALTER TABLE batches DROP COLUMN judged, DROP COLUMN parsed, DROP COLUMN parse_watch, DROP COLUMN paused_at,
          DROP COLUMN retries
    """)
    op.execute("ALTER TABLE projects DROP COLUMN pause_unparsable")
