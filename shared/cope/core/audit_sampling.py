"""Which answers are audited, and what is then asked: decided by hash in the commit that accepts, without chance."""

import hashlib
from dataclasses import dataclass
from typing import TypeVar, cast

from cope.core.answers.model import AnswerKey
from cope.core.audit import AuditState, Stratum
from cope.core.codec import encode_payload, encode_policy
from cope.core.errors import BadRequest
from cope.core.exact_text import exact_fraction
from cope.core.history import FinishedStep, History, step_named
from cope.core.ids import ProjectId, TaskId
from cope.core.policies.decision import Accept, Decision
from cope.core.policies.spec import PolicyName, PolicySpec
from cope.core.problem import Kind
from cope.core.stages import Tier
from cope.core.task import StoreLevel, TaskSpec

WHOLE = 1_000_000
"""Shares are whole numbers of millionths."""

AUDIT_PRIORITY = 1_000_000_000
"""Behind every task that somebody waits for: a lower number goes first."""

T = TypeVar("T", bound=str)

_CONFIDENT = frozenset({PolicyName.COPE, PolicyName.COPE_S2})


@dataclass(frozen=True, slots=True)
class Auditable:
    """A confident answer of the small model, as it was accepted."""

    stratum: Stratum
    answer: str
    key: AnswerKey


def auditable(spec: TaskSpec, history: History, decision: Decision) -> Auditable | None:
    """What an audit of this decision would look at; None for all but an answer that the small model's vote accepted.

    A task that keeps no texts is left out: its question is not to be kept any longer than its own work takes. So are
    the baselines, which never escalate, and answers that money or a policy's end cut short of acceptance.
    """
    if not isinstance(decision, Accept) or spec.policy.name not in _CONFIDENT or spec.store is StoreLevel.NONE:
        return None
    if spec.problem.kind is Kind.CODE:
        return None  # programs are not compared by their text, and one that passes was already tested
    if not decision.accepted or decision.degraded or decision.vote is None or decision.vote.winner is None:
        return None
    step = step_named(history, decision.step)
    if step is None or step.tier is not Tier.SMALL:
        return None
    winner = decision.vote.winner
    stratum = Stratum(int(decision.stage), winner.count, step.n, step.stopped_early is not None)
    return Auditable(stratum, winner.answer, winner.key)


def is_sampled(task_id: TaskId, project_id: ProjectId, share: int) -> bool:
    """Whether this answer belongs to the share (in millionths) that is audited: a hash of the ids alone, so that it
    depends neither on the answer nor its confidence, and a commit that is repeated decides alike."""
    drawn = hashlib.sha256(f"audit:{project_id}:{task_id}".encode()).digest()[:8]
    return int.from_bytes(drawn, "big") * WHOLE < share << 64


def audit_policy(policy: PolicySpec) -> str:
    """The encoded policy that asks the large model once, as Stage 3 would without a guideline. Equal for all tasks with
    the same large model, prompts and temperatures."""
    return encode_policy(
        PolicySpec(
            PolicyName.AUDIT,
            small=policy.small,
            large=policy.large,
            n=1,
            temperatures=policy.temperatures,
            prompt_set=policy.prompt_set,
        )
    )


def audit_payload(spec: TaskSpec) -> str:
    """The same question, in the same form. The line's own cap stays behind: the line does not pay for this."""
    return encode_payload(spec.problem, spec.options, requested_model=spec.requested_model, store=spec.store)


def verdict(small_key: str, step: FinishedStep | None) -> AuditState:
    """How an audit ends: `step` is the large model's answer, None where it gave none."""
    if step is None or not step.arrived:
        return AuditState.DROPPED
    key = step.arrived[0].key
    if key is None:
        return AuditState.UNPARSABLE
    return AuditState.AGREED if storable(key) == storable(small_key) else AuditState.DISAGREED


def storable(text: T) -> T:
    """The text without NUL, which a database does not take; a model may write anything."""
    return cast("T", text.replace("\x00", "␀"))


def as_share(value: object, param: str) -> int:
    """Millionths of ``"0.02"``: a decimal in [0, 1] with at most six places. Raises `BadRequest`."""
    wrong = BadRequest(
        f'`{param}` must be a share from 0 to 1 as text, such as "0.02", with at most six decimals; 0 is off.',
        param=param,
    )
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or len(str(value)) > 32:
        raise wrong
    try:
        millionths = exact_fraction(str(value)) * WHOLE
    except (ValueError, ZeroDivisionError):
        raise wrong from None
    if millionths.denominator != 1 or not 0 <= millionths <= WHOLE:
        raise wrong
    return int(millionths)


def share_text(share: int) -> str:
    """The decimal of so many millionths: ``"0.02"``."""
    whole, part = divmod(share, WHOLE)
    return f"{whole}.{part:06d}".rstrip("0").rstrip(".")
