r"""From an answer as models write it to one plain LaTeX dialect: wrappers, spacing and look-alikes removed.

Only spelling changes here, never a value. The order matters: thousands marks (`10,\!080`, `1{,}000`, `10\,000`) are
joined before thin spaces disappear, or `10\,000` would become two numbers.
"""

import re

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "÷": r"\div ",
        "∕": "/", "⁄": "/", "π": r"\pi ", "√": r"\sqrt ", "∞": r"\infty ", "°": r"\degree ", "±": r"\pm ",
        "∓": r"\mp ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∈": r"\in ",
        "∅": r"\emptyset ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "ℝ": r"\mathbb{R}",
        "²": "^{2}", "³": "^{3}", "⁴": "^{4}", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "¼": r"\frac{1}{4}",
        "¾": r"\frac{3}{4}", "⅔": r"\frac{2}{3}", "“": '"', "”": '"', "‘": "'", "’": "'", "€": "", "£": "",
        "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u200b": "", "，": ",", "（": "(", "）": ")", "％": "%",
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
    }
)  # fmt: skip

_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
_THOUSANDS_MARK = re.compile(r"(?<=\d)\s*(?:,\s*\\!\s*|\{\s*,\s*\}\s*|\\,\s*)(?=\d{3}(?!\d))")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,^_/}])(?<!\d )[1-9]\d{0,2}(?: \d{3})+(?![\d/,]| \d{3}/)")
_DOUBLED = re.compile(
    r"\\\\(?=(?:[dtc]?frac|sqrt|d?binom|text|mathrm|left|right|pi|cdot|times|pm|le|ge|leq|geq|neq?|infty|cup|"
    r"sin|cos|tan|log|ln|begin|end|circ|boxed)(?![A-Za-z]))"
)
_OPEN_END = re.compile(r",\s*(?:\.\.\.|…)")
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\\\(?:\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm)\s*\])?", r"\\cr "),  # before "\\ " is taken for a space
        (r"\\(?:left|right)\s*\.", " "),
        (r"\\(?:left|right|bigl|bigr|Bigl|Bigr|biggl|biggr|big|Big|bigg|Bigg)(?![A-Za-z])", " "),
        (r"\\(?:displaystyle|textstyle|limits|nolimits|mathstrut|hfill)(?![A-Za-z])", " "),
        (r"\\!", ""),
        (r"^\s*\\(?:Rightarrow|Longrightarrow|implies|therefore)(?![A-Za-z])", " "),
        (r"\\(?:boldsymbol|bm|pmb|underline|ensuremath)\s*(?=\{)|\\(?:text)?color\s*\{[a-zA-Z]+\}", " "),
        (r"\\mathrm\s*\{\s*([ei])\s*\}", r" \1 "),
        (r"\\(?:[,;: ~]|quad(?![A-Za-z])|qquad(?![A-Za-z]))|~", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\\(?:mbox|hbox|textbf|textit|textrm|textsf|texttt|textnormal|textup|mathrm|mathbf|mathit|mathsf|bold|operatorname)\s*(?=\{)",
         r"\\text"),
        (r"\\text\s+(?=\{)", r"\\text"),
        (r"(?<=\d)\s*(?:\^\s*(?:\{\s*)?(?:\\text\{\s*)?)?(?:st|nd|rd|th)(?![A-Za-z])\s*\}{0,2}", ""),
        (r"\\text\{\s*([A-Za-z]+)\s*\}\s*/\s*\\text\{\s*([A-Za-z]+)\s*\}", r"\\text{\1/\2}"),
        (r"\^\s*\{\s*\\(?:circ|degree)\s*\}|\^\s*\\(?:circ|degree)(?![A-Za-z])", r"\\degree "),
        (r"\\(?:lvert|rvert|vert|mid)(?![A-Za-z])", "|"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\(?:leq|leqslant)(?![A-Za-z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"\\(?:varnothing|emptyset)(?![A-Za-z])", r"\\emptyset "),
        (r"\\(?:infin|infty)(?![A-Za-z])", r"\\infty "),
        (r"\\%", "%"),
        (r"\\\$|\$", ""),
        (r"\*\*", "^"),
        (r"\\(?:dots|ldots|cdots)(?![A-Za-z])|\.\.\.|…", r"\\ldots "),
        (r"(\d)\s*\\ldots\s*$", r"\1"),
    )
)  # fmt: skip
_BASE_WORD = re.compile(r"_\s*\{?\s*\\(?:text|mathrm)\{\s*([A-Za-z]+)\s*\}\s*\}?")
_BASES = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "twelve": 12,
}
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_TEXT = re.compile(r"\\text\{")


def clean(answer: str) -> str:
    """One spelling for many. Linear in the length, which the caller bounds; the result may be empty."""
    text = unwrap(_OPEN_END.sub(r", \\ldots ", answer).translate(_UNICODE))
    if r"\begin" not in text or r"\\begin" in text:  # outside a matrix a doubled backslash is an escape's
        text = _DOUBLED.sub(r"\\", text)
    text = _THOUSANDS_MARK.sub("", text)
    text = _SPACED_THOUSANDS.sub(lambda found: found.group().replace(" ", ""), text)
    text = _BASE_WORD.sub(lambda found: f"_{{{_BASES.get(found[1].lower(), found[1])}}}", text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return trim(" ".join(text.split()))


def unwrap(text: str) -> str:
    r"""Without the `$…$`, `\(…\)`, `\boxed{…}`, bold or backticks around the whole."""
    for _ in range(10):
        before = text
        text = trim(text)
        for opener, closer in _WRAPPERS:
            if (
                len(text) > len(opener) + len(closer)
                and text.startswith(opener)
                and text.endswith(closer)
                and opener not in text[len(opener) : -len(closer)]
            ):
                text = text[len(opener) : -len(closer)]
        found = _BOX.match(text)
        if found and closing_brace(text, found.end() - 1) == len(text) - 1:
            text = text[found.end() : -1]
        if text == before:
            break
    return text


def trim(text: str) -> str:
    r"""Without surrounding space, a closing full stop, comma, semicolon or `\\`."""
    text = text.strip()
    while text and (text[-1] in ".,;:" or text.endswith(r"\\")):
        text = text[: -2 if text.endswith((r"\,", r"\;", r"\:", r"\\")) else -1].rstrip()
    return text


def whole_text(text: str) -> str | None:
    r"""The words of an answer that is one `\text{…}` and nothing else, or None."""
    found = _TEXT.match(text)
    if found and closing_brace(text, found.end() - 1) == len(text) - 1:
        return text[found.end() : -1].strip()
    return None


def closing_brace(text: str, opening: int) -> int | None:
    """The index of the brace that closes the one at `opening`, or None. Escaped braces do not count."""
    depth, at = 0, opening
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 2
            continue
        if char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return None
