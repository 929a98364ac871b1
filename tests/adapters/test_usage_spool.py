"""A provider's usage export in every form that a spreadsheet can give it, and its rows laid out for looking up."""

from collections.abc import AsyncIterator

import pytest

from cope.adapters.usage_spool import SqliteSpool
from cope.core.errors import BadRequest
from cope.core.money import TokenUsage
from cope.core.reconcile import BilledCall
from cope.ports.usage_spool import Loaded

TASK = "task_" + "a" * 26
OTHER = "task_" + "b" * 26
STEP = f"{TASK}-000001"
HEADER = "request_id,provider_id,model,prompt_tokens,cached_tokens,completion_tokens,cost_usd,created_at"


@pytest.fixture
async def spool() -> AsyncIterator[SqliteSpool]:
    made = SqliteSpool()
    yield made
    await made.aclose()


async def load(spool: SqliteSpool, text: str | bytes) -> Loaded:
    data = text if isinstance(text, bytes) else text.encode()
    for start in range(0, len(data), 7):  # a piece may end anywhere, in the middle of a character too
        await spool.write(data[start : start + 7])
    return await spool.load()


async def calls(spool: SqliteSpool) -> dict[str, BilledCall]:
    return {call.request_id: call async for page in spool.tasks() for _, own in page for call in own}


async def test_a_plain_export_is_summed_by_request_id(spool: SqliteSpool) -> None:
    loaded = await load(
        spool,
        f"{HEADER}\n{STEP}-000p,p1,m,10,4,5,0.000000123,x\n{STEP}-000x,p2,m,20,0,7,0.25,x\n{STEP}-000x,p3,m,1,0,1,0.5,x\n",
    )

    assert (loaded.rows, loaded.repeated, loaded.bad_count, loaded.nameless) == (3, 0, 0, 0)
    found = await calls(spool)
    assert (found[f"{STEP}-000p"].cost, found[f"{STEP}-000p"].usage) == (123, TokenUsage(10, 4, 5, 0, 1))
    assert (found[f"{STEP}-000x"].cost, found[f"{STEP}-000x"].calls) == (750_000_000, 2)


@pytest.mark.parametrize(
    "text",
    [
        f"\ufeff{HEADER}\r\n{STEP}-000x,p1,m,20,0,7,0.25,x\r\n\r\n",
        f"cost_usd,note,REQUEST_ID , completion_tokens,prompt_tokens\n$0.25,\"a, b\",{STEP}-000x,7,20",
        f'"request_id","cost_usd","prompt_tokens","completion_tokens"\n"{STEP}-000x","0.25","20","7"\n',
        (f"request_id,provider_id,prompt_tokens,completion_tokens,cost_usd\n{STEP}-000x,p1,20,7,0.2500000000\n"
        f"{STEP}-000x,p1,20,7,0.25\n"),
    ],
    ids=["bom_and_crlf", "other_order_and_no_last_newline", "quoted", "twice"],
)  # fmt: skip
async def test_byte_order_mark_line_ends_column_order_quotes_and_repetitions_change_nothing(
    spool: SqliteSpool, text: str
) -> None:
    loaded = await load(spool, text)

    assert loaded.bad_count == 0
    call = (await calls(spool))[f"{STEP}-000x"]
    assert (call.calls, call.cost, call.usage) == (1, 250_000_000, TokenUsage(20, 0, 7, 0, 1))


async def test_a_row_without_a_cost_keeps_its_tokens_to_be_priced(spool: SqliteSpool) -> None:
    await load(spool, f"request_id,prompt_tokens,cached_tokens,completion_tokens\n{STEP}-000x,20,5,7\n")

    call = (await calls(spool))[f"{STEP}-000x"]
    assert (call.cost, call.unpriced, call.usage) == (0, TokenUsage(20, 5, 7, 0, 1), TokenUsage(20, 5, 7, 0, 1))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (f"{STEP}-000x,p1,m,-1,0,7,,x", "prompt_tokens '-1' is not a whole number"),
        (f"{STEP}-000x,p1,m,1e3,0,7,,x", "prompt_tokens '1e3'"),
        (f"{STEP}-000x,p1,m,,0,7,,x", "prompt_tokens ''"),
        (f"{STEP}-000x,p1,m,3,9,7,0.1,x", "cached_tokens 9 is more than prompt_tokens 3"),
        (f"{STEP}-000x,p1,m,3,0,7,NaN,x", "cost_usd 'NaN'"),
        (f"{STEP}-000x,p1,m,3,0,7,-0.1,x", "cost_usd '-0.1'"),
        (f"{STEP}-000x,p1,m,3,0,7,1e99,x", "cost_usd '1e99'"),
        (f"{STEP}-000x,p1,m,99999999999,0,7,0.1,x", "prompt_tokens '99999999999'"),
        (f"{STEP}-000x,p1", "it has 2 fields, the header 8"),
    ],
)
async def test_a_row_that_can_not_be_read_is_told_by_its_line_and_spoils_its_step_only(
    spool: SqliteSpool, row: str, says: str
) -> None:
    good = f"{OTHER}-000001-000x,p9,m,1,0,1,0.1,x"
    loaded = await load(spool, f"{HEADER}\n{good}\n\n{row}\n{STEP}-000p,p2,m,1,0,1,0.1,x\n")

    assert [bad.line for bad in loaded.bad] == [4]
    assert says in loaded.bad[0].message
    found = await calls(spool)
    assert found[f"{STEP}-000x"].unreadable
    assert not found[f"{OTHER}-000001-000x"].unreadable
    assert await spool.mentioned([STEP]) == {STEP}


async def test_one_provider_id_with_two_amounts_spoils_both_steps(spool: SqliteSpool) -> None:
    loaded = await load(
        spool, f"{HEADER}\n{STEP}-000x,p1,m,1,0,1,0.1,x\n{OTHER}-000001-000x,p1,m,1,0,1,0.2,x\n"
    )  # fmt: skip

    assert [(bad.line, "line 2" in bad.message) for bad in loaded.bad] == [(3, True)]
    assert all(call.unreadable for call in (await calls(spool)).values())


async def test_a_quote_that_is_never_closed_hides_no_row_behind_it(spool: SqliteSpool) -> None:
    loaded = await load(spool, f'{HEADER}\n{STEP}-000x,"p1,m,1,0,1,0.1,x\n{OTHER}-000001-000x,p2,m,1,0,1,0.2,x\n')

    assert (loaded.rows, loaded.bad_count, loaded.bad[0].line) == (0, 1, 2)


async def test_a_field_beyond_any_size_is_one_bad_row(spool: SqliteSpool) -> None:
    loaded = await load(spool, f"{HEADER}\n{'x' * 200_000},p1\n{STEP}-000x,p2,m,1,0,1,0.1,x\n")

    assert (loaded.rows, loaded.bad_count) == (1, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "request_id"),
        ("id,cost_usd\n", "request_id"),
        ("request_id,model\n", "cost_usd"),
        ("request_id,prompt_tokens\n", "completion_tokens"),
        ("request_id,request_id,cost_usd\n", "twice"),
        ("\x00\xff\xfe" * 20, "request_id"),
    ],
)
async def test_a_header_that_can_not_be_used_says_what_is_missing(spool: SqliteSpool, text: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        await load(spool, text.encode("latin-1"))


async def test_other_peoples_calls_are_summed_apart_the_dearest_first(spool: SqliteSpool) -> None:
    loaded = await load(
        spool,
        f"{HEADER}\nchat-7,p1,m,1,0,1,0.1,x\n,p2,m,1,0,1,0.5,x\nchat-7,p3,m,1,0,1,0.1,x\ntask_short-1,p4,m,2,0,2,,x\n"
        f"{STEP}-000x,p5,m,1,0,1,0.1,x\n",
    )

    assert (loaded.foreign.calls, loaded.foreign.cost, loaded.foreign.unpriced_calls) == (4, 700_000_000, 1)
    assert loaded.nameless == 1
    dearest = await spool.foreign_calls(2)
    assert [(call.request_id, call.calls, call.cost) for call in dearest] == [
        ("", 1, 500_000_000),
        ("chat-7", 2, 200_000_000),
    ]
    assert list(await calls(spool)) == [f"{STEP}-000x"]


async def test_a_large_file_comes_back_in_pages_of_whole_tasks(spool: SqliteSpool) -> None:
    tasks = [f"task_{number:026d}" for number in range(1_201)]
    rows = "\n".join(f"{task}-000001-00{call}x,{task}{call},m,1,0,1,0.001,x" for task in tasks for call in (0, 1))
    await spool.write(f"{HEADER}\n{rows}\n".encode())
    await spool.load()

    pages = [page async for page in spool.tasks()]

    assert [len(page) for page in pages] == [500, 500, 201]
    assert {task: len(own) for page in pages for task, own in page} == dict.fromkeys(tasks, 2)


async def test_a_step_is_not_taken_for_one_whose_id_begins_alike(spool: SqliteSpool) -> None:
    await load(spool, f"{HEADER}\n{TASK}-0000011-000x,p1,m,1,0,1,0.1,x\n")

    assert await spool.mentioned([STEP, f"{TASK}-0000011"]) == {f"{TASK}-0000011"}
