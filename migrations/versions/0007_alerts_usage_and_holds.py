"""Spend alerts, spend reported from outside, and holds by hand of one batch.

`budget_holds` remembers what was announced: a row lives as long as something of its scope waits for money.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TABLES = ("spend_alerts", "usage_records", "budget_holds")

TABLES = """
ALTER TABLE batches ADD COLUMN paused boolean NOT NULL DEFAULT false;
CREATE INDEX batches_paused ON batches (id) WHERE paused;
CREATE INDEX projects_paused ON projects (id) WHERE paused;

CREATE TABLE spend_alerts (
  id text COLLATE "C" PRIMARY KEY,
  project_id text COLLATE "C" NOT NULL REFERENCES projects (id),
  kind text NOT NULL,
  threshold bigint,
  recipients text[] NOT NULL,
  subject_prefix text,
  created_at timestamptz NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT now(),
  fired_month text,
  fired_at timestamptz,
  fired_threshold bigint,
  CONSTRAINT spend_alerts_kind_check CHECK (kind IN ('amount', 'percent', 'projected')),
  CONSTRAINT spend_alerts_threshold_check CHECK (threshold > 0 OR kind = 'projected')
);
CREATE INDEX spend_alerts_project ON spend_alerts (project_id, id);

CREATE TABLE usage_records (
  id text COLLATE "C" PRIMARY KEY,
  project_id text COLLATE "C" NOT NULL REFERENCES projects (id),
  key_id text COLLATE "C",
  month text NOT NULL,
  amount bigint NOT NULL,
  occurred_at timestamptz,
  reported_at timestamptz NOT NULL DEFAULT now(),
  model text,
  description text,
  reference text,
  body_hash bytea NOT NULL,
  CONSTRAINT usage_records_amount_check CHECK (amount > 0)
);
CREATE INDEX usage_records_project ON usage_records (project_id, id);
CREATE UNIQUE INDEX usage_records_reference ON usage_records (project_id, reference) WHERE reference IS NOT NULL;

CREATE TABLE budget_holds (
  project_id text COLLATE "C" NOT NULL,
  scope text COLLATE "C" NOT NULL,
  since timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (project_id, scope)
);
"""

# Usage records are append-only, like the ledger.
RULES = """
GRANT SELECT, INSERT, UPDATE, DELETE ON spend_alerts TO cope_api;
GRANT SELECT, UPDATE ON spend_alerts TO cope_worker;
GRANT SELECT, INSERT ON usage_records TO cope_api;
GRANT SELECT ON usage_records TO cope_worker;
GRANT SELECT ON budget_holds TO cope_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON budget_holds TO cope_worker;
"""


def upgrade() -> None:
    """No alert is made for anybody: projects set their own."""
    op.execute(TABLES)
    for table in _TABLES:
        op.execute(f"CREATE POLICY own_project ON {table} USING (project_id = current_setting('cope.project', true))")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(RULES)


def downgrade() -> None:
    """Batches held by hand go on. What was reported stays in the ledger and the budgets."""
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP INDEX projects_paused")
    op.execute("ALTER TABLE batches DROP COLUMN paused")
