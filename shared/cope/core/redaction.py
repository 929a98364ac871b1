"""Texts made harmless before they are logged, stored or shown: no secret in them, and no line that they made up."""

import re
from collections.abc import Iterable

SHORTEST_SECRET = 8
"""Shorter settings (`none`, an empty key) are no secrets, and blotting them out would blot out ordinary words."""

_GONE = "[secret]"
_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")  # the wide forms too: some spreadsheets read them alike
_FORMS = (
    (re.compile(r"\b(cope-(?:sk|admin)-)[A-Za-z0-9_-]{8,}"), rf"\1{_GONE}"),
    (re.compile(r"\bwhsec_[A-Za-z0-9+/=]{8,}"), f"whsec_{_GONE}"),
    (re.compile(r"(://[^\s:/@]*:)[^\s@/]+@"), rf"\1{_GONE}@"),
    (re.compile(r"\b(Bearer\s+)[^\s'\",]{8,}", re.IGNORECASE), rf"\1{_GONE}"),
)
# Control characters, line and paragraph separators, and the marks that turn the direction of writing.
_UNRULY = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
_UNPRINTABLE = {code: told for code, told in _UNRULY.items() if chr(code) not in "\n\t"}
_UNRULY |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without these secrets, nor anything of the form of a key, webhook secret or password in an address."""
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, _GONE)
    for form, instead in _FORMS:
        text = form.sub(instead, text)
    return text


def inert_cell(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula: a quote before what could begin one."""
    return f"'{text}" if text[:1] in _FORMULA else text


def printable(text: str) -> str:
    """The text for a terminal: its lines and tabs as they are, every other control character written out."""
    return text.translate(_UNPRINTABLE)


def one_line(text: str, *, longest: int = 2000) -> str:
    """The text with its control characters written out, so that it can't look like two lines; cut at `longest`."""
    told = text.translate(_UNRULY)
    return told if len(told) <= longest else f"{told[:longest]}…"
