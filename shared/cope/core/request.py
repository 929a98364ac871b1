"""From a chat body to a task: every option is honoured or refused by name, never dropped silently.

Hand-written rather than a schema library's, because it runs once per line of a million-line batch, and because each
refusal says what, where and how to mend it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

import orjson

from cope.core.audit_sampling import as_share
from cope.core.errors import BadRequest, NotAvailableYet
from cope.core.models import ModelCatalog
from cope.core.money import NanoUSD
from cope.core.policies.spec import PolicyName, PolicySpec
from cope.core.problem import Kind, Message, MessageRole, Problem
from cope.core.request_actions import ACTION_KEYS, action_problem, refuse_action_keys
from cope.core.request_baselines import check_fit, check_models_fit, for_kind
from cope.core.request_code import CODE_KEYS, code_problem, refuse_code_options
from cope.core.request_open import OPEN_KEYS, check_open, open_problem, refuse_open_keys
from cope.core.request_policy import COPE_POLICY_KEYS, LATER_COPE_KEYS, resolve_policy
from cope.core.request_values import as_choice, as_int, as_mapping, as_number, as_text, as_text_list, as_usd
from cope.core.responses.form import ResponseForm
from cope.core.task import NO_OPTIONS, Cache, CallerOptions, OnBudget, ProviderBatch, StoreLevel

SERVED_KINDS = (Kind.MATH, Kind.CHOICE, Kind.EXACT, Kind.CODE, Kind.OPEN, Kind.ACTION)
_ROLES = frozenset({"system", "developer", "user", "assistant"})
_TASK_KEYS = frozenset(
    {"kind", "seed", "choices", "answer_pattern", "answer_pointer", "on_budget", "priority", "store", "max_cost_usd"}
    | {"provider_batch", "cache"}
    | CODE_KEYS
    | OPEN_KEYS
    | ACTION_KEYS
)
BATCH_ONLY_KEYS = frozenset({"webhook_url", "order", "dry_run", "audit_share", "open"})
_COPE_KEYS = _TASK_KEYS | COPE_POLICY_KEYS

# Fields of OpenAI's body that change nothing about the answer here: labels, and neutral values of refused options.
_LABELS = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key", "store"})
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "stream": (False, None),
    "logprobs": (False, None),
    "top_logprobs": (None, 0),
    "presence_penalty": (0, 0.0, None),
    "frequency_penalty": (0, 0.0, None),
    "logit_bias": (None, {}),
    "tools": (None, []),
    "tool_choice": (None, "none"),
    "functions": (None, []),
    "function_call": (None, "none"),
    "response_format": (None, {"type": "text"}),
    "service_tier": (None, "auto", "default"),
    "modalities": (None, ["text"]),
    "stream_options": (None,),
    "reasoning_effort": (None,),
    "verbosity": (None,),
    "prediction": (None,),
    "audio": (None,),
    "web_search_options": (None,),
    "parallel_tool_calls": (None, True, False),
}
_HANDLED = frozenset(
    {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "n", "seed", "cope"}
)
_OPTION_FIELDS = frozenset({"max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "n"})
_NO_OPTIONS = CallerOptions()
# Where further choices are further samples of the answer's class; the others end with a single sample or pool steps.
_VOTED_IN_ONE_STEP = frozenset(
    {PolicyName.COPE, PolicyName.COPE_S2, PolicyName.SMALL_MAJORITY, PolicyName.SMALL_GUIDED}
)
T = TypeVar("T")

MAX_MESSAGES = 2048
MAX_STOPS = 4
MAX_CHOICES = 256
MAX_PATTERN = 1000
MAX_PRIORITY = 1000
MAX_REMEMBERED = 1024
DEFAULT_PILOT, MAX_PILOT = 100, 2000


@dataclass(frozen=True, slots=True)
class RequestDefaults:
    """What a request inherits: its project's kind, its batch's `cope` block, and how running out of money ends it."""

    kind: Kind
    cope: Mapping[str, object] = field(default_factory=dict)
    on_budget: OnBudget = OnBudget.HOLD


class ParsedRequest(NamedTuple):
    """A request that can be carried out. `seed` is None where the caller gave none; lower `priority` goes first."""

    problem: Problem
    policy: PolicySpec
    options: CallerOptions
    requested_model: str
    seed: int | None
    on_budget: OnBudget
    store: StoreLevel
    priority: int
    max_cost: NanoUSD | None = None
    provider_batch: ProviderBatch = ProviderBatch.AUTO
    form: ResponseForm | None = None
    cache: Cache = Cache.OFF


@dataclass(frozen=True, slots=True)
class BatchCope:
    """The `cope` block at the top of a batch: what concerns the batch, and the defaults for its lines.

    `max_cost` bounds all its lines together; `dry_run` is the most lines that a quote's pilot tries (None: a real
    batch); `audit_share` is in millionths (None leaves the project's). `open` takes lines until it is sealed.
    """

    webhook_url: str | None
    by_input: bool
    max_cost: NanoUSD | None
    line_defaults: Mapping[str, object]
    dry_run: int | None = None
    audit_share: int | None = None
    open: bool = False


@dataclass(frozen=True, slots=True)
class _TaskValues:
    """What a `cope` block, merged with the defaults, says of the task (not of its policy)."""

    kind: Kind
    on_budget: OnBudget
    store: StoreLevel
    priority: int
    max_cost: NanoUSD | None
    provider_batch: ProviderBatch
    cache: Cache


class RequestParser:
    """Parses many requests with the same defaults; what repeats is resolved once."""

    def __init__(self, defaults: RequestDefaults, catalog: ModelCatalog) -> None:
        self._defaults = defaults
        self._catalog = catalog
        self._policies: dict[tuple[str, Kind, bytes], PolicySpec] = {}
        self._inherited: _TaskValues | None = None
        # By model, the first request that was no more than that model and messages: the next differ in these alone.
        self._plain: dict[str, ParsedRequest] = {}

    def parse(self, body: Mapping[str, object]) -> ParsedRequest:
        """The request in `body`. Raises `BadRequest` (or `NotAvailableYet`) with a dotted `param`."""
        plain = len(body) == 2 and "model" in body and "messages" in body
        if plain and (known := self._like_before(body)) is not None:
            return known
        request = self._parse(body)
        problem = request.problem
        if plain and problem == Problem(problem.kind, problem.conversation) and len(self._plain) < MAX_REMEMBERED:
            self._plain[request.requested_model] = request
        return request

    def _like_before(self, body: Mapping[str, object]) -> ParsedRequest | None:
        """A line of a million: one user's message to a model that was met before. None sends any other the long way."""
        model, messages = body["model"], body["messages"]
        known = self._plain.get(model) if isinstance(model, str) else None
        if known is None or not isinstance(messages, list) or len(messages) != 1:
            return None
        message = _plain_message(messages[0])
        if message is None or message.role != "user":
            return None
        return ParsedRequest(Problem(known.problem.kind, (message,)), *known[1:])

    def _parse(self, body: Mapping[str, object]) -> ParsedRequest:
        refuse_unsupported(body)
        own = body.get("cope")
        own_cope: Mapping[str, object] = {} if own is None else as_mapping(own, "cope")
        cope = self._defaults.cope
        if own_cope:
            check_cope_keys(own_cope, "cope", batch=False)
            cope = {**cope, **own_cope}
            values = self._values(cope)
        elif self._inherited is None:
            values = self._inherited = self._values(cope)
        else:
            values = self._inherited
        model = as_text(body.get("model"), "model", longest=256)
        policy = self._policy(model, own_cope, values.kind)
        if policy.prompt_set is not None or policy.baseline.prompt_sets:
            check_fit(policy, values.kind, self._catalog)
        if policy.name is not PolicyName.PASSTHROUGH:
            refuse_code_options(values.kind, policy, self._catalog)
        problem = _problem(body, cope, values.kind, policy)
        options = NO_OPTIONS if _OPTION_FIELDS.isdisjoint(body) else _options(body, policy)
        check_open(problem, policy, own_cope, self._catalog, model=model, choices_n=options.choices_n)
        check_models_fit(policy, values.kind, self._catalog)
        return ParsedRequest(
            problem=problem,
            policy=policy,
            options=options,
            requested_model=model,
            seed=_seed(body, cope),
            on_budget=values.on_budget,
            store=values.store,
            priority=values.priority,
            max_cost=values.max_cost,
            provider_batch=values.provider_batch,
            cache=values.cache,
        )

    def _values(self, cope: Mapping[str, object]) -> _TaskValues:
        return _TaskValues(
            kind=parse_kind(cope["kind"], "cope.kind") if "kind" in cope else self._defaults.kind,
            on_budget=_on_budget(cope, self._defaults.on_budget),
            store=StoreLevel(as_choice(cope.get("store", StoreLevel.ANSWERS.value), "cope.store", tuple(StoreLevel))),
            priority=as_int(cope.get("priority", 0), "cope.priority", low=0, high=MAX_PRIORITY),
            max_cost=as_usd(cope["max_cost_usd"], "cope.max_cost_usd")
            if cope.get("max_cost_usd") is not None
            else None,
            provider_batch=ProviderBatch(
                as_choice(cope.get("provider_batch", "auto"), "cope.provider_batch", tuple(ProviderBatch))
            ),
            cache=Cache(as_choice(cope.get("cache", Cache.OFF.value), "cope.cache", tuple(Cache))),
        )

    def _policy(self, model: str, own_cope: Mapping[str, object], kind: Kind) -> PolicySpec:
        """One object for all lines that ask for the same: who reads many tells policies apart by identity."""
        chosen = {key: value for key, value in own_cope.items() if key in COPE_POLICY_KEYS}
        key = (model, kind, orjson.dumps(chosen, option=orjson.OPT_SORT_KEYS) if chosen else b"")
        known = self._policies.get(key)
        if known is None:
            named = "prompt_sets" in chosen or "prompt_sets" in self._defaults.cope
            known = resolve_policy(model, chosen, self._defaults.cope, self._catalog)
            known = for_kind(known, kind, named=named)
            if len(self._policies) < MAX_REMEMBERED:
                self._policies[key] = known
        return known


def parse_request(body: Mapping[str, object], *, defaults: RequestDefaults, catalog: ModelCatalog) -> ParsedRequest:
    """One request; `RequestParser` is the way for many. Raises `BadRequest`."""
    return RequestParser(defaults, catalog).parse(body)


def parse_kind(value: object, param: str) -> Kind:
    """A kind that this version serves. Raises `BadRequest`, `NotAvailableYet` for a documented one it does not."""
    kind = Kind(as_choice(value, param, tuple(Kind)))
    if kind not in SERVED_KINDS:
        raise NotAvailableYet(f"Kind {kind.value!r} is not served by this version yet.", param=param)
    return kind


def parse_cope_defaults(block: object, *, catalog: ModelCatalog, kind: Kind) -> BatchCope:
    """The `cope` block of `POST /v1/batches`. Its line defaults are checked by parsing a model request with them.

    Raises `BadRequest` naming the key.
    """
    cope: Mapping[str, object] = {} if block is None else as_mapping(block, "cope")
    check_cope_keys(cope, "cope", batch=True)
    url = cope.get("webhook_url")
    order = as_choice(cope.get("order", "completion"), "cope.order", ("completion", "input"))
    max_cost, audit_share = cope.get("max_cost_usd"), cope.get("audit_share")
    # Said of a batch, it bounds the whole batch: a line's own cap stands on the line.
    defaults = {key: value for key, value in cope.items() if key not in {*BATCH_ONLY_KEYS, "max_cost_usd"}}
    probe_cope = {key: value for key, value in defaults.items() if key not in {"choices", "actions"}}
    if probe_cope.get("kind", kind.value) == Kind.CODE.value:
        probe_cope.setdefault("tests", ["assert True"])  # a line brings its own
    if probe_cope.get("kind", kind.value) == Kind.ACTION.value:
        probe_cope["actions"] = defaults.get("actions", ["look"])  # a line brings its own
    if probe_cope.get("kind") == Kind.CHOICE.value:
        probe_cope["choices"] = defaults.get("choices", ["a", "b"])
    name = "cope" if "policy" not in defaults else as_text(defaults["policy"], "cope.policy", longest=256)
    probe = {"model": name, "messages": [{"role": "user", "content": "?"}], "cope": probe_cope}
    # Meant for the lines of kind `open` among them; those may also bring thresholds of their own.
    theta = probe_cope.pop("theta", 1)
    parse_request(probe, defaults=RequestDefaults(kind, {"theta": theta}), catalog=catalog)
    return BatchCope(
        webhook_url=None if url is None else as_text(url, "cope.webhook_url", longest=2000),
        by_input=order == "input",
        max_cost=None if max_cost is None else as_usd(max_cost, "cope.max_cost_usd"),
        line_defaults=defaults,
        dry_run=_dry_run(cope.get("dry_run")),
        audit_share=None if audit_share is None else as_share(audit_share, "cope.audit_share"),
        open=_open(cope.get("open")),
    )


def _open(value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        raise BadRequest("`cope.open` must be true or false.", param="cope.open")
    return value is True


def _dry_run(value: object) -> int | None:
    if value is None or value is False:
        return None
    if value is True:
        return DEFAULT_PILOT
    if not isinstance(value, dict):
        raise BadRequest('`cope.dry_run` is true, or such as {"pilot_lines": 200}.', param="cope.dry_run")
    for key in value:
        if key != "pilot_lines":
            raise BadRequest(
                f"Unknown key `{key}` in `cope.dry_run`. Known keys: pilot_lines.",
                param=f"cope.dry_run.{key}",
                code="unknown_parameter",
            )
    return as_int(value.get("pilot_lines", DEFAULT_PILOT), "cope.dry_run.pilot_lines", low=0, high=MAX_PILOT)


def check_cope_keys(cope: Mapping[str, object], where: str, *, batch: bool) -> None:
    """Refuse unknown keys, and documented ones whose feature is not built yet, by name."""
    for key in cope:
        if key in _COPE_KEYS or (batch and key in BATCH_ONLY_KEYS):
            continue
        param = f"{where}.{key}"
        if key == "on_expiry" and as_choice(cope[key], param, ("fail", "best_vote")) == "fail":
            continue  # what happens to every line that has no answer when its batch expires
        if key in BATCH_ONLY_KEYS:
            raise BadRequest(
                f"`{key}` belongs to the batch, not to a line: move it to the batch's `cope`.", param=param
            )
        if key in LATER_COPE_KEYS:
            raise NotAvailableYet(f"`{param}` is documented but not served by this version yet.", param=param)
        known = ", ".join(sorted(_COPE_KEYS))
        raise BadRequest(
            f"Unknown key `{key}` in `{where}`. Known keys: {known}.", param=param, code="unknown_parameter"
        )


def refuse_unsupported(body: Mapping[str, object]) -> None:
    """Refuse every field of the body that a cascade can't honour, unless it has its neutral value."""
    for name, value in body.items():
        if name in _HANDLED or name in _LABELS:
            continue
        neutral = _NEUTRAL.get(name)
        if neutral is None:
            raise BadRequest(f"Unknown field `{name}`.", param=name, code="unknown_parameter")
        if not any(type(value) is type(plain) and value == plain for plain in neutral):
            raise BadRequest(
                f"`{name}` can't be honoured here, and is not ignored silently: remove it.",
                param=name,
                code="unsupported_parameter",
            )


def _problem(body: Mapping[str, object], cope: Mapping[str, object], kind: Kind, policy: PolicySpec) -> Problem:
    conversation = _conversation(body.get("messages"))
    if policy.name is PolicyName.PASSTHROUGH:
        for key in CODE_KEYS & cope.keys():
            raise BadRequest(
                f"`cope.{key}` needs a policy, but `model` names a single model: set `cope.policy` too.",
                param=f"cope.{key}",
            )
        refuse_action_keys(cope, "needs a policy, but `model` names a single model: set `cope.policy` too.")
        return Problem(Kind.EXACT, conversation)
    if conversation[-1].role != "user":
        raise BadRequest("The last message must be the user's: it is the problem to solve.", param="messages")
    if not cope and kind not in {Kind.CHOICE, Kind.CODE, Kind.ACTION}:
        return Problem(kind, conversation)
    if kind is Kind.OPEN:
        _refuse_of_other_kinds(cope)
        code_problem(action_problem(Problem(kind, conversation), cope), cope, policy.name)
        return open_problem(conversation, cope)
    refuse_open_keys(cope, kind)
    choices: tuple[str, ...] = ()
    if kind is Kind.CHOICE:
        if "choices" not in cope:
            raise BadRequest("Kind `choice` needs `cope.choices`: the options to choose from.", param="cope.choices")
        choices = as_text_list(cope["choices"], "cope.choices", fewest=2, most=MAX_CHOICES)
        if len({choice.strip().casefold() for choice in choices}) != len(choices):
            raise BadRequest("`cope.choices` holds the same option twice.", param="cope.choices")
    elif "choices" in cope:
        raise BadRequest("`choices` belongs to kind `choice`.", param="cope.choices")
    pattern = _only_for_exact(cope, kind, "answer_pattern")
    pointer = _only_for_exact(cope, kind, "answer_pointer")
    if pattern is not None and pointer is not None:
        raise BadRequest("Give `answer_pattern` or `answer_pointer`, not both.", param="cope.answer_pointer")
    if pointer is not None and pointer != "" and not pointer.startswith("/"):
        raise BadRequest("A JSON pointer is empty or starts with '/', such as '/label'.", param="cope.answer_pointer")
    problem = action_problem(Problem(kind, conversation, choices, pattern, pointer), cope)
    return code_problem(problem, cope, policy.name)


def _refuse_of_other_kinds(cope: Mapping[str, object]) -> None:
    for key, kind in (("choices", "choice"), ("answer_pattern", "exact"), ("answer_pointer", "exact")):
        if cope.get(key) is not None:
            raise BadRequest(f"`{key}` belongs to kind `{kind}`.", param=f"cope.{key}")


def _only_for_exact(cope: Mapping[str, object], kind: Kind, key: str) -> str | None:
    value = cope.get(key)
    if value is None:
        return None
    if kind is not Kind.EXACT:
        raise BadRequest(f"`{key}` belongs to kind `exact`.", param=f"cope.{key}")
    return as_text(value, f"cope.{key}", longest=MAX_PATTERN, allow_empty=key == "answer_pointer")


def _conversation(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise BadRequest("`messages` must be a non-empty list.", param="messages")
    if len(value) > MAX_MESSAGES:
        raise BadRequest(f"`messages` holds over {MAX_MESSAGES} messages.", param="messages")
    return tuple([_plain_message(item) or _message(item, f"messages[{i}]") for i, item in enumerate(value)])


def _plain_message(value: object) -> Message | None:
    """The commonest form of a message, read quickly; None sends any other the careful way."""
    if isinstance(value, dict) and len(value) == 2:
        role, content = value.get("role"), value.get("content")
        if isinstance(role, str) and role in _ROLES and isinstance(content, str) and "\x00" not in content:
            return Message(cast("MessageRole", role), content)
    return None


def _message(value: object, where: str) -> Message:
    if not isinstance(value, dict):
        raise BadRequest(f"`{where}` must be an object with `role` and `content`.", param=where)
    role, content = value.get("role"), value.get("content")
    if not isinstance(role, str) or role not in _ROLES:
        raise BadRequest(f"`{where}.role` must be one of system, developer, user, assistant.", param=f"{where}.role")
    for name in value if len(value) > 2 else ():
        if name not in {"role", "content"} and not (name == "refusal" and value[name] is None):
            raise BadRequest(f"`{where}.{name}` can't be honoured here: remove it.", param=f"{where}.{name}")
    if isinstance(content, list):
        content = "".join(_text_part(part, f"{where}.content[{i}]") for i, part in enumerate(content))
    if not isinstance(content, str):
        raise BadRequest(f"`{where}.content` must be text.", param=f"{where}.content")
    if "\x00" in content:
        raise BadRequest(f"`{where}.content` holds a NUL character.", param=f"{where}.content")
    return Message(cast("MessageRole", role), content)


def _text_part(part: object, where: str) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return cast("str", part["text"])
    raise BadRequest(f"`{where}` must be a text part: images, audio and files can't be honoured here.", param=where)


def _options(body: Mapping[str, Any], policy: PolicySpec) -> CallerOptions:
    limit, newer = body.get("max_tokens"), body.get("max_completion_tokens")
    if limit is not None and newer is not None and limit != newer:
        raise BadRequest("`max_tokens` and `max_completion_tokens` contradict each other.", param="max_tokens")
    limit = newer if limit is None else limit
    stop = body.get("stop")
    stops: tuple[str, ...] = ()
    if isinstance(stop, str):
        stops = as_text_list([stop], "stop", fewest=1, most=1)
    elif stop is not None:
        stops = as_text_list(stop, "stop", fewest=0, most=MAX_STOPS)
    return CallerOptions(
        max_tokens=_optional(limit, "max_tokens", lambda v, p: as_int(v, p, low=1, high=1_000_000)),
        temperature=_optional(body.get("temperature"), "temperature", lambda v, p: as_number(v, p, low=0, high=2)),
        top_p=_optional(body.get("top_p"), "top_p", lambda v, p: as_number(v, p, low=0, high=1, open_low=True)),
        stop=stops,
        choices_n=_choices_n(body.get("n"), policy),
    )


def _optional(value: object, param: str, parse: Callable[[object, str], T]) -> T | None:
    return None if value is None else parse(value, param)


def _choices_n(value: object, policy: PolicySpec) -> int:
    if value is None:
        return 1
    n = as_int(value, "n", low=1, high=64)
    most = policy.n
    if policy.name is PolicyName.PASSTHROUGH:
        most = 64
    elif policy.name not in _VOTED_IN_ONE_STEP:
        most = 1
    if n > most:
        raise BadRequest(f"Policy {policy.name.value!r} can return at most {most} choices.", param="n")
    return n


def _seed(body: Mapping[str, object], cope: Mapping[str, object]) -> int | None:
    own, openai = cope.get("seed"), body.get("seed")
    if own is not None:
        return as_int(own, "cope.seed", low=-(2**63), high=2**63 - 1)
    return None if openai is None else as_int(openai, "seed", low=-(2**63), high=2**63 - 1)


def _on_budget(cope: Mapping[str, object], default: OnBudget) -> OnBudget:
    value = cope.get("on_budget")
    if value is None:
        return default
    return OnBudget(as_choice(value, "cope.on_budget", tuple(OnBudget)))
