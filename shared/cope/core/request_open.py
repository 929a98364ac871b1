"""What only kind `open` knows: later turns, a category, θ; and which options it contradicts. Refusals name the key."""

from collections.abc import Mapping

from cope.core.errors import BadRequest
from cope.core.models import ModelCatalog
from cope.core.perplexity import OWN_DISTRIBUTION
from cope.core.policies.spec import PolicyName, PolicySpec
from cope.core.problem import Kind, Message, Problem
from cope.core.request_values import as_text, as_text_list
from cope.core.theta import MAX_CATEGORY_CHARS, theta_of

OPEN_KEYS = frozenset({"turns", "category"})
MAX_TURNS = 32
_CASCADES = frozenset({PolicyName.COPE, PolicyName.COPE_S2})
_POLICIES = _CASCADES | {
    PolicyName.SMALL,
    PolicyName.LARGE,
    PolicyName.LARGE_PLAN,
    PolicyName.PLAN_EXECUTE,
    PolicyName.FRUGALGPT,
}
_OF_VOTES = ("tau1", "tau2", "threshold_rule", "p1_star", "waves")


def open_problem(conversation: tuple[Message, ...], cope: Mapping[str, object]) -> Problem:
    """The problem of a request of kind `open`. Raises `BadRequest`."""
    turns = () if cope.get("turns") is None else as_text_list(cope["turns"], "cope.turns", fewest=1, most=MAX_TURNS)
    category = cope.get("category")
    if category is not None:
        category = as_text(category, "cope.category", longest=MAX_CATEGORY_CHARS)
    return Problem(Kind.OPEN, conversation, turns=turns, category=category)


def refuse_open_keys(cope: Mapping[str, object], kind: Kind) -> None:
    """Raises `BadRequest` for keys that another kind than `open` can't honour."""
    for key in OPEN_KEYS:
        if cope.get(key) is not None:
            raise BadRequest(f"`{key}` belongs to kind `open`, and this line's is `{kind.value}`.", param=f"cope.{key}")


def check_open(
    problem: Problem,
    policy: PolicySpec,
    own: Mapping[str, object],
    catalog: ModelCatalog,
    *,
    model: str,
    choices_n: int,
) -> None:
    """Whether a request of kind `open` can be carried out, and whether others keep off what is open's alone.

    `own` is the line's own block: what it inherits may be meant for other lines. Raises `BadRequest`.
    """
    if problem.kind is not Kind.OPEN:
        if "theta" in own and policy.name is not PolicyName.PASSTHROUGH:
            raise BadRequest("`theta` belongs to kind `open`; votes have `tau1` and `tau2`.", param="cope.theta")
        return
    if policy.name not in _POLICIES:
        known = ", ".join(sorted(name.value for name in _POLICIES))
        raise BadRequest(
            f"Policy `{policy.name.value}` votes on answers, and open-ended texts have none: use one of {known}.",
            param="cope.policy",
        )
    for key in _OF_VOTES:
        if key in own:
            raise BadRequest(f"`{key}` belongs to votes; kind `open` accepts by `theta`.", param=f"cope.{key}")
    if "@" in model:
        raise BadRequest("Thresholds after `@` belong to votes; kind `open` accepts by `cope.theta`.", param="model")
    if problem.turns and policy.name is PolicyName.FRUGALGPT:
        # What a later turn may cost is quoted from answers that nobody accepts, and a scorer accepts by the text.
        raise BadRequest("Policy `frugalgpt` scores one answer: `cope.turns` needs another policy.", param="cope.turns")
    if problem.turns and choices_n > 1:
        raise BadRequest("`n` above 1 can't be combined with `cope.turns`: each turn has one answer.", param="n")
    if policy.name in _CASCADES:
        _check_cascade(problem, policy, catalog)


def _check_cascade(problem: Problem, policy: PolicySpec, catalog: ModelCatalog) -> None:
    if theta_of(policy.theta, problem.category) is None:
        place = "no" if problem.category is None else f"neither a default nor a {problem.category!r}"
        raise BadRequest(
            f'Kind `open` accepts by perplexity, and there is {place} threshold: give `cope.theta`, such as "3.2" or '
            '{"writing": "4.1", "default": "3.2"}. `cope calibrate` finds it from your own traffic.',
            param="cope.theta",
        )
    serves = catalog.entry(policy.small, param="cope.small").logprobs
    if serves == OWN_DISTRIBUTION:
        return
    why = (
        "returns none"
        if serves == "none"
        else "returns them after the temperature, so that samples drawn at different temperatures can't be compared"
    )
    raise BadRequest(
        f"Kind `open` needs original log-probabilities, and model {policy.small!r} {why}. Have its server return the "
        "model's own (SGLang: SGLANG_RETURN_ORIGINAL_LOGPROB=1), and say so: COPE_SMALL_LOGPROBS=original, or "
        '`logprobs = "original"` in the models file.',
        param="cope.small",
    )
