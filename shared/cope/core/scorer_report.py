"""What training tells a reviewer: what each budget buys on rows that nothing was learned or chosen from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cope.core.chances import share_interval
from cope.core.exact_text import exact_product
from cope.core.money import MAX_NANO, NANO_PER_USD, NanoUSD
from cope.core.scorer_thresholds import MILLION, Case, Fit, Outcome, outcome
from cope.core.scorer_training import Trained


@dataclass(frozen=True, slots=True)
class Budget:
    """A mean cost: `written` as the caller wrote it, in USD per `per` tasks (1 or a million)."""

    written: str
    per: int
    per_million: int
    """Nano-dollars per million tasks: a whole number for both."""

    @property
    def told(self) -> str:
        """For people and reports."""
        return f"${self.written} per {'task' if self.per == 1 else 'million tasks'}"


def parse_budget(text: str, per: int) -> Budget:
    """A decimal amount of USD per `per` tasks (1 or a million). Raises `ValueError` for what is no such amount, or
    finer than a nano-dollar per million tasks."""
    written = text.strip()
    try:
        amount = exact_product(written, NANO_PER_USD * (MILLION // per))
    except ValueError:
        raise ValueError(f"{text[:64]!r} is not an amount of dollars from 0, such as 0.0004") from None
    if not amount.is_finite() or amount < 0 or amount > MAX_NANO * MILLION or amount != amount.to_integral_value():
        raise ValueError(f"{text!r} is not an amount of dollars from 0, such as 0.0004")
    return Budget(written, per, int(amount))


def budget_report(budget: Budget, fit: Fit, trained: Trained) -> dict[str, Any]:
    """One row of the table, as JSON values. The accuracy's interval is Wilson's at 95 %."""
    models = trained.scorer.models
    return {
        "budget": budget.told,
        "thresholds": {m: str(t) for m, t in zip(models[:-1], fit.thresholds, strict=True)},
        "exhaustive": fit.exhaustive,
        "fit": outcome_report(fit.outcome, models),
        "test": outcome_report(outcome(trained.test, fit.thresholds), models),
    }


def outcome_report(found: Outcome, models: Sequence[str]) -> dict[str, Any]:
    """Accuracy with its interval, cost in nano-dollars per task, and the share of tasks that ended with each model."""
    low, high = share_interval(found.right, found.rows)
    return {
        "tasks": found.rows,
        "right": found.right,
        "accuracy": round(found.right / found.rows, 4),
        "accuracy_interval": [round(low, 4), round(high, 4)],
        "mean_cost_nanousd": found.mean_cost,
        "answered_by": {m: round(n / found.rows, 4) for m, n in zip(models, found.answered, strict=True)},
    }


def alone_report(cases: Sequence[Case], models: Sequence[str]) -> dict[str, Any]:
    """Each model answering everything itself: what the cascade has to be better or cheaper than."""
    report = {}
    for place, model in enumerate(models):
        spent = NanoUSD(sum(case.costs[place] for case in cases))
        found = Outcome(len(cases), sum(case.correct[place] for case in cases), spent, ())
        report[model] = outcome_report(found, ())
        del report[model]["answered_by"]
    return report
