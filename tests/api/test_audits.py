"""The shadow audit through the API: its settings, its figures, and the pairs, for those who may see them."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from openai import OpenAI

from cope.adapters.memory import MemoryStore
from cope.core.audit_sampling import WHOLE
from cope.core.ids import KeyId, ProjectId
from cope.core.records import Batch, Project
from tests.api.test_api import ADMIN, Served, client, send, served
from tests.contracts.world import World, accepted, bill, done, large_step
from tests.support import make_batch, make_file

__all__ = ["client", "served"]  # fixtures
OPERATOR = {"authorization": f"Bearer {ADMIN}"}
PROJECT = "/organization/projects"


class Books(World):
    """Workers' side of the served store."""

    async def advance(self, seconds: float) -> None:
        raise AssertionError("this clock stands still")

    async def book_external(self, project: Project, amount: int, *, key_id: KeyId | None = None) -> None:
        raise AssertionError("nothing is spent elsewhere here")

    def now(self) -> Any:
        return make_batch(ProjectId("p"), make_file(ProjectId("p")).id).created_at


def change(served: Served, project: str, audit: object) -> tuple[int, dict[str, Any], dict[str, str]]:
    return send(served, f"{PROJECT}/{project}", json.dumps({"cope": {"audit": audit}}).encode(), headers=OPERATOR)  # type: ignore[return-value]


def new_project(served: Served, body: bytes = b'{"name": "audited"}') -> tuple[str, dict[str, str]]:
    """Its id, and headers with its own key."""
    _, project, _ = send(served, PROJECT, body, headers=OPERATOR)
    _, made, _ = send(served, f"{PROJECT}/{project['id']}/service_accounts", b"{}", headers=OPERATOR)
    return str(project["id"]), {"authorization": f"Bearer {made['api_key']['value']}"}  # type: ignore[index]


async def audited_batch(store: MemoryStore, project: str) -> Batch:
    """Four confident answers; the large model agrees with two, disagrees with one, and one is still to be asked."""
    books = Books(store, store)
    found = await store.get_project(ProjectId(project))
    assert found is not None
    batch = await books.batch(found, 4)
    await books.commit(*[replace(done(task), audit=accepted(votes=8)) for task in await books.claim(limit=4)])
    asked = [task for task in await books.claim("large", limit=100) if task.project_id == project]
    for task, key in zip(asked[:3], ("5", "5", "6"), strict=True):
        granted = await books.send(task, 900, step="audit")
        step = large_step(700, name="audit")
        said = replace(step.samples[0], answer=key, key=key)
        await books.commit(done(task, step=replace(step, samples=(said,)), bills=(bill(granted, 700),)))
    return batch


def test_audits_are_off_until_the_operator_gives_a_share_and_a_sub_budget(served: Served):
    project, own = new_project(served)
    path = f"{PROJECT}/{project}/audit"

    status, before, _ = send(served, path, method="GET", headers=own)
    assert (status, before["share"], before["cap_usd"], before["accepted"]) == (200, "0", "0.00", 0)
    status, refused, _ = change(served, project, {"share": "0.02"})
    assert (status, refused["error"]["param"]) == (400, "cope.audit.cap_usd")
    status, changed, _ = change(served, project, {"share": "0.02", "cap_usd": "1.00"})
    assert (status, changed["cope"]["audit"]) == (200, {"share": "0.02", "cap_usd": "1.00"})
    assert change(served, project, {"share": "0.05"})[1]["cope"]["audit"] == {"share": "0.05", "cap_usd": "1.00"}
    assert change(served, project, {"cap_usd": None})[1]["cope"]["audit"] == {"share": "0.05", "cap_usd": None}
    assert send(served, path, method="GET", headers=own)[1]["share"] == "0.05"
    assert change(served, project, {"share": "0"})[1]["cope"]["audit"]["share"] == "0"


def test_a_project_may_be_made_with_audits_on(served: Served):
    body = b'{"name": "a", "cope": {"audit": {"share": "0.5", "cap_usd": "2"}}}'
    _, project, _ = send(served, PROJECT, body, headers=OPERATOR)

    assert project["cope"]["audit"] == {"share": "0.5", "cap_usd": "2.00"}  # type: ignore[index]
    assert send(served, PROJECT, body.replace(b'"2"', b'"0"'), headers=OPERATOR)[0] == 400


@pytest.mark.parametrize(
    ("audit", "param"),
    [
        ("on", "cope.audit"),
        ({"share": "2"}, "cope.audit.share"),
        ({"share": None}, "cope.audit.share"),
        ({"cap_usd": 0.5}, "cope.audit.cap_usd"),
        ({"rate": "1"}, "rate"),
    ],
)
def test_settings_that_can_not_be_read_are_refused_by_name(served: Served, audit: object, param: str):
    project, _ = new_project(served)
    status, refused, _ = change(served, project, audit)

    assert (status, refused["error"]["param"]) == (400, param)


def test_only_the_operator_and_the_projects_own_key_see_its_audits(served: Served, client: OpenAI):
    project, own = new_project(served)
    path = f"{PROJECT}/{project}/audit"

    assert send(served, path, method="GET", headers=OPERATOR)[0] == 200
    assert send(served, f"{PROJECT}/me/audit", method="GET", headers=own)[1]["project_id"] == project
    assert send(served, path, method="GET")[0] == 403  # another project's key
    assert send(served, f"{path}?month=2026-13", method="GET", headers=own)[0] == 400
    assert send(served, "/audits", method="GET", headers=OPERATOR)[0] == 403
    assert change(served, "proj_none", {"share": "1", "cap_usd": "1"})[0] == 404


def test_the_figures_say_how_many_answers_differ_and_that_agreement_is_not_correctness(served: Served):
    project, own = new_project(served)
    change(served, project, {"share": "1", "cap_usd": "1"})
    assert isinstance(served.parts.store, MemoryStore)
    batch = asyncio.run(audited_batch(served.parts.store, project))

    _, month, _ = send(served, f"{PROJECT}/{project}/audit?month=2026-11", method="GET", headers=own)
    _, seen, _ = send(served, f"/batches/{batch.id}", method="GET", headers=own)
    of_batch = seen["cope"]["audit"]  # type: ignore[index]

    assert (month["accepted"], month["audited"], month["pending"]) == (4, 4, 1)
    assert (month["spent_usd"], month["cost_usd"], month["cap_usd"]) == ("0.0000021", "0.0000021", "1.00")
    assert month["estimate"]["disagreement"] == 0.333333  # type: ignore[index]
    assert month["estimate"]["differing"] == {"from": 1, "to": 2, "of": 4}  # type: ignore[index]
    assert month["summary"] == (
        "Of 4 unescalated answers about 1 to 2 differ from what the large model says (95 % interval)."
    )
    assert "Agreement is not correctness" in month["notes"][0]  # type: ignore[index]
    assert [s["confidence"] for s in month["strata"]] == ["8/8"]  # type: ignore[attr-defined]
    assert of_batch["estimate"] == month["estimate"]
    assert "after it has ended" in of_batch["notes"][-1]
    assert seen["request_counts"] == {"total": 4, "completed": 4, "failed": 0, "held": 0}


def test_the_pairs_can_be_looked_at_by_batch_and_state(served: Served):
    project, own = new_project(served)
    change(served, project, {"share": "1", "cap_usd": "1"})
    assert isinstance(served.parts.store, MemoryStore)
    batch = asyncio.run(audited_batch(served.parts.store, project))

    _, page, _ = send(served, f"/audits?batch_id={batch.id}&state=disagreed", method="GET", headers=own)
    (pair,) = page["data"]  # type: ignore[misc]
    assert (pair["small"]["answer"], pair["large"]["answer"], pair["custom_id"]) == ("5", "6", "line-3")
    assert send(served, f"/tasks/{pair['audit_task_id']}", method="GET", headers=own)[0] == 200
    _, first, _ = send(served, f"/audits?batch_id={batch.id}&limit=3", method="GET", headers=own)
    _, rest, _ = send(served, f"/audits?batch_id={batch.id}&after={first['last_id']}", method="GET", headers=own)
    assert (len(first["data"]), first["has_more"], len(rest["data"])) == (3, True, 1)  # type: ignore[arg-type]
    assert rest["data"][0]["large"] is None  # type: ignore[index]
    assert send(served, "/audits?state=wrong", method="GET", headers=own)[0] == 400
    assert send(served, f"/audits?batch_id={batch.id}", method="GET")[1]["data"] == []  # another project's


def test_a_batch_that_was_never_audited_says_so_and_may_bring_its_own_share(served: Served, client: OpenAI):
    file = client.files.create(file=("in.jsonl", b"{}"), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"cope": {"audit_share": "1"}},
    )

    assert client.batches.retrieve(batch.id).to_dict()["cope"]["audit"] is None  # type: ignore[index]
    assert isinstance(served.parts.store, MemoryStore)
    owned = asyncio.run(served.parts.store.list_batches(ProjectId(project_of(served)), after=None, limit=1))
    assert owned.items[0].audit_share == WHOLE


def project_of(served: Served) -> str:
    return str(send(served, f"{PROJECT}/me/audit", method="GET")[1]["project_id"])
