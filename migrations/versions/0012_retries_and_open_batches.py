"""Batches that take up lines of another, and batches that are open for more lines.

`tasks.retried_in` names the retry that took a line over: each line is taken over at most once. An open batch's lines
are remembered by hash until it ends, so that the same line sent again is the same line.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE batches ADD COLUMN open boolean NOT NULL DEFAULT false;
ALTER TABLE tasks ADD COLUMN retried_in text COLLATE "C";

CREATE TABLE batch_retries (
  batch_id text COLLATE "C" PRIMARY KEY,
  project_id text COLLATE "C" NOT NULL,
  parent_id text COLLATE "C" NOT NULL,
  lines text NOT NULL
);
CREATE INDEX batch_retries_parent ON batch_retries (parent_id, batch_id);

CREATE TABLE appended_lines (
  batch_id text COLLATE "C",
  name bytea,
  project_id text COLLATE "C" NOT NULL,
  digest bytea NOT NULL,
  PRIMARY KEY (batch_id, name)
);
"""

RULES = """
CREATE POLICY own_project ON batch_retries USING (project_id = current_setting('cope.project', true));
CREATE POLICY own_project ON appended_lines USING (project_id = current_setting('cope.project', true));
ALTER TABLE batch_retries ENABLE ROW LEVEL SECURITY;
ALTER TABLE batch_retries FORCE ROW LEVEL SECURITY;
ALTER TABLE appended_lines ENABLE ROW LEVEL SECURITY;
ALTER TABLE appended_lines FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON batch_retries, appended_lines TO cope_api;
GRANT SELECT ON batch_retries TO cope_worker;
GRANT SELECT, DELETE ON appended_lines TO cope_worker;
"""

BACK = """
DROP TABLE appended_lines;
DROP TABLE batch_retries;
ALTER TABLE tasks DROP COLUMN retried_in;
ALTER TABLE batches DROP COLUMN open;
"""


def upgrade() -> None:
    """Batches that exist are sealed, and no retries."""
    op.execute(TABLES)
    op.execute(RULES)


def downgrade() -> None:
    """Open batches end with the lines they have; a retry that has not begun is refused for its missing file."""
    op.execute(BACK)
