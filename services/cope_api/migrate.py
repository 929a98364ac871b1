"""``python -m cope_api.migrate``: roles and schema, once before the processes start. Safe to repeat.

Takes a superuser's address from DATABASE_URL, used for nothing else, and the three roles' own addresses.
"""

import os
import sys
from urllib.parse import urlsplit

from cope.adapters.postgres.migrate import create_roles, upgrade
from cope.core.errors import Misconfigured
from cope.settings import Settings


def main() -> None:
    """Make the roles with the passwords in their addresses, then bring the schema to this version."""
    try:
        settings = Settings()
        superuser = os.environ.get("DATABASE_URL", "")
        if not superuser:
            raise Misconfigured("Set DATABASE_URL to a superuser's address: the roles are made with it.")
        owner = settings.need("owner_database_url")
        passwords = {
            f"{role}_password": urlsplit(settings.need(f"{role}_database_url")).password or ""
            for role in ("owner", "api", "worker")
        }
    except Misconfigured as wrong:
        sys.stderr.write(f"cope_api.migrate: {wrong}\n")
        raise SystemExit(2) from None
    create_roles(superuser, **passwords, database=urlsplit(owner).path.lstrip("/"))
    upgrade(owner)


if __name__ == "__main__":
    main()
