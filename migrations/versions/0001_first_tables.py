"""Projects, batches, tasks, steps, money, events and webhooks, with three roles and row-level security.

No foreign key hangs on the hot tables (tasks, steps, attempts, ledger, events): each would cost a look-up per row at
COPY and per commit. Their rows are written only by this store and are never orphaned by it.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE projects (
  id text COLLATE "C" PRIMARY KEY,
  name text NOT NULL,
  created_at timestamptz NOT NULL,
  time_zone text NOT NULL,
  cap bigint,
  default_kind text NOT NULL,
  paused boolean NOT NULL DEFAULT false,
  archived_at timestamptz,
  webhook_secret text NOT NULL,
  CONSTRAINT projects_cap_check CHECK (cap >= 0)
);

CREATE TABLE api_keys (
  id text COLLATE "C" PRIMARY KEY,
  project_id text COLLATE "C" NOT NULL REFERENCES projects (id),
  name text NOT NULL,
  hash bytea NOT NULL,
  hint text NOT NULL,
  created_at timestamptz NOT NULL,
  revoked_at timestamptz,
  last_used_at timestamptz
);
CREATE UNIQUE INDEX api_keys_hash ON api_keys (hash);
CREATE INDEX api_keys_project ON api_keys (project_id, id);

CREATE TABLE files (
  id text COLLATE "C" PRIMARY KEY,
  project_id text COLLATE "C" NOT NULL REFERENCES projects (id),
  filename text NOT NULL,
  purpose text NOT NULL,
  bytes bigint NOT NULL,
  lines bigint,
  sha256 text NOT NULL,
  created_at timestamptz NOT NULL,
  expires_at timestamptz
);
CREATE INDEX files_project ON files (project_id, id);

CREATE TABLE policies (
  id text COLLATE "C" PRIMARY KEY,
  spec text NOT NULL
);

CREATE TABLE batches (
  id text COLLATE "C" PRIMARY KEY,
  project_id text COLLATE "C" NOT NULL REFERENCES projects (id),
  key_id text COLLATE "C",
  endpoint text NOT NULL,
  input_file_id text COLLATE "C" NOT NULL,
  completion_window text NOT NULL,
  status text NOT NULL,
  created_at timestamptz NOT NULL,
  defaults text NOT NULL,
  metadata text,
  webhook_url text,
  model text,
  output_file_id text COLLATE "C",
  error_file_id text COLLATE "C",
  output_expires_after_s integer,
  errors text NOT NULL DEFAULT '[]',
  in_progress_at timestamptz,
  expires_at timestamptz,
  finalizing_at timestamptz,
  completed_at timestamptz,
  failed_at timestamptz,
  expired_at timestamptz,
  cancelling_at timestamptz,
  cancelled_at timestamptz,
  ending text,
  total integer NOT NULL DEFAULT 0,
  done integer NOT NULL DEFAULT 0,
  failed integer NOT NULL DEFAULT 0,
  stage1 integer NOT NULL DEFAULT 0,
  stage2 integer NOT NULL DEFAULT 0,
  stage3 integer NOT NULL DEFAULT 0,
  held_budget integer NOT NULL DEFAULT 0,
  held_quota integer NOT NULL DEFAULT 0,
  held_paused integer NOT NULL DEFAULT 0,
  held_unparsable integer NOT NULL DEFAULT 0,
  held_since timestamptz,
  spent bigint NOT NULL DEFAULT 0,
  prompt_tokens bigint NOT NULL DEFAULT 0,
  cached_tokens bigint NOT NULL DEFAULT 0,
  completion_tokens bigint NOT NULL DEFAULT 0,
  reasoning_tokens bigint NOT NULL DEFAULT 0,
  body_hash bytea NOT NULL,
  idempotency_key text,
  job_fence integer NOT NULL DEFAULT 0,
  job_until timestamptz,
  counted_at timestamptz
) WITH (fillfactor = 50);
CREATE INDEX batches_project ON batches (project_id, id);
CREATE INDEX batches_body ON batches (project_id, body_hash);
CREATE UNIQUE INDEX batches_idempotency ON batches (project_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX batches_open ON batches (status, id)
  WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling');

CREATE TABLE batch_errors (
  batch_id text COLLATE "C" NOT NULL,
  code text NOT NULL,
  project_id text COLLATE "C" NOT NULL,
  count bigint NOT NULL,
  PRIMARY KEY (batch_id, code)
) WITH (fillfactor = 50);

CREATE TABLE tasks (
  id text COLLATE "C" PRIMARY KEY,
  project_id text COLLATE "C" NOT NULL,
  batch_id text COLLATE "C",
  key_id text COLLATE "C",
  policy_id text COLLATE "C" NOT NULL,
  queue text NOT NULL,
  state text NOT NULL DEFAULT 'ready',
  hold text,
  ending text,
  on_budget text NOT NULL,
  custom_id text,
  turn bigint NOT NULL,
  seed bigint NOT NULL,
  needed bigint,
  not_before timestamptz NOT NULL DEFAULT now(),
  lease_until timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  priority integer NOT NULL,
  line integer NOT NULL,
  fence integer NOT NULL DEFAULT 0,
  tries integer NOT NULL DEFAULT 0,
  crashes integer NOT NULL DEFAULT 0,
  status integer,
  stage smallint,
  accepted boolean,
  lease_owner text,
  body_hash bytea,
  payload text NOT NULL,
  result text,
  error text,
  note text,
  CONSTRAINT tasks_state_check CHECK (state IN ('ready', 'leased', 'held', 'done', 'failed', 'cancelled', 'expired'))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1,
        autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1);
CREATE INDEX tasks_claim ON tasks (queue, priority, turn, id) WHERE state = 'ready';
CREATE INDEX tasks_leased ON tasks (lease_until) WHERE state = 'leased';
CREATE INDEX tasks_held ON tasks (project_id, hold, priority, turn, id) WHERE state = 'held';
CREATE INDEX tasks_needing ON tasks (project_id) WHERE needed IS NOT NULL AND state IN ('ready', 'leased');
CREATE INDEX tasks_batch ON tasks (batch_id, line) WHERE batch_id IS NOT NULL;
CREATE INDEX tasks_live ON tasks (project_id, body_hash) WHERE body_hash IS NOT NULL;

CREATE TABLE steps (
  task_id text COLLATE "C" NOT NULL,
  name text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  data text NOT NULL,
  PRIMARY KEY (task_id, name)
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE attempts (
  id text COLLATE "C" PRIMARY KEY,
  task_id text COLLATE "C" NOT NULL,
  project_id text COLLATE "C" NOT NULL,
  batch_id text COLLATE "C",
  step text NOT NULL,
  model text NOT NULL,
  state text NOT NULL,
  month text NOT NULL,
  price_version text NOT NULL,
  request_id text NOT NULL,
  reserved bigint NOT NULL,
  cost bigint,
  overrun bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  sent_at timestamptz,
  settled_at timestamptz,
  fence integer NOT NULL,
  usage integer[],
  flag text,
  provider_id text,
  answer text,
  CONSTRAINT attempts_state_check CHECK (state IN ('reserved', 'sent', 'settled', 'released', 'unconfirmed')),
  CONSTRAINT attempts_money_check CHECK (reserved >= 0 AND cost >= 0 AND overrun >= 0)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX attempts_task ON attempts (task_id);
CREATE INDEX attempts_open ON attempts (batch_id) INCLUDE (state, reserved)
  WHERE state IN ('reserved', 'sent', 'unconfirmed');

CREATE TABLE ledger (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now(),
  project_id text COLLATE "C" NOT NULL,
  month text NOT NULL,
  batch_id text COLLATE "C",
  task_id text COLLATE "C" NOT NULL,
  attempt_id text COLLATE "C" NOT NULL,
  kind text NOT NULL,
  amount bigint NOT NULL,
  freed bigint NOT NULL,
  price_version text NOT NULL,
  CONSTRAINT ledger_kind_check
    CHECK (kind IN ('reserved', 'settled', 'released', 'unconfirmed', 'late', 'overrun')),
  CONSTRAINT ledger_money_check CHECK (amount >= 0 AND freed >= 0)
);

CREATE TABLE budgets (
  project_id text COLLATE "C" NOT NULL REFERENCES projects (id),
  month text NOT NULL,
  cap bigint,
  ceiling bigint,
  spent bigint NOT NULL DEFAULT 0,
  reserved bigint NOT NULL DEFAULT 0,
  unconfirmed bigint NOT NULL DEFAULT 0,
  overrun bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (project_id, month),
  CONSTRAINT budgets_ceiling_check CHECK (spent + reserved + unconfirmed <= ceiling),
  CONSTRAINT budgets_sums_check CHECK (spent >= 0 AND reserved >= 0 AND unconfirmed >= 0 AND overrun >= 0)
) WITH (fillfactor = 20);

CREATE TABLE prices (
  price_id text NOT NULL,
  version text NOT NULL,
  input_per_mtok bigint NOT NULL,
  cached_input_per_mtok bigint NOT NULL,
  output_per_mtok bigint NOT NULL,
  effective_at timestamptz NOT NULL,
  PRIMARY KEY (price_id, version)
);

CREATE TABLE events (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "offset" bigint,
  id text COLLATE "C" NOT NULL,
  project_id text COLLATE "C" NOT NULL,
  batch_id text COLLATE "C",
  task_id text COLLATE "C",
  type text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  data text NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX events_unsequenced ON events (seq) WHERE "offset" IS NULL;
CREATE UNIQUE INDEX events_offset ON events (project_id, "offset") WHERE "offset" IS NOT NULL;

CREATE TABLE event_head (
  id integer PRIMARY KEY,
  last bigint NOT NULL,
  CONSTRAINT event_head_single CHECK (id = 1)
);
INSERT INTO event_head (id, last) VALUES (1, 0);

CREATE TABLE webhook_endpoints (
  id text COLLATE "C" PRIMARY KEY,
  project_id text COLLATE "C" NOT NULL REFERENCES projects (id),
  name text NOT NULL,
  url text NOT NULL,
  event_types text[] NOT NULL,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  secret text NOT NULL,
  disabled_at timestamptz
);
CREATE INDEX webhook_endpoints_project ON webhook_endpoints (project_id, id);

CREATE TABLE deliveries (
  id text COLLATE "C" PRIMARY KEY,
  project_id text COLLATE "C" NOT NULL,
  event_id text COLLATE "C" NOT NULL,
  endpoint_id text COLLATE "C",
  url text NOT NULL,
  body text NOT NULL,
  attempt integer NOT NULL DEFAULT 0,
  state text NOT NULL DEFAULT 'pending',
  due_at timestamptz NOT NULL DEFAULT now(),
  created_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  status integer,
  error text,
  excerpt text,
  CONSTRAINT deliveries_state_check CHECK (state IN ('pending', 'delivered', 'dead'))
);
CREATE INDEX deliveries_due ON deliveries (due_at, id) WHERE state = 'pending';
CREATE INDEX deliveries_endpoint ON deliveries (endpoint_id);
"""

# lz4 compresses a step ten times faster than the default; a server built without it keeps the default.
COMPRESSION = """
DO $$ BEGIN
  ALTER TABLE steps ALTER COLUMN data SET COMPRESSION lz4;
  ALTER TABLE tasks ALTER COLUMN payload SET COMPRESSION lz4, ALTER COLUMN result SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN NULL;
END $$
"""

PROJECT_TABLES = (
    "api_keys",
    "files",
    "batches",
    "batch_errors",
    "tasks",
    "attempts",
    "ledger",
    "budgets",
    "events",
    "webhook_endpoints",
    "deliveries",
)
SHARED_TABLES = ("policies", "prices", "event_head")
ALL_TABLES = ("projects", *PROJECT_TABLES, "steps", *SHARED_TABLES)

# What the API may touch. A setting that was never made is NULL and NULL is not true: without a project, no row.
RULES = """
CREATE POLICY own_project ON projects USING (id = current_setting('cope.project', true));
CREATE POLICY listed_by_operator ON projects FOR SELECT USING (current_setting('cope.operator', true) = 'on');
CREATE POLICY known_secret ON api_keys USING (encode(hash, 'hex') = current_setting('cope.key_hash', true));
CREATE POLICY own_live_calls ON tasks FOR SELECT
  USING (batch_id IS NULL AND id = ANY (string_to_array(current_setting('cope.live_ids', true), ',')));
ALTER TABLE steps ENABLE ROW LEVEL SECURITY;
ALTER TABLE steps FORCE ROW LEVEL SECURITY;
CREATE POLICY own_project ON steps USING (EXISTS (SELECT FROM tasks WHERE tasks.id = steps.task_id));

GRANT SELECT, INSERT, UPDATE ON projects, api_keys, batches, batch_errors, tasks, budgets TO cope_api;
GRANT SELECT, INSERT, DELETE ON files TO cope_api;
GRANT SELECT, INSERT ON policies, ledger, events TO cope_api;
GRANT SELECT, UPDATE ON attempts, steps TO cope_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_endpoints TO cope_api;
GRANT SELECT, INSERT, UPDATE ON deliveries TO cope_api;
GRANT SELECT ON prices, alembic_version TO cope_api, cope_worker;

GRANT SELECT, INSERT, UPDATE, DELETE ON projects, api_keys, files, policies, batches, batch_errors, tasks, steps,
  attempts, budgets, events, event_head, webhook_endpoints, deliveries TO cope_worker;
GRANT SELECT, INSERT ON ledger, prices TO cope_worker;
"""


def upgrade() -> None:
    """Tables, then who may see which rows. The ledger and prices are append-only: nobody is granted more."""
    op.execute(TABLES)
    op.execute(COMPRESSION)
    for table in PROJECT_TABLES:
        op.execute(f"CREATE POLICY own_project ON {table} USING (project_id = current_setting('cope.project', true))")
    for table in ("projects", *PROJECT_TABLES):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(RULES)


def downgrade() -> None:
    """Back to an empty database; the roles belong to the server and stay."""
    for table in reversed(ALL_TABLES):
        op.execute(f"DROP TABLE {table}")
