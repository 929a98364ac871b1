"""Costs, receipts, the ledger, unconfirmed money."""

from cope.core.ledger import CostKind
from cope.core.reconcile import Verdict
from cope_api.ledger_export import COLUMNS
from cope_api.openapi.money_words import MONTH, PROJECT, TOKENS, both
from cope_api.openapi.operation import op
from cope_api.openapi.shapes import (
    ID,
    NANO,
    SECONDS,
    USD,
    array,
    const,
    flag,
    listed,
    mapping,
    named,
    nullable,
    number,
    one_of,
    record,
    text,
    whole,
)

RECEIPT = named(
    "Receipt",
    record(
        {
            "object": const("cope.receipt"),
            "about": text(),
            "project_id": ID,
            "project_name": text(),
            "period": text(),
            "time_zone": text(),
            "made_at": SECONDS,
            "final": flag("Whether nothing of it can change any more."),
            **both("total", *(kind.value for kind in CostKind), "reserved", "unconfirmed"),
            "cap_usd": nullable(USD),
            "ledger_difference_nanousd": NANO,
            **TOKENS,
            "price_versions": array(text()),
            "lines": array(
                record(
                    {
                        "line_item": nullable(text()),
                        "kind": one_of([kind.value for kind in CostKind]),
                        "model": nullable(text()),
                        "stage": nullable(text("Such as stage2.")),
                        "price_version": nullable(text()),
                        **TOKENS,
                        **both("amount"),
                    }
                )
            ),
        }
    ),
)
_BUCKET = record(
    {
        "object": const("bucket"),
        "start_time": SECONDS,
        "end_time": SECONDS,
        "results": array(
            record(
                {
                    "object": const("organization.costs.result"),
                    "amount": record({"value": number(), "currency": const("usd")}),
                    "line_item": nullable(text()),
                    "project_id": nullable(ID),
                    "api_key_id": nullable(ID),
                    "user_id": {"type": "null"},
                    "quantity": {"type": "null"},
                    "cope": record(
                        {
                            "kind": one_of([kind.value for kind in CostKind]),
                            **both("amount"),
                            "batch_id": nullable(ID),
                            "model": nullable(text()),
                            "stage": nullable(text("Such as stage2.")),
                            "step": nullable(text()),
                            "price_version": nullable(text()),
                            **TOKENS,
                        }
                    ),
                }
            )
        ),
        "cope": record({"day": nullable(text()), "month": MONTH}),
    }
)
COSTS = named(
    "Costs",
    record(
        {
            "object": const("page"),
            "data": array(_BUCKET),
            "has_more": flag(),
            "next_page": nullable(text()),
            "cope": record(
                {
                    "time_zone": text(),
                    "note": nullable(text()),
                    "months": array(MONTH, low=2, high=2),
                    **both("reserved", "unconfirmed"),
                }
            ),
        }
    ),
)
_WHOSE = {
    "project_id": text("Or `project_ids[]`, several times."),
    "api_key_ids": text("Ids with commas between, or `api_key_ids[]`, several times."),
    "batch_id": text(),
}
_DOUBTFUL = record(
    {
        "id": ID,
        "object": const("cope.unconfirmed"),
        "project_id": ID,
        "api_key_id": nullable(ID),
        "batch_id": nullable(ID),
        "task_id": nullable(ID),
        "step": text(),
        "model": text(),
        "request_id": text(),
        "month": MONTH,
        **both("reserved"),
        "price_version": text(),
        "sent_at": nullable(SECONDS),
        "age_s": whole(low=0),
    }
)
_AGE = record(
    {
        "age": text(),
        "from_s": whole(low=0),
        "until_s": nullable(whole()),
        "attempts": whole(low=0),
        **both("reserved"),
    }
)
_TALLY = record({"attempts": whole(), "calls": whole(), **both("billed"), "booked_nanousd": NANO})
_RECONCILED = record(
    {
        "verdict": one_of([verdict.value for verdict in Verdict]),
        "line": nullable(whole()),
        "request_id": nullable(text()),
        "calls": whole(),
        "billed_usd": nullable(USD),
        "billed_nanousd": nullable(NANO),
        "booked_nanousd": nullable(NANO),
        "reserved_nanousd": nullable(NANO),
        **{name: nullable(text()) for name in ("attempt_id", "project_id", "batch_id", "task_id", "model")},
    }
)
RECONCILIATION = named(
    "Reconciliation",
    record(
        {
            "object": const("cope.reconciliation"),
            "applied": flag(),
            "differences_applied": flag(),
            "open": flag("Whether anything is left to be looked at."),
            "file": mapping(whole(low=0)),
            "summary": mapping(_TALLY),
            "rows": array(_RECONCILED),
            "rows_left_out": whole(low=0),
            "unreadable": array(record({"line": whole(), "message": text()})),
            "others": record(
                {
                    "calls": whole(),
                    **both("billed"),
                    "calls_without_cost": whole(),
                    "request_ids": array(
                        record({"request_id": nullable(text()), "line": whole(), "calls": whole(), **both("billed")})
                    ),
                },
                "Calls that are no attempt of ours.",
            ),
            "unknown": record(
                {
                    "counted_in": nullable(ID),
                    "counted_calls": whole(low=0),
                    "counted_usd": USD,
                    "left_calls": whole(low=0),
                },
                "Calls under ids like ours that nobody here made.",
            ),
        }
    ),
)
_DIFFERENCE = record(
    {
        "project_id": ID,
        "scope": text(),
        "month": nullable(MONTH),
        **{f"{name}_nanousd": NANO for name in ("spent", "reserved", "unconfirmed", "overrun")},
    }
)
_MOMENT_IN = text("Unix seconds, or ISO 8601 with its zone.", low=1)
_TRUE = one_of(["true", "false", "1", "0"])
_CSV = {"type": "string", "examples": ["request_id,cost_usd\nreq-1,0.0125\n"]}

OPERATIONS = {
    "GET /v1/organization/costs": op(
        "Costs",
        COSTS,
        by="either",
        query={
            **_WHOSE,
            "start_time": whole("Unix seconds.", low=0),
            "end_time": whole("Unix seconds.", low=0),
            "month": MONTH,
            "bucket_width": one_of(["1d", "1mo"]),
            "group_by": text("project_id, api_key_id, batch_id, model, stage, step, price_version, line_item.", low=1),
            "line_items": text(),
            "limit": whole(low=1, high=180),
            "page": text("The `next_page` of an answer to the same question.", low=1),
        },
        errors=(404,),
        about="Give `month`, or `start_time` with or without `end_time`.",
    ),
    f"GET {PROJECT}/receipts/{{month}}": op(
        "Costs", RECEIPT, by="either", also={"text/plain": text("The same to read.")}
    ),
    "GET /v1/organization/ledger.csv": op(
        "Costs",
        by="either",
        query={**_WHOSE, "month": text("Such as 2026-11, or all.", like=r"^(2[0-9]{3}-(0[1-9]|1[0-2])|all)$")},
        also={"text/csv": {"type": "string", "examples": [",".join(COLUMNS)]}},
        errors=(404,),
    ),
    "GET /v1/organization/ledger_check": op(
        "Costs",
        record(
            {
                "object": const("cope.ledger_check"),
                "project_id": nullable(ID),
                "checked_at": SECONDS,
                "difference_nanousd": NANO,
                "rows": array(_DIFFERENCE),
            }
        ),
        by="either",
        query={"project_id": text()},
        errors=(404,),
    ),
    "GET /v1/organization/unconfirmed": op(
        "Costs",
        listed(
            _DOUBTFUL,
            more={"cope": record({"attempts": whole(low=0), **both("unconfirmed"), "by_age": array(_AGE)})},
        ),
        by="either",
        query={"project_id": text(), "after": text(high=512), "limit": whole(low=1, high=1000)},
        errors=(404,),
    ),
    "POST /v1/organization/reconcile": op(
        "Costs",
        RECONCILIATION,
        by="admin",
        query={
            "apply": _TRUE,
            "apply_differences": _TRUE,
            "complete_from": _MOMENT_IN,
            "complete_until": _MOMENT_IN,
            "unknown_to": text("The project in which calls are counted that nobody here made.", low=1, high=64),
        },
        bodies={"text/csv": _CSV},
        errors=(404,),
    ),
}
