"""Dry runs: a batch that only quotes has a row of its own."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Batches that exist are real ones: they have no row here."""
    op.execute("""
        CREATE TABLE quotes (
          batch_id text COLLATE "C" PRIMARY KEY,
          project_id text COLLATE "C" NOT NULL,
          pilot_lines integer NOT NULL,
          survey text,
          quote text
        )
    """)
    op.execute("CREATE POLICY own_project ON quotes USING (project_id = current_setting('cope.project', true))")
    op.execute("ALTER TABLE quotes ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE quotes FORCE ROW LEVEL SECURITY")
    op.execute("GRANT SELECT, INSERT ON quotes TO cope_api")
    op.execute("GRANT SELECT, UPDATE ON quotes TO cope_worker")


def downgrade() -> None:
    """Dry runs become batches that have ended without files."""
    op.execute("DROP TABLE quotes")
