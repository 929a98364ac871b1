"""Where the service is and which key to use: options, then the environment, then the local stack's own file."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from openai import OpenAI

_STACK = Path(".cope/stack/stack.json")


class NoAddress(Exception):
    """Nothing says where the service is. The message says how to."""


@dataclass(frozen=True, slots=True)
class Address:
    """A base URL ending in `/v1`, a project's key and, where there is one, the operator's."""

    base_url: str
    api_key: str
    admin_key: str | None

    def client(self, *, admin: bool = False) -> OpenAI:
        """The stock client. Raises `NoAddress` if the operator's key is needed and missing."""
        if admin and not self.admin_key:
            raise NoAddress("this needs the admin key: give --admin-key or set COPE_ADMIN_KEY")
        return OpenAI(base_url=self.base_url, api_key=self.admin_key if admin else self.api_key, max_retries=2)


def find_address(base_url: str | None, api_key: str | None, admin_key: str | None) -> Address:
    """Options first, then COPE_BASE_URL and friends, then OPENAI_BASE_URL, then a local stack in this directory.

    Raises `NoAddress`.
    """
    stack: dict[str, str] = {}
    if _STACK.exists():
        stack = json.loads(_STACK.read_text())
    url = base_url or os.environ.get("COPE_BASE_URL") or os.environ.get("OPENAI_BASE_URL") or stack.get("base_url")
    key = api_key or os.environ.get("COPE_API_KEY") or os.environ.get("OPENAI_API_KEY") or stack.get("api_key")
    admin = admin_key or os.environ.get("COPE_ADMIN_KEY") or stack.get("admin_key")
    if not url or not (key or admin):
        raise NoAddress("no service found: start one with ./run up, or set COPE_BASE_URL and COPE_API_KEY")
    return Address(url, key or "", admin)
