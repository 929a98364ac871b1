"""Where the service is and which key to use: options, then the environment, then the local stack's own file."""

import json
import os
from pathlib import Path

_STACK = Path(".cope/stack/stack.json")


def find_address(base_url: str | None, api_key: str | None) -> tuple[str, str]:
    """A base URL ending in `/v1` and a project's key. Raises `ValueError` that says how to give them."""
    stack: dict[str, str] = json.loads(_STACK.read_text()) if _STACK.exists() else {}
    url = base_url or os.environ.get("COPE_BASE_URL") or os.environ.get("OPENAI_BASE_URL") or stack.get("base_url")
    key = api_key or os.environ.get("COPE_API_KEY") or os.environ.get("OPENAI_API_KEY") or stack.get("api_key")
    if not url or not key:
        raise ValueError(
            "no service found: start one with ./run up, or give --base-url and --api-key (COPE_BASE_URL, COPE_API_KEY)."
        )
    return url, key
