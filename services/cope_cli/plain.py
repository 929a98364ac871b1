"""Requests whose bodies are streams: large files go up and come down in pieces, with nothing but the standard library.

(The openai client reads whole answers, and its way to send raw bytes differs over the versions that we support.)
"""

import contextlib
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from typing import IO

import typer

from cope_cli.address import Address, NoAddress

REFUSED, UNREACHABLE = 2, 3
_PIECE = 256 * 1024
_TIMEOUT_S = 600


def stream(
    address: Address, path: str, query: Mapping[str, str], *, admin: bool, body: IO[bytes] | None = None
) -> Iterator[bytes]:
    """The answer to a GET, or to a POST of `body` as CSV, in pieces.

    What goes wrong becomes one line and an exit code. Raises `NoAddress` if the operator's key is needed and missing.
    """
    with answer(address, path, query, admin=admin, body=body) as opened:
        while piece := opened.read(_PIECE):
            yield piece


@contextlib.contextmanager
def answer(
    address: Address, path: str, query: Mapping[str, str], *, admin: bool = False, body: IO[bytes] | None = None
) -> Iterator[HTTPResponse]:
    """The open answer, with its headers. Errors as `stream` has them, also while it is read."""
    if admin and not address.admin_key:
        raise NoAddress("this needs the admin key: give --admin-key or set COPE_ADMIN_KEY")
    url = f"{address.base_url.rstrip('/')}{path}?{urllib.parse.urlencode(query)}"
    if not url.startswith(("http://", "https://")):
        raise NoAddress(f"{address.base_url} is no address of a service")
    request = urllib.request.Request(url, data=body, method="GET" if body is None else "POST")  # noqa: S310 - checked
    request.add_header("Authorization", f"Bearer {address.admin_key if admin else address.api_key}")
    if body is not None:
        request.add_header("Content-Type", "text/csv")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as opened:  # noqa: S310 - checked
            yield opened
    except urllib.error.HTTPError as refused:
        with refused:
            _end(_message(refused), REFUSED if refused.code < 500 else UNREACHABLE)
    except (urllib.error.URLError, OSError) as away:
        _end(f"the service can't be reached at {url}: {away}", UNREACHABLE)


def _message(refused: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(refused.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the service answered {refused.code}"


def _end(message: str, code: int) -> None:
    sys.stderr.write(f"cope: {message}\n")
    raise typer.Exit(code)
