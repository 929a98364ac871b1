"""API keys with scopes, an expiry and rotation; the policy that finds a key by its secret reads, and no more."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# Existing keys may do all that they could before.
FORWARD = """
ALTER TABLE api_keys
  ADD COLUMN scopes text[] NOT NULL DEFAULT '{all}',
  ADD COLUMN expires_at timestamptz,
  ADD COLUMN rotated_at timestamptz,
  ADD COLUMN previous_hash bytea,
  ADD COLUMN previous_until timestamptz,
  ADD CONSTRAINT api_keys_scopes_check
    CHECK (scopes <> '{}' AND scopes <@ ARRAY['all', 'read', 'submit', 'files', 'webhooks', 'spend']),
  ADD CONSTRAINT api_keys_previous_check CHECK ((previous_hash IS NULL) = (previous_until IS NULL));
CREATE UNIQUE INDEX api_keys_previous ON api_keys (previous_hash) WHERE previous_hash IS NOT NULL;

DROP POLICY known_secret ON api_keys;
CREATE POLICY known_secret ON api_keys FOR SELECT USING (
  encode(hash, 'hex') = current_setting('cope.key_hash', true)
  OR encode(previous_hash, 'hex') = current_setting('cope.key_hash', true));
"""

BACK = """
DROP POLICY known_secret ON api_keys;
CREATE POLICY known_secret ON api_keys USING (encode(hash, 'hex') = current_setting('cope.key_hash', true));
DROP INDEX api_keys_previous;
ALTER TABLE api_keys
  DROP COLUMN scopes, DROP COLUMN expires_at, DROP COLUMN rotated_at, DROP COLUMN previous_hash,
  DROP COLUMN previous_until;
"""


def upgrade() -> None:
    """No row is rewritten: a constant default is kept in the catalogue."""
    op.execute(FORWARD)


def downgrade() -> None:
    """Keys of few scopes would be allowed everything again, so they are revoked; so are those that have expired."""
    op.execute("ALTER TABLE api_keys NO FORCE ROW LEVEL SECURITY")
    op.execute(
        "UPDATE api_keys SET revoked_at = now() WHERE revoked_at IS NULL AND (scopes <> '{all}' OR expires_at <= now())"
    )
    op.execute("ALTER TABLE api_keys FORCE ROW LEVEL SECURITY")
    op.execute(BACK)
