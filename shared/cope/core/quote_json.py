"""A quote as it is stored and shown. Money is exact text in dollars; shares are rounded."""

from collections.abc import Mapping
from typing import Any

import orjson

from cope.core.chances import share_interval
from cope.core.lengths import Basis, Length
from cope.core.money import NanoUSD, format_usd
from cope.core.quote import GroupQuote, Quote
from cope.core.survey import PaidStep, Reach

Json = dict[str, Any]
_SHOWN_GROUPS = 20


def encode_quote(quote: Quote, *, stage1_s: int | None) -> str:
    """JSON text. `stage1_s` is how long Stage 1 of all lines takes at the pilot's pace, in seconds."""
    survey = quote.survey
    versions = sorted({step.price_version for group in survey.groups for step in group.steps})
    data = {
        "lines": survey.lines,
        "max_usd": format_usd(survey.worst),
        "expected_usd": format_usd(quote.expected),
        "p90_usd": format_usd(quote.p90),
        # What the maximum leaves out: a call made again because its worker died, or its answer could not be read.
        "each_repeated_call_usd": format_usd(survey.largest_call),
        "price_version": ", ".join(versions) or None,
        "valid_at": survey.valid_at,
        "valid_until": survey.valid_until,
        "seed": survey.seed,
        "pilot": _pilot(quote),
        "groups": [_group(group) for group in sorted(quote.groups, key=_lines, reverse=True)[:_SHOWN_GROUPS]],
        "small_model": {
            "prompt_tokens": quote.small.prompt,
            "completion_tokens": quote.small.completion,
            "stage1_s": stage1_s,
        },
        "notes": _notes(quote),
    }
    return orjson.dumps(data).decode()


def _lines(group: GroupQuote) -> int:
    return group.group.lines


def _pilot(quote: Quote) -> Json:
    lines = sum(group.piloted for group in quote.groups)
    accepted = sum(group.accepted for group in quote.groups)
    return {
        "lines": lines,
        "drawn": len(quote.survey.pilot),
        "accepted": accepted,
        "failed": sum(group.failed for group in quote.groups),
        "readable": sum(group.readable for group in quote.groups),
        **_share("accepted_share_stage1", accepted, lines),
    }


def _share(name: str, hits: int, total: int) -> Json:
    low, high = share_interval(hits, total)
    return {
        name: round(hits / total, 4) if total else None,
        f"{name}_interval": [round(low, 4), round(high, 4)],
        "interval_level": 0.95,
    }


def _group(quote: GroupQuote) -> Json:
    group = quote.group
    policy: Mapping[str, Any] = orjson.loads(group.policy)
    return {
        "policy": policy["name"],
        "tau1": policy["tau1"],
        "tau2": policy["tau2"],
        "n": policy["n"],
        "kind": group.kind,
        "lines": group.lines,
        "max_usd": format_usd(group.worst),
        "expected_usd": format_usd(quote.expected),
        "pilot": {"lines": quote.piloted, **_share("accepted_share_stage1", quote.accepted, quote.piloted)},
        "stage2": {
            "basis": (Basis.HISTORY if quote.escalated else Basis.NONE).value,
            **_share("settled_share", quote.settled, quote.escalated),
        },
        "steps": [_step(step, length) for step, length in zip(group.steps, quote.outputs, strict=True)],
    }


def _step(step: PaidStep, length: Length) -> Json:
    limit = step.limit / step.lines
    return {
        "name": step.name,
        "model": step.model,
        "price_version": step.price_version,
        "max_usd": format_usd(NanoUSD(step.worst)),
        "output_tokens": {
            "basis": length.basis.value,
            "expected": round(length.middle(limit)),
            "limit": round(limit),
            "texts": length.count,
        },
    }


def _notes(quote: Quote) -> list[str]:
    notes = []
    if any(not group.group.pilots and _escalates(group) for group in quote.groups):
        notes.append(
            "No line was tried where the small model itself has a price, because a dry run spends nothing: there p90 "
            "assumes that every line goes through every step."
        )
    if any(group.group.pilots and not group.piloted for group in quote.groups):
        notes.append("Some lines have no pilot: for them p90 assumes that every line escalates.")
    if any(not group.escalated and _has(group, Reach.UNRESOLVED) for group in quote.groups):
        notes.append(
            "This project has not run 30 tasks through Stage 2 of the policy: p90 assumes that Stage 2 settles none of "
            "the escalated lines, and expected that it settles half."
        )
    if any(length.basis is Basis.NONE for group in quote.groups for length in group.outputs):
        notes.append(
            "Where an output's basis is `none`, neither this project's past nor a pilot tells its length: p90 takes "
            "its whole limit, expected half of it."
        )
    if 2 * sum(group.readable for group in quote.groups) < sum(group.piloted for group in quote.groups):
        notes.append(
            "Under half of the pilot's lines had answers that could be read: check `cope.kind`, and that the prompts "
            "ask for a final answer. A large batch would wait before its paid calls."
        )
    return notes


def _has(quote: GroupQuote, reach: Reach) -> bool:
    return any(step.reach is reach for step in quote.group.steps)


def _escalates(quote: GroupQuote) -> bool:
    return _has(quote, Reach.ESCALATED) or _has(quote, Reach.UNRESOLVED)
