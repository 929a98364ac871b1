"""What is looked for in every text from outside, before anything else looks at it."""

import json
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope.core.audit_sampling import as_share
from cope.core.confidence import parse_threshold
from cope.core.errors import BadRequest
from cope.core.exact_text import exact_fraction
from cope.core.json_guard import MAX_DEPTH, check_json
from cope.core.key_scopes import ALL_SCOPES, KeyScope, parse_scopes, scope_names, stored_scopes
from cope.core.money import parse_usd
from cope.core.redaction import inert_cell, one_line, printable, redact


def look(text: str, *, unique_keys: bool = True) -> None:
    raw = text.encode()
    check_json(raw, orjson.loads(raw), unique_keys=unique_keys)


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + closing * levels


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON)
def test_what_any_client_writes_passes(value: object):
    for ascii_only in (True, False):
        look(json.dumps({"body": value}, ensure_ascii=ascii_only))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a": {"b": 1, "b": 1}}',
        '{"a" : 1, "b": ":", "a" :2}',
        '{"a": [{"x": "\\"", "y": 1, "x": ""}]}',
        '{"a": 1, "\\u0061": 2}',
    ],
)
def test_a_key_given_twice_is_refused(text: str):
    with pytest.raises(BadRequest, match="same key twice"):
        look(text)
    look(text, unique_keys=False)


def test_colons_and_braces_in_strings_are_no_keys():
    look('{"a": "b: c: {d: \\"e\\": 1}", "f:g": ["h:", "\\\\"], "\\"": ":"}')


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_allowed_to_a_depth_and_refused_beyond(opening: str, closing: str):
    def deep(levels: int) -> str:
        return '{"b":' + opening * (levels - 1) + "1" + closing * (levels - 1) + "}"

    look(deep(MAX_DEPTH))
    with pytest.raises(BadRequest, match="nested deeper"):
        look(deep(MAX_DEPTH + 1))
    with pytest.raises(BadRequest, match="nested deeper"):
        look(deep(MAX_DEPTH + 1), unique_keys=False)


def test_many_flat_brackets_are_not_deep():
    look('{"a": [' + ",".join(["[]"] * 1000) + "]}")


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ('{"a": "x\\u0000"}', "a"),
        ('{"a": [1, {"b": ["\\u0000"]}]}', "a[1].b[0]"),
        ('{"a": {"b\\u0000": 1}}', "a"),
    ],
)
def test_nul_is_refused_by_its_place(text: str, param: str):
    with pytest.raises(BadRequest, match="NUL") as refused:
        look(text, unique_keys=False)
    assert refused.value.param == param


def test_an_escaped_backslash_before_u0000_is_no_nul():
    look('{"a": "\\\\u0000"}')


# ---- numbers ---------------------------------------------------------------------------------------------------------


def money(text: str) -> object:
    return parse_usd(text)


def share(text: str) -> object:
    return as_share(text, "share")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("read", [money, share, parse_threshold, exact_fraction])
@pytest.mark.parametrize(
    "text",
    [
        "1e999999999",
        "1e-999999999",
        "1E+99999999",
        "9e9999999999999999999999",
        "1e0000000000000000999",
        "٣",
        "1" * 5000,
    ],
)
def test_no_number_takes_longer_to_read_than_to_write(read: Callable[[str], object], text: str):
    with pytest.raises((ValueError, BadRequest)):
        read(text)


@pytest.mark.parametrize("text", ["0.1000000000000000000000000000001", "0.0000000005", "1e-30", "1e-2000000"])
def test_an_amount_finer_than_a_nano_dollar_is_refused_however_it_is_written(text: str):
    with pytest.raises(ValueError, match="amount of dollars"):
        parse_usd(text)


# ---- scopes ----------------------------------------------------------------------------------------------------------


def test_scopes_are_kept_and_read_back():
    for scopes in (ALL_SCOPES, frozenset({KeyScope.READ}), frozenset({KeyScope.FILES, KeyScope.SPEND})):
        assert stored_scopes(scope_names(scopes)) == scopes
    assert scope_names(ALL_SCOPES) == ["all"]


def test_a_scope_that_this_version_does_not_know_allows_nothing():
    assert stored_scopes(["read", "launch"]) == {KeyScope.READ}
    assert stored_scopes([]) == frozenset()


@pytest.mark.parametrize("value", [None, [], "read", ["launch"], [1], [["read"]], {"read": True}])
def test_what_is_no_list_of_scopes_is_refused(value: object):
    with pytest.raises(BadRequest, match="list of some of all, read, submit"):
        parse_scopes(value, "scopes")


# ---- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Incorrect API key provided: the-providers-key.", "Incorrect API key provided: [secret]."),
        ("key cope-sk-0123456789abcdefXYZ refused", "key cope-sk-[secret] refused"),
        ("whsec_dGVzdHMtc2lnbi10aGVpci13ZWJob29rcw==", "whsec_[secret]"),
        ("postgresql://cope_api:pa-ss_wo@db:5432/cope", "postgresql://cope_api:[secret]@db:5432/cope"),
        ("redis://:hunter22hunter@10.0.0.1/0", "redis://:[secret]@10.0.0.1/0"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer [secret]"),
        ("an ordinary line about http://host:80/path and a@b", "an ordinary line about http://host:80/path and a@b"),
    ],
)
def test_secrets_are_blotted_out(text: str, left: str):
    assert redact(text, ["the-providers-key", "short"]) == left


@given(st.text())
def test_one_line_is_one_line(text: str):
    told = one_line(text)
    assert len(told.splitlines()) <= 1
    assert not any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in told)


def test_a_terminal_is_given_nothing_to_obey():
    assert printable("a\n\tb\x1b[2J\x07\x9b31m\u202ec\r") == "a\n\tb\\x1b[2J\\x07\\x9b31m\\u202ec\\x0d"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "＝1"])
def test_a_cell_that_could_be_a_formula_is_quoted(text: str):
    assert inert_cell(text) == f"'{text}"
    assert inert_cell("gpt-4o") == "gpt-4o"
