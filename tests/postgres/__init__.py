"""What only Postgres can show: migrations, roles, row-level security, and many clients at once."""
