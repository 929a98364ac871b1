"""An API on real Postgres with a victim and an attacker in it, spoken to byte by byte: no client library tidies up."""

import contextlib
import http.client
import io
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psycopg
from fastapi import FastAPI
from psycopg import sql
from starlette.routing import BaseRoute, Route

from tests.postgres.conftest import Place as Databases

ADMIN, CANARY = "cope-admin-of-the-attacked", "canary"
OPEN = {"GET /health", "GET /ready", "GET /metrics", "GET /openapi.json", "HEAD /openapi.json", "GET /docs"}
"""What answers without a key, and why: liveness, readiness, counts by status without money, the public description."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error, having checked its shape: OpenAI's four keys and nothing beside them."""
        told = self.json
        assert told.keys() == {"error"}, told
        assert told["error"].keys() == {"message", "type", "param", "code"}, told
        assert isinstance(told["error"]["message"], str)
        assert told["error"]["message"]
        return cast("dict[str, Any]", told["error"])

    def refused(self, *statuses: int) -> dict[str, Any]:
        """The error of a refusal: a 4xx (one of `statuses`, where given) in the error shape, with an id of ours."""
        assert self.status in (statuses or range(400, 500)), (self.status, self.body[:500])
        assert len(self.headers["x-request-id"]) == len("req_") + 32
        return self.error


@dataclass(frozen=True)
class Victim:
    """A project's ids by the names that they have in addresses, and two keys: its own, and the attacker's."""

    ids: Mapping[str, str]
    key: str
    attacker: str
    attacker_project: str


@dataclass(frozen=True)
class Attacked:
    """The served application."""

    port: int
    app: FastAPI
    databases: Databases
    files: Path
    log: io.StringIO
    victim: Victim = field(default_factory=lambda: Victim({}, "", "", ""))

    def send(
        self,
        method: str,
        target: str | bytes,
        body: bytes | None = None,
        *,
        key: str | None = None,
        headers: Iterable[tuple[str | bytes, str | bytes]] = (),
    ) -> Answer:
        """One request; a body comes with its length and as JSON unless `headers` say otherwise."""
        lines: list[tuple[bytes, bytes]] = [(_bytes(name), _bytes(value)) for name, value in headers]
        given = {name.lower() for name, _ in lines}
        usual = [(b"host", b"127.0.0.1"), (b"connection", b"close")]
        if key is not None:
            usual.append((b"authorization", b"Bearer " + key.encode()))
        if body is not None and b"transfer-encoding" not in given:
            usual += [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
        lines = [pair for pair in usual if pair[0] not in given] + lines
        head = b"".join(name + b": " + value + b"\r\n" for name, value in lines)
        return self.raw(method.encode() + b" " + _bytes(target) + b" HTTP/1.1\r\n" + head + b"\r\n" + (body or b""))

    def raw(self, data: bytes, *, timeout_s: float = 20.0) -> Answer:
        """These bytes as they are, and the answer to them."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            connection.sendall(data)
            reply = http.client.HTTPResponse(connection, method=data.partition(b" ")[0].decode("latin-1"))
            with contextlib.closing(reply):
                reply.begin()
                return Answer(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())

    def fill(self, template: str) -> str:
        """A route's template with the victim's ids in it."""
        for name, value in self.victim.ids.items():
            template = template.replace("{" + name + "}", value)
        return template.replace("{name:path}", "cope").replace("{month}", "2026-11")

    def rows(self, project_id: str | None = None) -> dict[str, str]:
        """A fingerprint of every table's rows, or of a project's. When a key was last used does not count."""
        with psycopg.connect(self.databases.superuser) as conn:
            tables = [name for name, own in conn.execute(_TABLES).fetchall() if own or project_id is None]
            where = sql.SQL("" if project_id is None else "WHERE r->>'project_id' = {}").format(project_id)
            each = sql.SQL(
                "SELECT {}, count(*) || ' ' || coalesce(md5(string_agg(r::text, '' ORDER BY r::text)), '')"
                " FROM (SELECT to_jsonb(t) - 'last_used_at' AS r FROM {} t) rows {}"
            )
            queries = [each.format(sql.Literal(name), sql.Identifier(name), where) for name in tables]
            return dict(conn.execute(sql.SQL(" UNION ALL ").join(queries)).fetchall())

    def stored_files(self) -> set[str]:
        """Every file in the file store, unfinished ones too."""
        return {str(path.relative_to(self.files)) for path in self.files.rglob("*") if path.is_file()}


_TABLES = """
SELECT c.relname, EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'project_id')
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY 1
"""


def routes_of(app: FastAPI) -> Iterator[tuple[str, str]]:
    """(method, template) of everything that the application serves."""
    for route in _flat(app.routes):
        for method in sorted(route.methods or ()):
            yield method, route.path


def _flat(routes: Iterable[BaseRoute]) -> Iterator[Route]:
    for route in routes:
        if isinstance(route, Route):
            yield route
        else:  # FastAPI keeps included routers as they are since 0.160 or so
            inner = getattr(route, "original_router", None)
            assert inner is not None, f"{route} is no ordinary route: say here how it is attacked"
            assert not inner.prefix
            yield from _flat(inner.routes)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")
