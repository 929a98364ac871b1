"""Perplexity: the confidence of kind `open` (paper, section 4; cascade, section 3). Lower is surer.

PPL = exp(−mean log-probability of the generated tokens), scored by the model that generated them. Only values
of the model's own distribution make samples drawn at different temperatures comparable (Stage 1's executor is drawn at
0.4, Stage 2's at 0.8), so whoever serves the model must return those, and each step says which it used.
"""

from fractions import Fraction
from math import exp

from cope.core.history import FinishedStep, Sample

_LARGEST_EXPONENT = 700.0

OWN_DISTRIBUTION = "original"
"""What a model's entry says of a server that returns log-probabilities of the model's own distribution."""


def perplexity(mean_logprob: float) -> float:
    """In [1, ∞) for a mean log-probability ≤ 0; capped at e^700, far beyond any text."""
    return exp(min(-mean_logprob, _LARGEST_EXPONENT))


def candidate(step: FinishedStep) -> Sample | None:
    """The arrived sample of lowest perplexity, ties to the lowest index; None where no sample was scored."""
    scored = [s for s in step.arrived if s.mean_logprob is not None and s.solution]
    return max(scored, key=lambda s: (s.mean_logprob or 0.0, -s.index), default=None)


def exact_perplexity(sample: Sample) -> Fraction:
    """The perplexity of a scored sample as the exact value of its float, to compare with an exact threshold."""
    if sample.mean_logprob is None:
        raise ValueError(f"sample {sample.index} was not scored")
    return Fraction(perplexity(sample.mean_logprob))


def mean_logprob(logprobs: list[float]) -> float | None:
    """The mean over the generated tokens; None where there are none. Rounding never makes it positive."""
    return min(0.0, sum(logprobs) / len(logprobs)) if logprobs else None


def scoring_text(temperature: float) -> str:
    """The definition as it is recorded in a step."""
    return (
        "perplexity = exp(-mean log-probability of the generated tokens), original log-probabilities, sampled at "
        f"temperature {temperature:g}"
    )
