"""A batch and a task as they are shown."""

from cope.core.lifecycle import BatchStatus, HoldReason, TaskState
from cope.core.stages import Tier
from cope_api.openapi.reports import AUDIT_REPORT, QUOTE
from cope_api.openapi.shapes import (
    ID,
    METADATA,
    NANO,
    SECONDS,
    USD,
    anything,
    array,
    const,
    flag,
    named,
    nullable,
    one_of,
    record,
    text,
    whole,
)
from cope_api.openapi.shared import COUNTS

HOLD = record(
    {
        "reason": one_of([reason.value for reason in HoldReason]),
        "since": nullable(SECONDS),
        "resumes_at": nullable(SECONDS),
        "needed_usd": nullable(USD),
        "message": text("Why, and how to go on."),
    }
)
BATCH = named(
    "Batch",
    record(
        {
            "id": ID,
            "object": const("batch"),
            "endpoint": one_of(["/v1/chat/completions", "/v1/responses"]),
            "model": nullable(text()),
            "errors": nullable(
                record(
                    {
                        "object": const("list"),
                        "data": array(
                            record(
                                {
                                    "code": text(),
                                    "message": text(),
                                    "param": nullable(text()),
                                    "line": nullable(whole("Counts from 1; null: the file as a whole.", low=1)),
                                }
                            )
                        ),
                    }
                )
            ),
            "input_file_id": text("Empty for a batch whose lines were added while it was open.", high=64),
            "completion_window": text(),
            "status": one_of([status.value for status in BatchStatus]),
            "output_file_id": nullable(ID),
            "error_file_id": nullable(ID),
            "created_at": SECONDS,
            **{
                f"{name}_at": nullable(SECONDS)
                for name in (
                    "in_progress",
                    "expires",
                    "finalizing",
                    "completed",
                    "failed",
                    "expired",
                    "cancelling",
                    "cancelled",
                )
            },
            "request_counts": record(
                {"total": whole(low=0), "completed": whole(low=0), "failed": whole(low=0), "held": whole(low=0)}
            ),
            "usage": record(
                {
                    "input_tokens": whole(low=0),
                    "input_tokens_details": record({"cached_tokens": whole(low=0)}),
                    "output_tokens": whole(low=0),
                    "output_tokens_details": record({"reasoning_tokens": whole(low=0)}),
                    "total_tokens": whole(low=0),
                }
            ),
            "metadata": nullable(METADATA),
            "cope": record(
                {
                    "outcome": nullable(
                        one_of(
                            ["all_succeeded", "partly_failed", "all_failed", "quoted", "failed", "expired", "cancelled"]
                        )
                    ),
                    "open": flag("It takes further lines and does not end before it is sealed."),
                    "retry_of": nullable(ID),
                    "retried_by": array(ID, "Batches that took up lines of this one."),
                    "hold": nullable(HOLD),
                    "submitted": whole("Lines that wait in a provider's batch.", low=0),
                    "max_cost_usd": nullable(USD),
                    "dry_run": nullable(record({"pilot_lines": whole(low=0)})),
                    "quote": nullable(QUOTE),
                    "by_stage": COUNTS,
                    "pruned_at": nullable({**SECONDS, "description": "Since then its tasks are no longer kept."}),
                    "spent_usd": USD,
                    "reserved_usd": USD,
                    "unconfirmed_usd": USD,
                    "eta": nullable(
                        record(
                            {
                                "p50": nullable(whole("Seconds.")),
                                "p90": nullable(whole("Seconds.")),
                                "limited_by": nullable(text()),
                            }
                        )
                    ),
                    "errors": array(
                        record({"code": text(), "message": nullable(text()), "count": whole(low=1)}),
                        "The lines' errors, counted by code.",
                    ),
                },
                optional={"audit": nullable(record(AUDIT_REPORT))},
            ),
        },
        "A submission. A held one stays `in_progress` and says why in `cope.hold`.",
    ),
)
TASK = named(
    "Task",
    record(
        {
            "id": ID,
            "object": const("cope.task"),
            "batch_id": nullable(ID),
            "custom_id": nullable(text()),
            "state": one_of([state.value for state in TaskState]),
            "hold": nullable(one_of([reason.value for reason in HoldReason])),
            "queue": text(),
            "provider_batch": nullable(record({"id": nullable(text()), "status": text()})),
            "created_at": SECONDS,
            "finished_at": nullable(SECONDS),
            "tries": whole("Provider errors.", low=0),
            "crashes": whole("Leases that ran out.", low=0),
            "policy": anything("The policy as it was resolved: every parameter."),
            "request": anything("As it is stored: `m` are the messages, `r` the model that was named."),
            "steps": array(
                record(
                    {
                        "name": text(),
                        "stage": whole(low=1, high=3),
                        "tier": one_of([tier.value for tier in Tier]),
                        "model": text(),
                        "n": whole(low=1),
                        "reason": text(),
                        "stopped_early": nullable(text()),
                        "prompt_version": nullable(text()),
                        "reused_from": nullable(text("The task that carried it out; it cost nothing again.")),
                        "cost_nanousd": NANO,
                        "usage": COUNTS,
                        "started_at": text(),
                        "finished_at": text(),
                        "samples": array(
                            record(
                                {
                                    "index": whole(low=0),
                                    "status": text(),
                                    "tests_passed": nullable(whole("Kind code: visible tests passed.", low=0)),
                                    **{
                                        name: nullable(text())
                                        for name in (
                                            "plan",
                                            "solution",
                                            "answer",
                                            "answer_key",
                                            "finish_reason",
                                            "error",
                                        )
                                    },
                                }
                            )
                        ),
                    }
                )
            ),
            "result": nullable(anything("The body its caller got.")),
            "error": nullable(record({"code": text(), "message": text()})),
            "attempts": array(
                record(
                    {
                        "id": ID,
                        "step": text(),
                        "model": text(),
                        "state": text(),
                        "month": text(),
                        "reserved_usd": USD,
                        "cost_usd": nullable(USD),
                        "price_id": text(),
                        "price_tier": text(),
                        "price_version": text(),
                        "flag": nullable(text()),
                    }
                )
            ),
        },
        "One problem with its whole history.",
    ),
)
