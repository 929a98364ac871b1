"""θ: the perplexity at or below which kind `open` accepts, per policy and category of traffic (cascade, section 3)."""

from collections.abc import Mapping
from fractions import Fraction

from cope.core.errors import BadRequest
from cope.core.exact_text import exact_fraction

DEFAULT = "default"
"""The category of every line that names none, or one without a threshold of its own."""

MAX_CATEGORIES, MAX_CATEGORY_CHARS = 256, 64
_MOST = Fraction(10**9)

Theta = tuple[tuple[str, Fraction], ...]
"""Thresholds by category, in the categories' order."""


def parse_theta(value: object, param: str) -> Theta:
    """From one number ≥ 1 (``"3.2"``, 3.2), or an object of them by category. Raises `BadRequest` naming the place."""
    if not isinstance(value, Mapping):
        return ((DEFAULT, _threshold(value, param)),)
    if not 1 <= len(value) <= MAX_CATEGORIES:
        raise BadRequest(f"`{param}` holds 1 to {MAX_CATEGORIES} categories.", param=param)
    for category in value:
        if not isinstance(category, str) or not 0 < len(category) <= MAX_CATEGORY_CHARS or "\x00" in category:
            raise BadRequest(f"`{param}`: a category has 1 to {MAX_CATEGORY_CHARS} characters.", param=param)
    return tuple((category, _threshold(value[category], f"{param}.{category}")) for category in sorted(value))


def theta_of(theta: Theta, category: str | None) -> Fraction | None:
    """The threshold of a category: its own, else the default's; None where there is neither."""
    by_category = dict(theta)
    own = None if category is None else by_category.get(category)
    return by_category.get(DEFAULT) if own is None else own


def _threshold(value: object, param: str) -> Fraction:
    wrong = BadRequest(f'`{param}` must be a perplexity of 1 or more, such as "3.2".', param=param)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or len(str(value)) > 64:
        raise wrong
    try:
        parsed = exact_fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise wrong from None
    if not 1 <= parsed <= _MOST:
        raise wrong
    return parsed
