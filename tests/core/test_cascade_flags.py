"""`--waves`, `--stop`, `--p1-star` and `--cache` of the command line, as they stand in the batch's `cope` block."""

import re
from typing import Any

import pytest
import typer

from cope_cli.cascade_flags import cascade_block
from cope_cli.options import options_of


def block(policy: str = "cope", option: list[str] | None = None, **flags: str) -> dict[str, Any]:
    return cascade_block(options_of(option, policy), policy, **flags)


def test_without_flags_the_block_is_that_of_the_options():
    assert block() == {}
    assert block(option=["n=16"]) == {"policy": "cope", "n": 16}


def test_the_flags_stand_in_the_block_beside_the_policy_they_belong_to():
    assert block(waves="6,2", stop="lossless", p1_star="arrived", cache="read") == {
        "policy": "cope",
        "waves": [6, 2],
        "stop": "lossless",
        "p1_star": "arrived",
        "cache": "read",
    }
    assert block("cope@0.75,0.5", ["n=4"], waves="2, 2") == {"policy": "cope@0.75,0.5", "n": 4, "waves": [2, 2]}


def test_a_cache_names_no_policy_so_that_it_fits_single_models_too():
    assert block("gpt-4o", cache="read") == {"cache": "read"}


@pytest.mark.parametrize(
    ("policy", "option", "flags", "said"),
    [
        ("cope", [], {"waves": "6"}, "launches 6 samples in all, but `cope.n` is 8"),
        ("cope", ["n=4"], {"waves": "6,2"}, "`cope.n` is 4"),
        ("cope", [], {"waves": "six"}, "such as 6,2, not 'six'"),
        ("cope", [], {"waves": "0,8"}, "such as 6,2"),
        ("cope", [], {"waves": "6,2", "stop": "off"}, "never stops early"),
        ("cope", ["stop=off"], {"waves": "6,2"}, "never stops early"),
        ("cope", ["stop=off"], {"stop": "lossless"}, "-o stop="),
        ("cope", ["waves=[8]"], {"waves": "8"}, "-o waves="),
        ("cope", ["cache=read"], {"cache": "read"}, "-o cache="),
        ("cope", [], {"stop": "never"}, "off or lossless or first_pass, not 'never'"),
        ("cope", [], {"p1_star": "some"}, "full or arrived, not 'some'"),
        ("cope", [], {"cache": "write"}, "off or read, not 'write'"),
        ("large", [], {"waves": "6,2"}, "policy 'large' launches none"),
        ("large", [], {"stop": "off"}, "says nothing to policy 'large'"),
        ("small-majority", [], {"p1_star": "full"}, "says nothing to policy 'small-majority'"),
        ("gpt-4o", [], {"stop": "off"}, "'gpt-4o' is none"),
    ],
)
def test_what_contradicts_itself_the_options_or_the_policy_is_refused_by_its_flag(
    policy: str, option: list[str], flags: dict[str, str], said: str
):
    with pytest.raises(typer.BadParameter, match=re.escape(said)) as refused:
        block(policy, option, **flags)
    assert refused.value.message.startswith("--")
