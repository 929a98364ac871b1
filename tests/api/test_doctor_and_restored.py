"""`cope doctor` and a restored store, through the API and the command line."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from cope.adapters.memory import (
    FixedClock,
    MemoryFiles,
    MemoryStore,
    MemoryWakeUp,
    RecordingWebhookSender,
    SequentialIds,
)
from cope.bootstrap import ApiParts
from cope.core.ids import ProjectId
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.core.restored import RestoreNotice
from cope.core.stages import Tier
from cope.settings import Settings
from cope_cli.main import app
from cope_local.children import free_port
from tests.api.serving import serving
from tests.api.test_api import ADMIN, KEY, PRICE, Served, send

OPERATOR = {"authorization": f"Bearer {ADMIN}"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A model that is served by the API itself, one that nobody serves, and a file store that is there."""
    clock, ids, port = FixedClock(), SequentialIds(), free_port()
    away = ModelEntry("away", "away", f"http://127.0.0.1:{port}/v1", Tier.LARGE, "instruct", 4096, price_id="p")
    small = ModelEntry("small", "small", f"http://127.0.0.1:{port}/v1", Tier.SMALL, "instruct", 4096)
    parts = ApiParts(
        settings=Settings(
            admin_key=SecretStr(ADMIN),
            bootstrap_api_key=SecretStr(KEY),
            broker_url="",
            data_dir=tmp_path_factory.mktemp("files"),
            default_cap_usd="unlimited",
        ),
        store=MemoryStore(clock, ids),
        files=MemoryFiles(),
        wake=MemoryWakeUp(),
        catalog=ModelCatalog({"small": small, "away": away}, "small", "away", BUILT_IN),
        prices=PriceTable([PRICE]),
        clock=clock,
        ids=ids,
        webhooks=RecordingWebhookSender(),
    )
    with serving(parts) as url:
        served_here = replace(small, base_url=url, api_key=KEY)
        parts.catalog.entries["small"] = served_here  # type: ignore[index] - the port is known only now
        yield Served(url, parts)


def findings(place: Served) -> dict[str, dict[str, Any]]:
    status, body, _ = send(place, "/organization/doctor", method="GET", headers=OPERATOR)
    assert status == 200
    return {one["check"]: one for one in body["findings"]}  # type: ignore[attr-defined, index]


def test_the_doctor_says_what_is_well_and_how_to_mend_what_is_not(place: Served):
    found = findings(place)

    assert found["model small"]["status"] == "ok"
    assert found["model away"]["status"] == "fail"
    assert found["model away"]["mend"].startswith("Start the server at")
    assert found["broker"]["message"] == "no broker is set"
    assert found["default cap"]["status"] == "warn"
    assert {found[name]["status"] for name in ("schema", "isolation", "ledger", "files", "prices", "clock")} == {"ok"}
    assert next(iter(found.values()))["status"] == "fail"  # the worst first


def test_only_the_operator_may_ask_the_doctor_or_about_a_restore(place: Served):
    for path, method in (
        ("/organization/doctor", "GET"),
        ("/organization/restore", "GET"),
        ("/organization/restore/release", "POST"),
    ):
        assert send(place, path, method=method)[0] in {401, 403}


def test_a_restored_store_says_what_it_waits_for_and_is_released_only_when_told(place: Served):
    store = place.parts.store
    assert isinstance(store, MemoryStore)
    now = place.parts.clock.now()
    assert send(place, "/organization/restore", method="GET", headers=OPERATOR)[1]["restored"] is False
    store._db.restored = RestoreNotice(now - timedelta(hours=3), now, None, ())

    assert findings(place)["restore"]["status"] == "fail"
    status, body, _ = send(place, "/organization/restore/release", b"{}", headers=OPERATOR)
    assert (status, body["error"]["code"]) == (422, "restored_not_reconciled")  # type: ignore[index]
    status, body, _ = send(place, "/organization/restore/release", b'{"unreconciled": "yes"}', headers=OPERATOR)
    assert (status, body["error"]["param"]) == (400, "unreconciled")  # type: ignore[index]

    project = send(place, "/organization/projects", b'{"name": "lost hours"}', headers=OPERATOR)[1]["id"]
    lost = "task_00000000000000000000099999-000001"
    export = f"request_id,prompt_tokens,completion_tokens,cost_usd\n{lost},10,10,0.5\n"
    until, since = int(now.timestamp()), int((now - timedelta(hours=3)).timestamp())
    query = f"?apply=true&complete_from={since}&complete_until={until}"

    def apply(more: str, text: str = export) -> dict[str, Any]:
        csv = {**OPERATOR, "content-type": "text/csv"}
        status, body, _ = send(place, f"/organization/reconcile{query}{more}", text.encode(), headers=csv)
        assert status == 200, body
        return body["unknown"]  # type: ignore[return-value]

    assert apply("") == {"counted_in": None, "counted_calls": 0, "counted_usd": "0.00", "left_calls": 1}
    assert send(place, "/organization/restore/release", b"{}", headers=OPERATOR)[0] == 422  # the caps don't know of it
    without_cost = f"request_id,prompt_tokens,completion_tokens,cost_usd\n{lost},10,10,\n"
    assert apply(f"&unknown_to={project}", without_cost)["left_calls"] == 1
    assert send(place, "/organization/restore/release", b"{}", headers=OPERATOR)[0] == 422
    for _ in range(2):  # counted once, however often
        told = apply(f"&unknown_to={project}")
        assert (told["counted_calls"], told["counted_usd"], told["left_calls"]) == (1, "0.50", 0)
    assert store._db.budget(ProjectId(str(project))).spent == 500_000_000
    status, body, _ = send(place, "/organization/restore/release", b"{}", headers=OPERATOR)
    assert (status, body["released"], body["reconciled_at"]) == (200, True, until)
    assert send(place, "/organization/restore", method="GET", headers=OPERATOR)[1]["restored"] is False


def test_unknown_calls_are_counted_only_where_that_is_said_and_in_a_project_that_exists(place: Served):
    csv = {**OPERATOR, "content-type": "text/csv"}
    for query, status, param in (
        ("unknown_to=proj_x", 400, "unknown_to"),
        ("apply=true&unknown_to=proj_none", 404, None),
    ):
        got, body, _ = send(place, f"/organization/reconcile?{query}", b"request_id,cost_usd\n", headers=csv)
        assert (got, body["error"]["param"]) == (status, param)  # type: ignore[index]


def cli(place: Served, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["--base-url", place.url, "--api-key", KEY, "--admin-key", ADMIN, *words])
    return result.exit_code, result.output


def test_the_command_line_shows_the_same_and_fails_where_something_fails(place: Served):
    code, text = cli(place, "doctor", "--json")
    assert code == 1
    assert json.loads(text)["status"] == "fail"
    code, text = cli(place, "doctor")
    assert (code, "model away" in text) == (1, True)
    code, text = cli(place, "restored")
    assert (code, json.loads(text)["restored"]) == (0, False)
    code, text = cli(place, "restored", "--release")
    assert (code, json.loads(text)["released"]) == (0, False)


def test_the_doctor_tries_out_the_object_store_that_files_lie_in(place: Served):
    settings = place.parts.settings.model_copy(update={"files_url": "s3://bucket/cope"})
    with serving(replace(place.parts, settings=settings)) as url:
        found = findings(Served(url, place.parts))["files"]
    assert (found["status"], found["message"].partition(":")[0]) == ("ok", "s3")


def test_backup_and_restore_refuse_by_name_what_they_lack(
    place: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("COPE_DATA_DIR", raising=False)
    monkeypatch.delenv("COPE_FILES_URL", raising=False)
    code, text = cli(place, "backup", "copy")
    assert (code, "no database: give --database-url" in text) == (2, True)
    code, text = cli(place, "backup", "copy", "--database-url", "postgresql://x@127.0.0.1:9/x")
    assert (code, "no folder of files" in text) == (2, True)
    code, text = cli(
        place, "backup", "copy", "--database-url", f"postgresql://x@127.0.0.1:{free_port()}/x", "--files", "."
    )
    assert code == 3
    address = ["--database-url", "postgresql://x@127.0.0.1:9/x", "--files", "files"]
    code, text = cli(place, "restore", str(tmp_path), *address)
    assert (code, "no manifest.json in it" in text) == (2, True)
    code, text = cli(place, "restore", str(tmp_path), *address[:2])
    assert (code, "no folder of files" in text) == (2, True)
    monkeypatch.setenv("COPE_FILES_URL", "s3://bucket/cope")  # then files need no folder: the database is what lacks
    code, text = cli(place, "restore", str(tmp_path), *address[:2])
    assert (code, "no manifest.json in it" in text) == (2, True)
    nowhere = f"postgresql://x@127.0.0.1:{free_port()}/x"
    code, text = cli(place, "backup", "copy", "--database-url", nowhere)
    assert (code, "the files stay in s3://bucket/cope" in text) == (3, True)
    assert list(tmp_path.iterdir()) == []
