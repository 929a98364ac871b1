"""What a dry run and the shadow audit tell."""

from cope.core.lengths import Basis
from cope_api.openapi.shapes import (
    SECONDS,
    USD,
    Schema,
    anything,
    array,
    flag,
    named,
    nullable,
    number,
    one_of,
    record,
    text,
    whole,
)


def _share(name: str) -> dict[str, Schema]:
    return {name: nullable(number()), f"{name}_interval": array(number(), low=2, high=2), "interval_level": number()}


_BASIS = one_of([basis.value for basis in Basis], "What it was estimated from.")
QUOTE = named(
    "Quote",
    record(
        {
            "lines": whole(low=0),
            "max_usd": {**USD, "description": "What it can't exceed."},
            "expected_usd": USD,
            "p90_usd": USD,
            "each_repeated_call_usd": USD,
            "price_version": nullable(text()),
            "valid_at": SECONDS,
            "valid_until": nullable(SECONDS),
            "seed": whole(),
            "pilot": record(
                {
                    **{name: whole(low=0) for name in ("lines", "drawn", "accepted", "failed", "readable")},
                    **_share("accepted_share_stage1"),
                }
            ),
            "groups": array(
                record(
                    {
                        "policy": text(),
                        "tau1": text(),
                        "tau2": text(),
                        "n": whole(low=1),
                        "kind": text(),
                        "lines": whole(low=0),
                        "max_usd": USD,
                        "expected_usd": USD,
                        "pilot": record({"lines": whole(low=0), **_share("accepted_share_stage1")}),
                        "stage2": record({"basis": _BASIS, **_share("settled_share")}),
                        "steps": array(
                            record(
                                {
                                    "name": text(),
                                    "model": text(),
                                    "price_version": text(),
                                    "max_usd": USD,
                                    "output_tokens": record(
                                        {"basis": _BASIS, "expected": whole(), "limit": whole(), "texts": whole()}
                                    ),
                                }
                            )
                        ),
                    }
                )
            ),
            "small_model": record(
                {"prompt_tokens": whole(), "completion_tokens": whole(), "stage1_s": nullable(number())}
            ),
            "notes": array(text()),
            "submit": record({"at_max": anything(), "at_p90": anything()}, "Bodies for POST /v1/batches."),
        },
        "What the file will cost.",
    ),
)
AUDIT_COUNTS: dict[str, Schema] = {
    **{
        name: whole(low=0)
        for name in ("accepted", "audited", "pending", "agreed", "disagreed", "unparsable", "dropped")
    },
    "cost_usd": USD,
    "estimate": nullable(
        record(
            {
                "disagreement": number(),
                "low": number(),
                "high": number(),
                "level": number(),
                "differing": record({"from": whole(), "to": whole(), "of": whole()}),
            }
        )
    ),
}
AUDIT_REPORT: dict[str, Schema] = {
    **AUDIT_COUNTS,
    "strata": array(
        record(
            {
                "stage": whole(),
                "confidence": text(),
                "votes": whole(),
                "n": whole(),
                "stopped_early": flag(),
                **AUDIT_COUNTS,
            }
        )
    ),
    "summary": text("In one sentence."),
    "notes": array(text("What the figures do not say.")),
}
