"""Builders of small, literal values for tests: ``from tests.support import make_spec``.

Each gives a whole valid value; a test names only what it is about. Ids count up, so they sort in the order made.
"""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from hashlib import sha256

from cope.adapters.memory import SequentialIds
from cope.core import ids
from cope.core.answers.model import AnswerKey
from cope.core.codec import encode_payload, encode_policy
from cope.core.history import FinishedStep, Sample, SampleStatus
from cope.core.ids import BatchId, EndpointId, FileId, KeyId, ProjectId, TaskId
from cope.core.lifecycle import BatchStatus
from cope.core.money import NanoUSD, Price, TokenUsage, parse_usd
from cope.core.policies.spec import PolicyName, PolicySpec
from cope.core.problem import Kind, Message, Problem
from cope.core.records import ApiKey, Batch, Project, StoredFile, WebhookEndpoint
from cope.core.stages import Stage, Tier
from cope.core.task import CallerOptions, OnBudget, StoreLevel, TaskSpec
from cope.ports.store import NewTask

NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
"""The moment at which `FixedClock` begins."""

_ids = SequentialIds(start=1_000_000_000)  # far from those that a store under test makes for itself


def new_id(prefix: str) -> str:
    """A fresh id."""
    return _ids.new(prefix)


def usd(text: str) -> NanoUSD:
    """Nano-dollars of ``"0.25"``."""
    return parse_usd(text)


def make_problem(text: str = "What is 2 + 3?", *, kind: Kind = Kind.MATH) -> Problem:
    """One user message."""
    return Problem(kind=kind, conversation=(Message("user", text),))


def make_policy(name: PolicyName = PolicyName.COPE, *, n: int = 4, tau1: str = "3/4", tau2: str = "1/2") -> PolicySpec:
    """The models are called `small` and `large`."""
    return PolicySpec(name=name, small="small", large="large", n=n, tau1=Fraction(tau1), tau2=Fraction(tau2))


def make_spec(
    problem: Problem | None = None,
    *,
    policy: PolicySpec | None = None,
    seed: int = 7,
    options: CallerOptions | None = None,
    on_budget: OnBudget = OnBudget.HOLD,
    store: StoreLevel = StoreLevel.ANSWERS,
    task_id: TaskId | None = None,
) -> TaskSpec:
    """A task as policies see it."""
    return TaskSpec(
        task_id=task_id or TaskId(new_id(ids.TASK)),
        problem=problem or make_problem(),
        policy=policy or make_policy(),
        requested_model="cope",
        seed=seed,
        options=options or CallerOptions(),
        on_budget=on_budget,
        store=store,
    )


def make_new_task(
    line: int = 1,
    *,
    queue: str = "small",
    priority: int = 0,
    custom_id: str | None = None,
    spec: TaskSpec | None = None,
) -> NewTask:
    """A validated line."""
    spec = spec or make_spec()
    return NewTask(
        task_id=spec.task_id,
        line=line,
        custom_id=custom_id or f"line-{line}",
        payload=encode_payload(
            spec.problem,
            spec.options,
            requested_model=spec.requested_model,
            store=spec.store,
            max_cost=spec.max_cost,
            form=spec.form,
        ),
        policy=encode_policy(spec.policy),
        seed=spec.seed,
        queue=queue,
        priority=priority,
        on_budget=spec.on_budget,
    )


def make_project(
    name: str = "tests", *, cap: NanoUSD | None = None, time_zone: str = "UTC", paused: bool = False
) -> Project:
    """A project, without a limit unless given a cap."""
    return Project(
        id=ProjectId(new_id(ids.PROJECT)),
        name=name,
        created_at=NOON,
        time_zone=time_zone,
        cap=cap,
        default_kind="math",
        paused=paused,
    )


def make_key(project_id: ProjectId, secret: str = "sk-test", name: str = "default") -> ApiKey:
    """A key of this secret."""
    return ApiKey(
        id=KeyId(new_id(ids.KEY)),
        project_id=project_id,
        name=name,
        hash=sha256(secret.encode()).digest(),
        hint=secret[-4:],
        created_at=NOON,
    )


def make_file(
    project_id: ProjectId, *, purpose: str = "batch", filename: str = "input.jsonl", size: int = 10
) -> StoredFile:
    """A file's row; its bytes are nowhere."""
    return StoredFile(
        id=FileId(new_id(ids.FILE)),
        project_id=project_id,
        filename=filename,
        purpose=purpose,
        bytes=size,
        lines=1,
        sha256="0" * 64,
        created_at=NOON,
    )


def make_batch(
    project_id: ProjectId,
    input_file_id: FileId,
    *,
    created_at: datetime = NOON,
    webhook_url: str | None = None,
    key_id: KeyId | None = None,
) -> Batch:
    """A batch as `POST /v1/batches` makes it."""
    return Batch(
        id=BatchId(new_id(ids.BATCH)),
        project_id=project_id,
        key_id=key_id,
        endpoint="/v1/chat/completions",
        input_file_id=input_file_id,
        completion_window="24h",
        status=BatchStatus.VALIDATING,
        created_at=created_at,
        webhook_url=webhook_url,
    )


def make_price(input_usd: str, output_usd: str, *, price_id: str = "p", version: str = "2026-11") -> Price:
    """Dollars per million tokens; cached input costs half. In force since long ago."""
    dear = parse_usd(input_usd)
    return Price(price_id, version, dear, NanoUSD(dear // 2), parse_usd(output_usd), NOON.replace(year=2025))


def make_endpoint(
    project_id: ProjectId,
    *,
    url: str = "https://hooks.example.com/cope",
    event_types: tuple[str, ...] = ("batch.completed",),
    secret: str = "whsec_dGVzdHMtc2lnbi10aGVpci13ZWJob29rcw==",
) -> WebhookEndpoint:
    """A project's webhook endpoint."""
    return WebhookEndpoint(
        id=EndpointId(new_id(ids.ENDPOINT)),
        project_id=project_id,
        name="hooks",
        url=url,
        event_types=event_types,
        created_at=NOON,
        updated_at=NOON,
        secret=secret,
    )


def sample(
    index: int,
    answer: str | None = "5",
    *,
    plan: str | None = "Add the numbers.",
    solution: str | None = None,
    status: SampleStatus = SampleStatus.FINISHED,
    usage: TokenUsage | None = None,
) -> Sample:
    """One chain; `answer` None is an unparsable one. The key is the answer itself."""
    return Sample(
        index=index,
        status=status,
        plan=plan,
        solution=solution if solution is not None else f"The answer is {answer}.",
        answer=answer,
        key=None if answer is None else AnswerKey(answer),
        finish_reason="stop",
        usage=usage or TokenUsage(prompt=10, completion=5, calls=1),
    )


def finished_step(
    name: str = "stage1",
    *samples: Sample,
    stage: Stage = Stage.SMALL_PLANS_AND_EXECUTES,
    tier: Tier = Tier.SMALL,
    n: int | None = None,
    cost: NanoUSD = NanoUSD(0),
    usage: TokenUsage | None = None,
) -> FinishedStep:
    """A step as it was carried out; one sample that answers 5 unless given others. Usage is the samples' sum."""
    drawn = samples or (sample(0),)
    total = TokenUsage()
    for one in drawn:
        total += one.usage
    return FinishedStep(
        name=name,
        stage=stage,
        tier=tier,
        model=tier.value,
        n=n or len(drawn),
        samples=drawn,
        reason="the first step",
        prompt_version="test-1",
        started_at=NOON,
        finished_at=NOON + timedelta(seconds=1),
        usage=usage or total,
        cost=cost,
        price_version="2026-11-01" if cost else None,
    )
