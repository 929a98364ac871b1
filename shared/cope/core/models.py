"""The configured models: data read once at start, never built in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cope.core.errors import BadRequest
from cope.core.prompts.model import PromptSet
from cope.core.stages import Tier

JsonScalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class BatchTier:
    """How a model's provider is asked through its own Batch API, where that costs less.

    A batch is sent once `min_lines` calls are gathered or the first has waited `max_wait_s`, with at most `max_lines`.
    `turnaround_s` is how long the provider is given, `margin_s` what a task's window must leave after that for a live
    call. `price_id` names the batch tier's price (None: the model's own with ``:batch``). `poll_s` is the first wait
    between two looks, `window` the completion window that is asked for.
    """

    min_lines: int = 50
    max_lines: int = 20_000
    max_wait_s: float = 600.0
    turnaround_s: float = 86_400.0
    margin_s: float = 3_600.0
    poll_s: float = 30.0
    window: str = "24h"
    price_id: str | None = None


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model that steps can name.

    `context_length` is in tokens, prompt and output together. `rpm` and `tpm` are per minute over all workers,
    `concurrency` is calls in flight over all workers; None is no limit. `price_id` names rows of the price table;
    a model of the paid tier without a price in force is never called. `api_key` is the secret itself and is kept out
    of `repr`.
    """

    name: str
    served_name: str
    base_url: str
    tier: Tier
    prompt_set: str
    context_length: int
    price_id: str | None = None
    api_key: str = field(default="", repr=False)
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    output_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    unsupported: frozenset[str] = frozenset()
    extra_body: Mapping[str, JsonScalar] = field(default_factory=dict)
    supports_seed: bool = False
    abort: Literal["none", "rid"] = "none"
    timeout_s: float = 600.0
    licence: str | None = None
    batch: BatchTier | None = None


@dataclass(frozen=True, slots=True)
class ModelCatalog:
    """All configured models by name, the default of each tier, and the prompt sets they may use."""

    entries: Mapping[str, ModelEntry]
    default_small: str
    default_large: str
    prompt_sets: Mapping[str, PromptSet]

    def entry(self, name: str, *, param: str) -> ModelEntry:
        """The model of that name. Raises `BadRequest` naming `param` and the models there are."""
        try:
            return self.entries[name]
        except KeyError:
            known = ", ".join(sorted(self.entries))
            raise BadRequest(
                f"There is no model {name!r}. Configured models: {known}.", param=param, code="model_not_found"
            ) from None

    def prompts(self, model: str, override: str | None) -> PromptSet:
        """The prompt set that a step on `model` uses: the policy's override, else the model's own."""
        return self.prompt_sets[override or self.entries[model].prompt_set]
