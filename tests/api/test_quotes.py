"""Dry runs through the unmodified client: how they are asked for, marked, told and submitted for real."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Batch

from cope.core.models import ModelCatalog
from cope.core.prices import PriceTable
from cope.ports.files import FileStore
from cope.ports.support import Clock, IdMaker, WakeUp
from cope.usecases.finalise import finalise_next
from cope.usecases.ingest import ingest_next
from tests.api import test_api
from tests.api.test_api import KEY, Served
from tests.support import make_price

served = test_api.served  # a server of this file's own


@dataclass(frozen=True)
class Upkeep:
    """What the upkeep worker has: the API's own parts, and prices."""

    store: Any
    files: FileStore
    wake: WakeUp
    catalog: ModelCatalog
    clock: Clock
    ids: IdMaker
    prices: PriceTable


@pytest.fixture
def client(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.url, api_key=KEY, max_retries=0) as client:
        yield client


def submit(client: OpenAI, *lines: dict[str, Any], **cope: Any) -> Batch:
    data = "\n".join(json.dumps(line) for line in lines).encode()
    file = client.files.create(file=("in.jsonl", data), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"team": "a"},
        extra_body={"cope": cope},
    )


def asking(custom_id: str, model: str) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": "2 + 3?"}]}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def keep_up(served: Served) -> None:
    """Read and close every batch that waits for it."""
    own = served.parts
    prices = PriceTable([make_price("2.50", "10")])
    parts = Upkeep(own.store, own.files, own.wake, own.catalog, own.clock, own.ids, prices)

    async def work() -> None:
        while await ingest_next(parts, lease_s=30) or await finalise_next(parts, lease_s=30):
            pass

    asyncio.run(work())


def cope_of(batch: Batch) -> dict[str, Any]:
    return dict((batch.model_extra or {})["cope"])


def test_a_dry_run_is_a_batch_whose_quote_holds_two_ways_to_submit_it(served: Served, client: OpenAI):
    asked = submit(client, asking("a", "large"), asking("b", "small"), dry_run={"pilot_lines": 5}, seed=3)
    assert (asked.status, cope_of(asked)["dry_run"], cope_of(asked)["quote"]) == (
        "validating",
        {"pilot_lines": 5},
        None,
    )
    keep_up(served)
    batch = client.batches.retrieve(asked.id)

    told = cope_of(batch)
    assert (batch.status, told["outcome"], told["spent_usd"], told["by_stage"]) == ("completed", "quoted", "0.00", {})
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    quote = told["quote"]
    assert (quote["lines"], quote["seed"], quote["price_version"]) == (2, 3, "2026-11")
    assert 0 < float(quote["expected_usd"]) <= float(quote["p90_usd"]) <= float(quote["max_usd"])
    assert quote["submit"]["at_max"] == {
        "input_file_id": batch.input_file_id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "cope": {"seed": 3, "max_cost_usd": quote["max_usd"]},
        "metadata": {"team": "a"},
    }
    assert quote["submit"]["at_p90"]["cope"]["max_cost_usd"] == quote["p90_usd"]


def test_the_list_of_batches_marks_dry_runs(served: Served, client: OpenAI):
    dry, real = submit(client, asking("a", "large"), dry_run=True), submit(client, asking("a", "large"))
    keep_up(served)
    listed = {batch.id: cope_of(batch)["dry_run"] for batch in client.batches.list()}

    assert (listed[dry.id], listed[real.id]) == ({"pilot_lines": 100}, None)


def test_a_dry_run_is_also_a_check_of_the_file(served: Served, client: OpenAI):
    bad = {**asking("a", "large"), "method": "GET"}
    dry = submit(client, asking("b", "large"), bad, dry_run=True)
    keep_up(served)
    failed = client.batches.retrieve(dry.id)

    assert (failed.status, cope_of(failed)["quote"]) == ("failed", None)
    assert failed.errors is not None
    assert [(error.line, error.param) for error in failed.errors.data or []] == [(2, "method")]


def test_a_dry_run_asked_for_wrongly_is_refused_in_openais_shape(client: OpenAI):
    with pytest.raises(openai.BadRequestError) as refused:
        submit(client, asking("a", "large"), dry_run={"pilot_lines": "all"})

    assert refused.value.param == "cope.dry_run.pilot_lines"
