"""The policies' own options: which option belongs to which policy, and what the baselines' are worth.

An option on a line that its policy has no use for is refused by name. One among a batch's defaults is left to the lines
that it fits, because lines may name policies of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction

from cope.core.errors import BadRequest
from cope.core.models import ModelCatalog
from cope.core.policies.options import MAX_PROMPT_SETS, MAX_TIER_MODELS, MAX_TIERS, BaselineOptions, PlanKind, Seat
from cope.core.policies.spec import MAX_SAMPLES, PolicyName, PolicySpec
from cope.core.priced import models_of
from cope.core.problem import Kind
from cope.core.request_values import as_choice, as_int, as_text, as_text_list
from cope.core.scorer import Scorer

BASELINE_KEYS = frozenset(
    {"prompt_sets", "tiers", "samples_per_model", "agreement", "scorer", "planner", "executor", "plan"}
)
_COPE = frozenset({PolicyName.COPE, PolicyName.COPE_S2})
_FEW_SHOT = frozenset({PolicyName.CASCADE_VOTE, PolicyName.CASCADE_VERIFY})
_TIERED = frozenset({PolicyName.ABC, PolicyName.FRUGALGPT})
_VOTING = _COPE | _FEW_SHOT | {PolicyName.SMALL_MAJORITY, PolicyName.SMALL_MULTI, PolicyName.SMALL_GUIDED}
_PLAN_EXECUTE = frozenset({PolicyName.PLAN_EXECUTE})
_ALL = frozenset(PolicyName) - {PolicyName.PASSTHROUGH, PolicyName.AUDIT}

BELONGS_TO: Mapping[str, frozenset[PolicyName]] = {
    "small": _VOTING | {PolicyName.SMALL},
    "large": _COPE | _FEW_SHOT | {PolicyName.LARGE, PolicyName.LARGE_PLAN, PolicyName.SMALL_GUIDED},
    "n": _VOTING,
    "tau1": _COPE | {PolicyName.CASCADE_VOTE},
    "tau2": _COPE,
    "threshold_rule": _COPE | {PolicyName.CASCADE_VOTE, PolicyName.ABC},
    "max_stage": _COPE,
    "p1_star": _COPE,
    "theta": _COPE,
    "stop": _VOTING | {PolicyName.ABC},
    "prompt_set": _ALL - _FEW_SHOT,
    "prompt_sets": _FEW_SHOT,
    "tiers": _TIERED,
    "samples_per_model": frozenset({PolicyName.ABC}),
    "agreement": frozenset({PolicyName.ABC}),
    "scorer": frozenset({PolicyName.FRUGALGPT}),
    "planner": _PLAN_EXECUTE,
    "executor": _PLAN_EXECUTE,
    "plan": _PLAN_EXECUTE,
}
"""Options that some policies have no use for. What is not named here, any policy may be given."""

DEFAULT_PROMPT_SETS, WITHOUT_PROGRAMS = ("cot1", "pot1"), ("cot1", "cot2")
DEFAULT_SAMPLES_OF_ONE = 8
_NOT_IN_EVERY_SET = frozenset({Kind.CODE, Kind.OPEN, Kind.ACTION})

Tau = Callable[[object, str], Fraction]


def options_for(name: PolicyName, own: Mapping[str, object], merged: Mapping[str, object]) -> dict[str, object]:
    """Of `merged` what this policy can use. Raises `BadRequest` for an option of `own` that it can't."""
    for key in own:
        policies = BELONGS_TO.get(key, _ALL)
        if name not in policies:
            takers = ", ".join(sorted(policy.value for policy in policies))
            raise BadRequest(
                f"`cope.{key}` says nothing to policy {name.value!r}: remove it, or name a policy that has it "
                f"({takers}) in `cope.policy`.",
                param=f"cope.{key}",
            )
    return {key: value for key, value in merged.items() if name in BELONGS_TO.get(key, _ALL)}


def thresholds_of(policy: PolicySpec, at: str | None, param: str, tau: Tau) -> PolicySpec:
    """The policy with the thresholds after the `@` of its name (`at`, None for none). Raises `BadRequest`."""
    if at is None:
        return policy
    parts = at.split(",")
    name = policy.name
    if name in _COPE:
        if len(parts) != 2:
            raise BadRequest("Thresholds are written as `cope@tau1,tau2`, such as `cope@0.75,0.5`.", param=param)
        return replace(policy, tau1=tau(parts[0], param), tau2=tau(parts[1], param))
    if name not in {PolicyName.CASCADE_VOTE, PolicyName.ABC}:
        raise BadRequest(f"Policy {name.value!r} has no thresholds: leave out what follows the `@`.", param=param)
    if len(parts) != 1:
        raise BadRequest(f"Policy {name.value!r} has one threshold, such as `{name.value}@0.75`.", param=param)
    if name is PolicyName.ABC:
        return replace(policy, baseline=replace(policy.baseline, agreement=tau(at, param)))
    return replace(policy, tau1=tau(at, param))


def refuse_placed_model(name: PolicyName) -> None:
    """A configured model in `model` takes its tier's place in a policy, where the policy has such places."""
    if name in _TIERED | _PLAN_EXECUTE:
        where = "`cope.planner` and `cope.executor`" if name is PolicyName.PLAN_EXECUTE else "`cope.tiers`"
        raise BadRequest(
            f"Policy {name.value!r} takes its models from {where}: write {name.value!r} in `model`.", param="model"
        )


def with_baseline(policy: PolicySpec, cope: Mapping[str, object], catalog: ModelCatalog, tau: Tau) -> PolicySpec:
    """The policy with what a baseline of its name is given, defaults included. Raises `BadRequest` naming the key."""
    match policy.name:
        case PolicyName.CASCADE_VOTE | PolicyName.CASCADE_VERIFY:
            options = _few_shot(policy, cope, catalog)
        case PolicyName.ABC:
            options = _abc(policy, cope, catalog, tau)
        case PolicyName.FRUGALGPT:
            options = _frugalgpt(policy, cope, catalog)
        case PolicyName.PLAN_EXECUTE:
            options = _plan_execute(policy, cope, catalog)
        case _:
            return policy
    return replace(policy, baseline=options)


def for_kind(policy: PolicySpec, kind: Kind, *, named: bool) -> PolicySpec:
    """The policy as it suits the kind. Prompt sets that the caller did not name: programs compute answers of kind
    `math` only. Waves that a batch gives to all its lines: those of kind `open` take no vote."""
    if kind is Kind.OPEN and policy.waves:
        policy = replace(policy, waves=())
    if named or kind is Kind.MATH or policy.baseline.prompt_sets != DEFAULT_PROMPT_SETS:
        return policy
    return replace(policy, baseline=replace(policy.baseline, prompt_sets=WITHOUT_PROGRAMS))


def check_fit(policy: PolicySpec, kind: Kind, catalog: ModelCatalog) -> None:
    """Whether every prompt set that the policy names has words for this kind, and its solutions can be read.

    Raises `BadRequest`. Sets that models bring along by themselves are the operator's choice.
    """
    for name in policy.baseline.prompt_sets or ((policy.prompt_set,) if policy.prompt_set is not None else ()):
        param = "cope.prompt_sets" if policy.baseline.prompt_sets else "cope.prompt_set"
        prompts = catalog.prompt_sets[name]
        if kind not in prompts.kinds:
            served = ", ".join(sorted(one.value for one in prompts.kinds))
            raise BadRequest(
                f"Prompt set {name!r} has no prompt for kind {kind.value!r}, only for {served}: name another set.",
                param=param,
            )
        if prompts.programs and not catalog.runs_programs:
            raise BadRequest(
                f"Policy {policy.name.value!r} with prompt set {name!r} runs programs that a model wrote, and "
                "nothing here runs programs (COPE_SANDBOX_PROCESSES is 0): name sets without programs, such as "
                '"prompt_sets": ["cot1", "cot2"].',
                param=param,
                code="program_runner_not_configured",
            )


def check_models_fit(policy: PolicySpec, kind: Kind, catalog: ModelCatalog) -> None:
    """Whether the prompt sets that the policy's models bring along have words for a kind that not every set knows.

    Raises `BadRequest`. What the policy itself names is `check_fit`'s.
    """
    if kind not in _NOT_IN_EVERY_SET or policy.name is PolicyName.PASSTHROUGH or policy.baseline.prompt_sets:
        return
    for model in models_of(policy):
        prompts = catalog.prompts(model, policy.prompt_set)
        if kind not in prompts.kinds:
            raise BadRequest(
                f"Prompt set {prompts.name!r} of model {model!r} has no prompts for kind `{kind.value}`: name another "
                "in `cope.prompt_set`, such as `instruct`, or another model.",
                param="cope.prompt_set",
            )


def _few_shot(policy: PolicySpec, cope: Mapping[str, object], catalog: ModelCatalog) -> BaselineOptions:
    param, fewest, most = "cope.prompt_sets", 1, MAX_PROMPT_SETS
    if policy.name is PolicyName.CASCADE_VERIFY:
        fewest = most = 2
    names: tuple[str, ...] = DEFAULT_PROMPT_SETS if catalog.runs_programs else WITHOUT_PROGRAMS
    if "prompt_sets" in cope:
        names = as_text_list(cope["prompt_sets"], param, fewest=fewest, most=most)
        for i, name in enumerate(names):
            as_choice(name, f"{param}[{i}]", tuple(catalog.prompt_sets))
        if len(set(names)) != len(names):
            raise BadRequest(f"`{param}` names a set twice: its samples would be counted twice.", param=param)
    if policy.n % len(names):
        raise BadRequest(
            f"`cope.n` is {policy.n}, which {len(names)} prompt sets can't share equally: give a multiple of "
            f"{len(names)}.",
            param="cope.n",
        )
    return BaselineOptions(prompt_sets=names)


def _abc(policy: PolicySpec, cope: Mapping[str, object], catalog: ModelCatalog, tau: Tau) -> BaselineOptions:
    tiers = _tiers(policy, cope, catalog)
    alone = any(len(tier) == 1 for tier in tiers[:-1])
    samples = DEFAULT_SAMPLES_OF_ONE if alone else 1
    if "samples_per_model" in cope:
        samples = as_int(cope["samples_per_model"], "cope.samples_per_model", low=1, high=MAX_SAMPLES)
    widest = max(len(tier) for tier in tiers[:-1])
    if samples * widest > MAX_SAMPLES:
        raise BadRequest(
            f"{widest} models with {samples} samples each are more than {MAX_SAMPLES} votes in one tier.",
            param="cope.samples_per_model",
        )
    if alone and samples == 1:
        raise BadRequest(
            "A tier of one model with one sample always agrees with itself, so nothing would ever escalate: name more "
            "models in that tier, or raise `cope.samples_per_model`.",
            param="cope.samples_per_model",
        )
    agreement = policy.baseline.agreement
    if "agreement" in cope:
        agreement = tau(cope["agreement"], "cope.agreement")
    return BaselineOptions(tiers=tiers, samples_per_model=samples, agreement=agreement)


def _frugalgpt(policy: PolicySpec, cope: Mapping[str, object], catalog: ModelCatalog) -> BaselineOptions:
    scorer = _scorer(cope, catalog)
    param = "cope.tiers" if "tiers" in cope else "cope.scorer"
    tiers = _tiers(policy, cope, catalog) if "tiers" in cope else _seats(scorer, catalog)
    if any(len(tier) != 1 for tier in tiers):
        raise BadRequest("Policy 'frugalgpt' asks one model after another: each tier is one model.", param=param)
    models = tuple(tier[0].model for tier in tiers)
    if models != scorer.models:
        raise BadRequest(
            f"Scorer {scorer.name!r} was trained on the answers of {', '.join(scorer.models)}, in this order: "
            "leave out `cope.tiers`, or train one for yours.",
            param=param,
        )
    return BaselineOptions(tiers=tiers, scorer=scorer)


def _scorer(cope: Mapping[str, object], catalog: ModelCatalog) -> Scorer:
    known = ", ".join(sorted(catalog.scorers)) or "none: name a folder of them in COPE_SCORERS_DIR"
    if "scorer" not in cope:
        raise BadRequest(f"Policy 'frugalgpt' needs `cope.scorer`. Scorers here: {known}.", param="cope.scorer")
    name = as_text(cope["scorer"], "cope.scorer", longest=256)
    if name not in catalog.scorers:
        raise BadRequest(f"There is no scorer {name!r}. Scorers here: {known}.", param="cope.scorer")
    return catalog.scorers[name]


def _seats(scorer: Scorer, catalog: ModelCatalog) -> tuple[tuple[Seat, ...], ...]:
    return tuple((_seat(model, "cope.scorer", catalog),) for model in scorer.models)


def _tiers(policy: PolicySpec, cope: Mapping[str, object], catalog: ModelCatalog) -> tuple[tuple[Seat, ...], ...]:
    param = "cope.tiers"
    if "tiers" not in cope:
        return ((_seat(policy.small, param, catalog),), (_seat(policy.large, param, catalog),))
    given = cope["tiers"]
    if not isinstance(given, list) or not 2 <= len(given) <= MAX_TIERS:
        raise BadRequest(
            f'`{param}` must be a list of 2 to {MAX_TIERS} lists of model names, such as [["a", "b"], ["c"]].',
            param=param,
        )
    tiers: list[tuple[Seat, ...]] = []
    for i, tier in enumerate(given):
        names = as_text_list(tier, f"{param}[{i}]", fewest=1, most=MAX_TIER_MODELS)
        if len(set(names)) != len(names):
            raise BadRequest(
                f"`{param}[{i}]` names a model twice: raise `cope.samples_per_model` instead.", param=f"{param}[{i}]"
            )
        tiers.append(tuple(_seat(name, f"{param}[{i}]", catalog) for name in names))
    if len(tiers[-1]) != 1:
        raise BadRequest(
            "The last tier of `cope.tiers` is one model: its answer ends it.", param=f"{param}[{len(tiers) - 1}]"
        )
    return tuple(tiers)


def _plan_execute(policy: PolicySpec, cope: Mapping[str, object], catalog: ModelCatalog) -> BaselineOptions:
    plan = PlanKind(as_choice(cope.get("plan", PlanKind.GOAL.value), "cope.plan", tuple(PlanKind)))
    executor = as_text(cope.get("executor", policy.small), "cope.executor", longest=256)
    if plan is PlanKind.NONE:
        if "planner" in cope:
            raise BadRequest("`cope.planner` contradicts `plan: none`: leave one of them out.", param="cope.planner")
        return BaselineOptions(executor=_seat(executor, "cope.executor", catalog), plan=plan)
    planner = as_text(cope.get("planner", policy.large), "cope.planner", longest=256)
    return BaselineOptions(
        planner=_seat(planner, "cope.planner", catalog), executor=_seat(executor, "cope.executor", catalog), plan=plan
    )


def _seat(model: str, param: str, catalog: ModelCatalog) -> Seat:
    return Seat(model, catalog.entry(model, param=param).tier)
