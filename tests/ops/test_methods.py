"""The comparison of methods: its table, and what counts as right."""

from collections import Counter
from decimal import Decimal

from ops.bench.methods import PAIR, RECORDED, Outcome, same, table

from cope.core.policies.spec import PolicyName


def test_numbers_are_the_same_whatever_their_form():
    assert same("1,200", "1200")
    assert same("0.30000000000000004", "0.3")
    assert not same("3", "4")
    assert not same(None, "4")
    assert same("none of them", "none of them")


def test_the_table_gives_shares_of_what_large_alone_costs():
    small = Outcome("small", 5, 10, Counter({1: 10}), Decimal(0), 2.4)
    large = Outcome("large", 9, 10, Counter({3: 10}), Decimal("0.05"), 3.0)
    cope = Outcome("cope", 9, 10, Counter({1: 6, 2: 3, 3: 1}), Decimal("0.0125"), 9.0)

    rows = table([small, large, cope]).splitlines()

    assert rows[2] == "| `small` | 5 of 10 | 23.7–76.3 | 10 / 0 / 0 | $0.00000 | 0 % | 2 |"
    assert rows[4] == "| `cope` | 9 of 10 | 59.6–98.2 | 6 / 3 / 1 | $0.01250 | 25 % | 9 |"


def test_every_policy_that_needs_no_training_is_compared_somewhere():
    everywhere = {name.value for name in PolicyName} - {"passthrough", "audit", "small-multi", "frugalgpt"}
    assert PAIR.keys() | RECORDED.keys() == everywhere
