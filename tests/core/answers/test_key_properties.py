"""Keys as a relation: one value generated in many writings, and votes that do not depend on order."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from cope.core.answers import Keyed, NeedsHelper, quick_key
from cope.core.answers.symbolic import full_key
from cope.core.problem import Kind

rationals = st.builds(Fraction, st.integers(-10_000, 10_000), st.integers(1, 999))


def _writings(value: Fraction) -> list[str]:
    top, bottom = value.numerator, value.denominator
    forms = [
        rf"\frac{{{top}}}{{{bottom}}}",
        rf"\dfrac{{{3 * top}}}{{{3 * bottom}}}",
        f"{top}/{bottom}",
        rf"${top} \div {bottom}$",
        rf"\boxed{{\left({top}\right)/{bottom}}}",
        f"x = {top}/{bottom}",
        rf"\frac{{{top}\sqrt{{2}}}}{{{bottom}\sqrt{{2}}}}",
        rf"{100 * value.numerator}\%/{bottom}",
        rf"\{{{top}/{bottom}\}}",
    ]
    if bottom == 1:
        forms += [f"{top:,}", f"{top}.0", f"{top:,}".replace(",", "{,}"), rf"{top}\text{{ cm}}", f"{top}^\\circ"]
    if top > bottom > 1 and top % bottom:
        forms.append(rf"{top // bottom}\frac{{{top % bottom}}}{{{bottom}}}")
    return forms


@given(rationals, st.data())
def test_every_writing_of_a_rational_has_one_key(value: Fraction, data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(_writings(value)))
    other = data.draw(st.sampled_from(_writings(value)))
    assert full_key(Kind.MATH, one) == full_key(Kind.MATH, other) is not None


@given(rationals, rationals)
def test_different_rationals_have_different_keys(one: Fraction, other: Fraction) -> None:
    keys = {str(full_key(Kind.MATH, f"{value.numerator}/{value.denominator}")) for value in (one, other)}
    assert len(keys) == len({one, other})


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 200))
@settings(max_examples=50)
def test_surds_are_equal_exactly_when_their_coefficients_are(a: int, b: int, root: int) -> None:
    if int(root**0.5) ** 2 == root:
        root = root * root + 1
    one = full_key(Kind.MATH, rf"{a}+{b}\sqrt{{{root}}}")
    assert one == full_key(Kind.MATH, rf"\frac{{{2 * a}+\sqrt{{{4 * root}}}\cdot({b})}}{{2}}")
    assert one != full_key(Kind.MATH, rf"{a}+{b + 1}\sqrt{{{root}}}")


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=4))
@settings(max_examples=50)
def test_a_polynomial_equals_its_reordering_and_no_neighbour(coefficients: list[int]) -> None:
    terms = [f"({c})x^{power}" for power, c in enumerate(coefficients)]
    one = full_key(Kind.MATH, "+".join(terms))
    assert one == full_key(Kind.MATH, "+".join(reversed(terms)))
    assert one != full_key(Kind.MATH, "+".join([*terms, "x"]))


@given(st.lists(st.integers(-99, 99), min_size=1, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_a_list_does_not_depend_on_order_and_a_tuple_does(numbers: list[int], chance: object) -> None:
    written = [str(number) for number in numbers]
    turned = written[1:] + written[:1]
    assert quick_key(Kind.MATH, ", ".join(written)) == quick_key(Kind.MATH, ", ".join(turned))
    assert quick_key(Kind.MATH, rf"\{{{','.join(written)}\}}") == quick_key(Kind.MATH, ", ".join(turned))
    if len(numbers) > 1:
        assert quick_key(Kind.MATH, f"({','.join(written)})") != quick_key(Kind.MATH, f"({','.join(turned)})")


@given(st.text(alphabet=r"0123456789xyei+-*/^_=<>(){}[],.|!%\ $abfrcsqtpm", max_size=30))
@settings(max_examples=500)
def test_any_text_at_all_has_a_key_or_none_and_both_paths_agree(text: str) -> None:
    quick = quick_key(Kind.MATH, text)
    if isinstance(quick, NeedsHelper):
        return
    assert full_key(Kind.MATH, text) == (quick.key if isinstance(quick, Keyed) else None)


@given(st.text(max_size=40))
def test_exact_keys_ignore_only_the_spacing_around_and_between(text: str) -> None:
    assert quick_key(Kind.EXACT, text) == quick_key(Kind.EXACT, f"  {text}\n")
