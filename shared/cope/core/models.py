"""The configured models: data read once at start, never built in."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from cope.core.errors import BadRequest
from cope.core.limits.book import Place
from cope.core.limits.types import Limits
from cope.core.prompts.model import PromptSet
from cope.core.scorer import Scorer
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
class Endpoint:
    """One of several keys or providers of a model; what is None or empty is the model's own.

    `limit_group`: endpoints and models that name the same group share its limits. `weight` > 0 favours an endpoint
    among those with room. `tpm_counts`: whether the provider's token limit counts what a call used in the end, or the
    prompt and the whole output limit for good.
    """

    name: str
    base_url: str
    api_key: str = field(default="", repr=False)
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    price_id: str | None = None
    weight: float = 1.0
    served_name: str | None = None
    limit_group: str | None = None
    tpm_counts: Literal["used", "limit"] = "used"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model that steps can name.

    `context_length` is in tokens, prompt and output together. `rpm` and `tpm` are per minute over all workers,
    `concurrency` is calls in flight over all workers; None is no limit. `price_id` names rows of the price table;
    a model of the paid tier without a price in force is never called. `api_key` is the secret itself and is kept out
    of `repr`.
    `logprobs` says which log-probabilities its server returns when asked: those of the model's own distribution
    (`original`, which kind `open` needs), those after the temperature, or none.
    `endpoints` are several keys or providers of it, each with limits and possibly a price of its own; empty: the one
    of the model's own fields. `at` is the model as one of them serves it.
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
    logprobs: Literal["none", "original", "temperature_scaled"] = "none"
    abort: Literal["none", "rid"] = "none"
    timeout_s: float = 600.0
    licence: str | None = None
    batch: BatchTier | None = None
    limit_group: str | None = None
    tpm_counts: Literal["used", "limit"] = "used"
    endpoints: tuple[Endpoint, ...] = ()
    endpoint: str = ""

    def at(self, endpoint: str) -> "ModelEntry":
        """This model as `endpoint` serves it: its address, key and price. A model without endpoints is its own only
        one, whatever the name. Raises `KeyError` for an endpoint that is not there."""
        if not self.endpoints:
            return self
        found = {one.name: one for one in self.endpoints}[endpoint]
        return replace(
            self,
            base_url=found.base_url,
            api_key=found.api_key,
            price_id=found.price_id or self.price_id,
            served_name=found.served_name or self.served_name,
            endpoint=endpoint,
        )

    @property
    def variants(self) -> tuple["ModelEntry", ...]:
        """The model at each of its endpoints, at least one."""
        return tuple(self.at(one.name) for one in self.endpoints) or (self,)

    @property
    def places(self) -> tuple[Place, ...]:
        """Where its calls may go, for the limiter."""
        if self.endpoints:
            return tuple(_place(self.name, one) for one in self.endpoints)
        own = Endpoint(
            self.name,
            self.base_url,
            self.api_key,
            self.rpm,
            self.tpm,
            self.concurrency,
            limit_group=self.limit_group,
            tpm_counts=self.tpm_counts,
        )
        return (_place(self.name, own),)


def _place(model: str, endpoint: Endpoint) -> Place:
    account = hashlib.sha256(f"{endpoint.base_url}\n{endpoint.api_key}".encode()).hexdigest()[:16]
    return Place(
        model=model,
        endpoint=endpoint.name,
        group=endpoint.limit_group or (model if model == endpoint.name else f"{model}/{endpoint.name}"),
        account=account,
        limits=Limits(endpoint.rpm, endpoint.tpm, endpoint.concurrency),
        weight=endpoint.weight,
        counts_used=endpoint.tpm_counts == "used",
    )


@dataclass(frozen=True, slots=True)
class ModelCatalog:
    """All configured models by name, the default of each tier, and the prompt sets they may use.

    `scorers` are FrugalGPT's by name. `runs_programs`: whether workers run programs that a model wrote.
    """

    entries: Mapping[str, ModelEntry]
    default_small: str
    default_large: str
    prompt_sets: Mapping[str, PromptSet]
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    runs_programs: bool = False

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
