"""The limiter's books for when Redis is away: one row for each limit group and account."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Unlogged: after a crash of the server they are empty, and the limiter starts without a burst."""
    op.execute('CREATE UNLOGGED TABLE limit_books (name text COLLATE "C" PRIMARY KEY, state text NOT NULL)')
    op.execute("GRANT SELECT, INSERT, UPDATE ON limit_books TO cope_worker")


def downgrade() -> None:
    """What the providers were asked in the last minute is forgotten."""
    op.execute("DROP TABLE limit_books")
