"""Webhooks: fair claims by lane, a log of attempts, secrets that overlap, endpoints in trouble.

A lane is what is limited and slowed down together: an endpoint, or for batches' own addresses the host within its
project. `lane` is generated, so that workers of the version before, which know nothing of it, may go on beside new
ones.
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE webhook_endpoints
  ADD COLUMN concurrency integer NOT NULL DEFAULT 16,
  ADD COLUMN disabled_reason text,
  ADD CONSTRAINT webhook_endpoints_concurrency_check CHECK (concurrency BETWEEN 1 AND 64);
UPDATE webhook_endpoints SET disabled_reason = 'gone' WHERE disabled_at IS NOT NULL;

ALTER TABLE deliveries
  ADD COLUMN lane text COLLATE "C" GENERATED ALWAYS AS
    (coalesce(endpoint_id, project_id || ' ' || split_part(url, '/', 3))) STORED,
  ADD COLUMN sending_until timestamptz,
  ADD COLUMN sending_by text,
  ADD COLUMN log jsonb NOT NULL DEFAULT '[]';
CREATE INDEX deliveries_lane ON deliveries (lane, due_at, id) WHERE state = 'pending';
CREATE INDEX deliveries_sending ON deliveries (sending_until) WHERE sending_until IS NOT NULL;
CREATE INDEX deliveries_project ON deliveries (project_id, id);
DROP INDEX deliveries_endpoint;
CREATE INDEX deliveries_endpoint ON deliveries (endpoint_id, id);

CREATE TABLE webhook_old_secrets (
  endpoint_id text COLLATE "C" NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
  project_id text COLLATE "C" NOT NULL,
  secret text NOT NULL,
  until timestamptz NOT NULL,
  PRIMARY KEY (endpoint_id, secret)
);

CREATE TABLE webhook_troubles (
  lane text COLLATE "C" PRIMARY KEY,
  project_id text COLLATE "C" NOT NULL,
  failures integer NOT NULL,
  failing_since timestamptz NOT NULL,
  failed_at timestamptz NOT NULL,
  blocked_until timestamptz,
  status integer,
  error text
);
CREATE INDEX webhook_troubles_project ON webhook_troubles (project_id);

GRANT SELECT, INSERT, DELETE ON webhook_old_secrets TO cope_api;
GRANT SELECT, DELETE ON webhook_troubles TO cope_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_old_secrets, webhook_troubles TO cope_worker;
"""

_PROTECTED = ("webhook_old_secrets", "webhook_troubles")

# What the operator's metrics count, in a SELECT of its own: asked once a query, not once a row.
_OPERATOR = "((SELECT current_setting('cope.operator', true) = 'on'))"
_COUNTED = ("deliveries", "webhook_endpoints", "webhook_troubles")

BACK = """
DROP TABLE webhook_old_secrets;
DROP TABLE webhook_troubles;
DROP INDEX deliveries_endpoint;
DROP INDEX deliveries_project;
ALTER TABLE deliveries DROP COLUMN lane, DROP COLUMN sending_until, DROP COLUMN sending_by, DROP COLUMN log;
CREATE INDEX deliveries_endpoint ON deliveries (endpoint_id);
ALTER TABLE webhook_endpoints DROP COLUMN concurrency, DROP COLUMN disabled_reason;
"""


def upgrade() -> None:
    """No delivery changes its state."""
    op.execute("ALTER TABLE webhook_endpoints NO FORCE ROW LEVEL SECURITY")
    op.execute(TABLES)
    op.execute("ALTER TABLE webhook_endpoints FORCE ROW LEVEL SECURITY")
    for table in _PROTECTED:
        op.execute(f"CREATE POLICY own_project ON {table} USING (project_id = current_setting('cope.project', true))")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    for table in _COUNTED:
        op.execute(f"CREATE POLICY counted_by_operator ON {table} FOR SELECT USING {_OPERATOR}")


def downgrade() -> None:
    """Attempts are forgotten, and secrets that were rotated away end at once."""
    op.execute("DROP POLICY counted_by_operator ON deliveries")
    op.execute("DROP POLICY counted_by_operator ON webhook_endpoints")
    op.execute(BACK)
