"""A store restored from a backup says so, and keeps every project paused until it is reconciled.

The trigger is the guard: whatever the program, no project can go on while a notice stands.
"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_TABLE = """
CREATE TABLE restores (
  id smallint PRIMARY KEY DEFAULT 1,
  backup_at timestamptz NOT NULL,
  restored_at timestamptz NOT NULL DEFAULT now(),
  reconciled_at timestamptz,
  released_at timestamptz,
  held text[] NOT NULL DEFAULT '{}',
  CONSTRAINT restores_one_check CHECK (id = 1)
);
"""

_GUARD = """
CREATE FUNCTION keep_restored_paused() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT NEW.paused AND EXISTS (SELECT FROM restores WHERE released_at IS NULL) THEN
    IF TG_OP = 'INSERT' THEN
      NEW.paused := true;
      UPDATE restores SET held = held || NEW.id;
    ELSE
      RAISE EXCEPTION 'restored_not_reconciled' USING ERRCODE = 'CP001';
    END IF;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER keep_restored_paused BEFORE INSERT OR UPDATE OF paused ON projects
  FOR EACH ROW EXECUTE FUNCTION keep_restored_paused();
"""


def upgrade() -> None:
    """Additive: the code before it never looks here, and the trigger does nothing without a notice."""
    op.execute(_TABLE)
    op.execute(_GUARD)
    op.execute("GRANT SELECT, UPDATE, DELETE ON restores TO cope_api")
    op.execute("GRANT SELECT ON restores TO cope_worker")


def downgrade() -> None:
    """Without the guard."""
    op.execute("DROP TRIGGER keep_restored_paused ON projects")
    op.execute("DROP FUNCTION keep_restored_paused")
    op.execute("DROP TABLE restores")
