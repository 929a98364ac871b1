"""API keys over HTTP and by command line: scopes, expiry, rotation, revocation; the operator's own keys."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from openai import OpenAI
from pydantic import SecretStr, ValidationError
from typer.testing import CliRunner, Result

from cope.adapters.memory import MemoryStore
from cope.core.key_scopes import KeyScope
from cope.settings import Settings
from cope_api.app import create_app
from cope_api.context import KEY_CACHE_S, Gate
from cope_api.scopes import is_listed, needed
from cope_cli.main import app
from tests.api import test_api, test_spend
from tests.api.serving import serving
from tests.api.test_api import ADMIN, Served, send
from tests.api.test_spend import AS_ADMIN
from tests.attacks.place import routes_of

served = test_api.served
project = test_spend.project
Cope = Callable[..., Result]


def made(served: Served, project: str, **cope: object) -> tuple[str, str]:
    """(id, secret) of a new key."""
    body = json.dumps({"name": "k", **({"cope": cope} if cope else {})}).encode()
    status, told, headers = send(served, f"/organization/projects/{project}/service_accounts", body, headers=AS_ADMIN)
    assert status == 200, told
    assert headers["cache-control"] == "no-store"
    return str(told["id"]), str(told["api_key"]["value"])  # type: ignore[index]


def status_of(served: Served, secret: str, path: str = "/files", *, method: str = "GET") -> int:
    body = None if method == "GET" else b"{}"
    return send(served, path, body, method=method, headers={"authorization": f"Bearer {secret}"})[0]


def keys_path(project: str, key: str = "", action: str = "") -> str:
    return f"/organization/projects/{project}/api_keys" + (f"/{key}" if key else "") + (f"/{action}" if action else "")


def test_a_key_of_few_scopes_does_these_and_is_refused_the_rest_by_name(served: Served, project: str):
    _, secret = made(served, project, scopes=["read", "webhooks"])

    assert status_of(served, secret) == 200
    assert status_of(served, secret, "/webhook_endpoints") == 200
    assert status_of(served, secret, "/models") == 200
    status, told, _ = send(served, "/batches", b"{}", headers={"authorization": f"Bearer {secret}"})
    assert status == 403
    error = told["error"]
    assert error["code"] == "missing_scope"  # type: ignore[index]
    assert "lacks the scope `submit`, which POST /v1/batches needs (it has: read, webhooks)" in error["message"]  # type: ignore[index]
    with OpenAI(base_url=served.url, api_key=secret, max_retries=0) as client:
        assert client.batches.list().data == []


def test_every_route_of_the_api_has_its_scope_and_what_is_forgotten_needs_them_all(served: Served):
    async def never(_: object) -> object:
        raise AssertionError

    paths = {template for _, template in routes_of(create_app(never))}  # type: ignore[arg-type]
    assert len(paths) > 40
    assert {path for path in paths if path.startswith("/v1/") and not is_listed(path)} == set()
    assert needed("POST", "/v1/a_new_one") == set(KeyScope)
    assert needed("GET", "/v1/filesystem") == set(KeyScope)
    assert needed("GET", "/v1/files/{file_id}/content") == {KeyScope.READ}
    assert needed("DELETE", "/v1/files/{file_id}") == {KeyScope.FILES}
    assert needed("POST", "/v1/batches/{batch_id}/spend_limit") == {KeyScope.SPEND}


def test_keys_are_shown_with_what_they_may_and_never_with_their_secret(served: Served, project: str):
    ends = int(served.parts.clock.now().timestamp()) + 3600
    key, secret = made(served, project, scopes=["spend", "files"], expires_at=ends)
    whole, _ = made(served, project)

    _, one, _ = send(served, keys_path(project, key), method="GET", headers=AS_ADMIN)
    _, page, _ = send(served, keys_path(project), method="GET", headers=AS_ADMIN)

    assert one["cope"] == {
        "status": "active",
        "scopes": ["files", "spend"],
        "expires_at": ends,
        "revoked_at": None,
        "rotated_at": None,
        "previous_secret_until": None,
    }
    assert one["redacted_value"] == f"cope-sk-…{secret[-4:]}"
    assert {row["id"]: row["cope"]["scopes"] for row in page["data"]} == {key: ["files", "spend"], whole: ["all"]}  # type: ignore[attr-defined]
    assert secret not in json.dumps([one, page])
    assert send(served, keys_path(project, "key_none"), method="GET", headers=AS_ADMIN)[0] == 404


@pytest.mark.parametrize(
    ("cope", "param"),
    [
        ({"scopes": []}, "cope.scopes"),
        ({"scopes": ["launch"]}, "cope.scopes"),
        ({"scopes": "read"}, "cope.scopes"),
        ({"expires_at": 1}, "cope.expires_at"),
        ({"expires_at": "2027-01-01"}, "cope.expires_at"),
        ({"expires_at": 10**12}, "cope.expires_at"),
        ({"expires_at": True}, "cope.expires_at"),
        ({"owner": "me"}, "owner"),
    ],
)
def test_a_key_that_can_not_be_is_not_made(served: Served, project: str, cope: dict[str, object], param: str):
    body = json.dumps({"name": "k", "cope": cope}).encode()
    status, told, _ = send(served, f"/organization/projects/{project}/service_accounts", body, headers=AS_ADMIN)

    assert (status, told["error"]["param"]) == (400, param)  # type: ignore[index]
    assert send(served, keys_path(project), method="GET", headers=AS_ADMIN)[1]["data"] == []


def test_a_rotated_key_keeps_its_id_and_both_secrets_work_while_they_overlap(served: Served, project: str):
    key, old = made(served, project, scopes=["read"])
    assert status_of(served, old) == 200

    status, told, headers = send(
        served, keys_path(project, key, "rotate"), b'{"overlap_seconds": 600}', headers=AS_ADMIN
    )

    new = told["api_key"]["value"]  # type: ignore[index]
    assert (status, told["id"], headers["cache-control"]) == (200, key, "no-store")
    assert told["cope"]["scopes"] == ["read"]  # type: ignore[index]
    assert told["cope"]["previous_secret_until"] - told["cope"]["rotated_at"] == 600  # type: ignore[index]
    assert [status_of(served, secret) for secret in (old, new)] == [200, 200]
    send(served, keys_path(project, key, "rotate"), b'{"overlap_seconds": 0}', headers=AS_ADMIN)
    assert [status_of(served, secret) for secret in (old, new)] == [401, 401]


@pytest.mark.parametrize(
    "body", [b'{"overlap_seconds": -1}', b'{"overlap_seconds": 604801}', b'{"overlap_seconds": "1h"}']
)
def test_a_rotation_that_makes_no_sense_changes_nothing(served: Served, project: str, body: bytes):
    key, secret = made(served, project)

    assert send(served, keys_path(project, key, "rotate"), body, headers=AS_ADMIN)[0] == 400
    assert send(served, keys_path(project, "key_none", "rotate"), b"{}", headers=AS_ADMIN)[0] == 404

    assert status_of(served, secret) == 200


def test_a_revoked_key_works_nowhere_any_more_within_a_second(served: Served, project: str):
    """Another process of the API has seen the key a moment before: it may go on for as long as it remembers it."""
    key, secret = made(served, project)
    assert KEY_CACHE_S < 1
    with serving(served.parts) as other_url:
        other = Served(other_url, served.parts)
        assert status_of(other, secret) == 200
        assert send(served, keys_path(project, key), method="DELETE", headers=AS_ADMIN)[0] == 200

        assert status_of(served, secret) == 401  # at once where it was revoked
        time.sleep(KEY_CACHE_S)
        assert status_of(other, secret) == 401
    _, shown, _ = send(served, keys_path(project, key), method="GET", headers=AS_ADMIN)
    assert shown["cope"]["status"] == "revoked"  # type: ignore[index]


def test_an_archived_projects_keys_end_with_it(served: Served, project: str):
    _, secret = made(served, project)
    assert status_of(served, secret) == 200

    assert send(served, f"/organization/projects/{project}/archive", b"", headers=AS_ADMIN)[0] == 200

    assert status_of(served, secret) == 401


# ---- the operator's keys ---------------------------------------------------------------------------------------------


def settings(admin: str) -> Settings:
    return Settings(admin_key=SecretStr(admin))


def test_no_admin_key_is_kept_only_its_hash():
    old, new = "the-operators-old-key", "the-operators-new-key"
    hashed = hashlib.sha256(b"given-as-its-hash").digest()

    kept = settings(f"{new}, {old},sha256:{hashed.hex()},")

    assert kept.admin_key_hashes == (
        hashlib.sha256(new.encode()).digest(),
        hashlib.sha256(old.encode()).digest(),
        hashed,
    )
    assert old not in kept.admin_key.get_secret_value()
    assert settings("").admin_key_hashes == ()


@pytest.mark.parametrize("wrong", ["short-key", "sha256:1234", "sha256:" + "G" * 64, "the-operators-old-key,x"])
def test_an_admin_key_that_is_none_is_refused_without_being_repeated(wrong: str):
    with pytest.raises(ValidationError) as refused:
        settings(wrong)
    assert wrong not in str(refused.value)
    assert "admin_key" in str(refused.value)


def test_several_admin_keys_work_side_by_side(served: Served):
    parts = served.parts
    several = [ADMIN, "another-operators-key"]
    with serving(replace(parts, settings=settings(",".join(several)))) as url:
        both = Served(url, parts)
        assert [status_of(both, key, "/organization/projects") for key in several] == [200, 200]
        assert status_of(both, "another-operators-kez", "/organization/projects") == 401
        assert status_of(both, ",".join(several), "/organization/projects") == 401
        sha = "sha256:" + hashlib.sha256(ADMIN.encode()).hexdigest()
        assert status_of(both, sha, "/organization/projects") == 401


def test_how_long_a_check_takes_tells_nothing(served: Served, monkeypatch: pytest.MonkeyPatch):
    """Structurally: every key that is presented, right, near or far, is hashed and compared with every admin key by the
    comparison that takes constant time; a project's key is only ever looked up by its hash."""
    compared: list[tuple[bytes, bytes]] = []
    looked_up: list[bytes] = []
    honest = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return honest(a, b)

    class Watched(MemoryStore):
        async def find_key(self, key_hash: bytes) -> None:  # type: ignore[override]
            looked_up.append(key_hash)

    monkeypatch.setattr("cope_api.context.hmac.compare_digest", compare)
    several = settings("first-operators-key,second-operators-key,third-operators-key")
    gate = Gate(replace(served.parts, settings=several, store=Watched()))
    for presented in ("first-operators-key", "third-operators-key", "third-operators-kez", "x", "cope-sk-nothing"):
        compared.clear()
        digest = hashlib.sha256(presented.encode()).digest()
        gate._is_admin(digest)
        assert compared == [(digest, admin) for admin in several.admin_key_hashes]
        assert all(len(a) == len(b) == 32 for a, b in compared)
    with serving(replace(served.parts, settings=several, store=Watched())) as url:
        assert status_of(Served(url, served.parts), "cope-sk-nothing") == 401
    assert looked_up == [hashlib.sha256(b"cope-sk-nothing").digest()]


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def cope(served: Served) -> Cope:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["--base-url", served.url, "--admin-key", ADMIN, "keys", *arguments])

    return run


def test_keys_are_made_rotated_and_revoked_by_command_line(served: Served, project: str, cope: Cope):
    # The server's clock stands still in 2026: a moment after it that is also after this machine's.
    told = cope("create", project, "--name", "ci", "--scope", "read", "--scope", "submit", "--expires", "2027-01-31")
    assert told.exit_code == 0, told.output
    key = json.loads(told.stdout)
    assert key["cope"]["scopes"] == ["read", "submit"]
    assert key["cope"]["expires_at"] == 1801353600
    rotated = json.loads(cope("rotate", project, key["id"], "--overlap", "30m").stdout)
    assert rotated["id"] == key["id"]
    assert [status_of(served, one["api_key"]["value"]) for one in (key, rotated)] == [200, 200]
    assert json.loads(cope("revoke", project, key["id"]).stdout)["deleted"] is True
    listed = json.loads(cope("list", project).stdout)
    assert [row["cope"]["status"] for row in listed["data"]] == ["revoked"]
    for wrong in (("rotate", project, key["id"], "--overlap", "soon"), ("create", project, "--expires", "then")):
        assert cope(*wrong).exit_code == 2
