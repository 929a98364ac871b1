"""The price table: which row is in force, what a reservation is reckoned with, and which changes look like slips."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope.catalog import load_catalog, load_prices
from cope.core.errors import BadRequest, Misconfigured, Unpriced
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.money import NanoUSD, Price, PriceTier, TokenUsage, parse_usd
from cope.core.policies.spec import PolicyName
from cope.core.price_changes import next_version, objections, typical_call, typical_reserve
from cope.core.priced import models_of, refuse_unpriced
from cope.core.prices import PriceTable, add_command, parse_moment
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier
from cope.settings import Settings
from tests.support import NOON, make_policy

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


def row(
    version: str = "1",
    *,
    price_id: str = "gpt-x",
    tier: PriceTier = "standard",
    amounts: tuple[str, str, str] = ("2.50", "1.25", "10.00"),
    at: datetime = JANUARY,
    until: datetime | None = None,
) -> Price:
    input_, cached, output = map(parse_usd, amounts)
    return Price(price_id, version, input_, cached, output, at, tier, until, origin="operator", source="a test")


# ---- which row ------------------------------------------------------------------------------------------------------


def test_a_change_takes_effect_at_its_instant_and_not_a_second_before():
    table = PriceTable([row("old"), row("new", at=DECEMBER, amounts=("3.00", "1.50", "12.00"))])

    assert table.at("gpt-x", DECEMBER - timedelta(seconds=1)).version == "old"
    assert table.at("gpt-x", DECEMBER).version == "new"


def test_the_tiers_of_one_id_have_prices_of_their_own():
    table = PriceTable([row("s"), row("b", tier="batch", amounts=("1.25", "0.625", "5.00"))])

    assert table.at("gpt-x", NOON).version == "s"
    assert table.at("gpt-x", NOON, tier="batch").version == "b"
    assert table.at("gpt-x", NOON, "batch").output_per_mtok == parse_usd("5.00")


def test_an_id_of_the_old_form_is_the_batch_tier():
    table = PriceTable([row("b", tier="batch")])

    assert table.at("gpt-x:batch", NOON).tier == "batch"
    assert table.row("gpt-x:batch", "b") == row("b", tier="batch")


def test_a_batch_tier_without_a_row_is_refused_and_not_priced_as_standard():
    with pytest.raises(Unpriced, match=r"for the batch tier.*--tier batch"):
        PriceTable([row()]).at("gpt-x", NOON, tier="batch")


def test_of_two_rows_with_one_date_the_one_added_later_counts():
    first = replace(row("b"), added_at=JUNE)
    correction = replace(row("a"), added_at=JUNE + timedelta(days=1))

    assert PriceTable([first, correction]).at("gpt-x", NOON).version == "a"


def test_a_row_that_has_lapsed_does_not_bring_back_the_one_before_it():
    table = PriceTable([row("normal"), row("discount", at=JUNE, until=NOON)])

    assert table.at("gpt-x", NOON - timedelta(seconds=1)).version == "discount"
    with pytest.raises(Unpriced, match=r"the last one lapsed at 2026-11-02T12:00:00Z"):
        table.at("gpt-x", NOON)


def test_a_price_that_lies_only_in_the_future_is_refused_with_its_date_and_the_command():
    with pytest.raises(Unpriced) as refused:
        PriceTable([row(at=DECEMBER)]).at("gpt-x", NOON)

    assert "begins at 2026-12-01T00:00:00Z" in refused.value.message
    assert "cope prices add gpt-x --input 2.50 --cached-input 1.25 --output 10.00 --source URL" in refused.value.message
    assert refused.value.code == "model_not_priced"


def test_an_unknown_id_is_refused_with_the_ids_there_are_and_a_command_that_a_shell_takes():
    with pytest.raises(Unpriced, match="known price ids: gpt-x"):
        PriceTable([row()]).at("gpt-y", NOON)
    assert add_command("my model; rm") == (
        "cope prices add 'my model; rm' --input 2.50 --cached-input 1.25 --output 10.00 --source URL"
    )


def test_rows_of_an_earlier_configuration_are_remembered_and_price_nothing():
    shipped = replace(row("shipped", at=JUNE), origin="shipped")
    own = replace(row("own", amounts=("2.00", "1.00", "8.00")), origin="file")
    table = PriceTable([own])
    table.learn([shipped, own])

    assert table.at("gpt-x", NOON).version == "own"
    assert table.row("gpt-x", "shipped") == shipped
    assert table.status(shipped, NOON) == "withdrawn"
    assert table.stored_count == 2


def test_rows_that_operators_add_count_beside_the_configured_ones():
    table = PriceTable([replace(row("file"), origin="file")])
    table.learn([row("added", at=JUNE)])

    assert table.at("gpt-x", NOON).version == "added"
    assert [table.status(r, NOON) for r in table.history] == ["superseded", "in_force"]
    assert table.status(row("later", at=DECEMBER), NOON) == "withdrawn"
    assert table.plus(row("later", at=DECEMBER)).status(row("later", at=DECEMBER), NOON) == "scheduled"


def test_a_paid_model_is_priced_by_its_own_name_and_a_small_one_without_a_price_is_free():
    large = ModelEntry("big", "gpt-x", "http://localhost/v1", Tier.LARGE, "instruct", 4096)
    small = ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "instruct", 4096)

    assert PriceTable([row()]).of_model(large, NOON) == row()
    assert PriceTable([]).of_model(small, NOON) is None
    with pytest.raises(Unpriced, match=r"Model 'big' can't be called.*cope prices add gpt-x"):
        PriceTable([]).of_model(large, NOON)


@pytest.mark.parametrize(
    ("name", "called"),
    [
        (PolicyName.COPE, ("small", "large")),
        (PolicyName.COPE_S2, ("small", "large")),
        (PolicyName.SMALL, ("small",)),
        (PolicyName.SMALL_MAJORITY, ("small",)),
        (PolicyName.LARGE, ("large",)),
        (PolicyName.PASSTHROUGH, ("large",)),
    ],
)
def test_a_policy_is_refused_only_for_models_that_it_may_call(name: PolicyName, called: tuple[str, ...]):
    large = ModelEntry("large", "gpt-x", "http://localhost/v1", Tier.LARGE, "instruct", 4096)
    small = ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "instruct", 4096)
    catalog = ModelCatalog({"small": small, "large": large}, "small", "large", BUILT_IN)

    assert models_of(make_policy(name)) == called
    refuse_unpriced(make_policy(name), catalog, PriceTable([row()]), NOON)
    if "large" in called:
        with pytest.raises(BadRequest, match="cope prices add gpt-x") as refused:
            refuse_unpriced(make_policy(name), catalog, PriceTable([]), NOON)
        assert refused.value.code == "model_not_priced"
    else:
        refuse_unpriced(make_policy(name), catalog, PriceTable([]), NOON)


# ---- properties -----------------------------------------------------------------------------------------------------

MOMENTS = st.integers(0, 40).map(lambda hours: JANUARY + timedelta(hours=hours))
AMOUNTS = st.integers(0, 10**12).map(NanoUSD)
TIERS = st.sampled_from(["standard", "batch"])


@st.composite
def tables(draw: st.DrawFn) -> list[Price]:
    return [
        Price(
            draw(st.sampled_from(["a", "b"])),
            f"v{number}",
            draw(AMOUNTS),
            draw(AMOUNTS),
            draw(AMOUNTS),
            draw(MOMENTS),
            draw(TIERS),
            added_at=JANUARY + timedelta(seconds=number),
        )
        for number in range(draw(st.integers(0, 12)))
    ]


@given(rows=tables(), now=MOMENTS, price_id=st.sampled_from(["a", "b"]), tier=TIERS)
def test_the_row_in_force_is_the_latest_that_is_effective_whatever_the_order_of_adding(
    rows: list[Price], now: datetime, price_id: str, tier: PriceTier
):
    begun = [r for r in rows if (r.price_id, r.tier) == (price_id, tier) and r.effective_at <= now]
    table = PriceTable()
    table.learn(reversed([replace(r, origin="operator") for r in rows]))

    if begun:
        assert table.at(price_id, now, tier) == max(begun, key=lambda r: (r.effective_at, r.added_at))
    else:
        with pytest.raises(Unpriced):
            table.at(price_id, now, tier)


@given(rows=tables(), now=MOMENTS, after_s=st.integers(0, 36_000), within_s=st.integers(0, 36_000), tier=TIERS)
def test_no_price_within_the_time_of_a_call_is_above_what_its_reservation_was_reckoned_with(
    rows: list[Price], now: datetime, after_s: int, within_s: int, tier: PriceTier
):
    table = PriceTable(rows)
    try:
        bound = table.bound("a", now, within_s=within_s, tier=tier)
    except Unpriced:
        return
    then = table.at("a", now + timedelta(seconds=min(after_s, within_s)), tier)

    assert then.input_per_mtok <= bound.input_per_mtok
    assert then.cached_input_per_mtok <= bound.cached_input_per_mtok
    assert then.output_per_mtok <= bound.output_per_mtok
    assert bound.key == table.at("a", now, tier).key


@given(
    amounts=st.tuples(AMOUNTS, AMOUNTS, AMOUNTS),
    tier=TIERS,
    calls=st.integers(1, 64),
    limits=st.tuples(st.integers(0, 200_000), st.integers(0, 200_000)),
    data=st.data(),
)
def test_a_cost_is_never_below_its_exact_value_nor_above_the_worst_case_in_either_tier(
    amounts: tuple[NanoUSD, NanoUSD, NanoUSD],
    tier: PriceTier,
    calls: int,
    limits: tuple[int, int],
    data: st.DataObject,
):
    price = Price("a", "1", *amounts, JANUARY, tier)
    prompt = data.draw(st.integers(0, calls * limits[0]))
    usage = TokenUsage(
        prompt, data.draw(st.integers(0, prompt)), data.draw(st.integers(0, calls * limits[1])), calls=calls
    )
    exact = Fraction(
        (usage.prompt - usage.cached) * amounts[0] + usage.cached * amounts[1] + usage.completion * amounts[2],
        1_000_000,
    )

    assert exact <= price.cost(usage) < exact + 1
    assert price.cost(usage) <= price.worst_case(input_tokens=limits[0], output_tokens=limits[1], calls=calls)


# ---- changes that look like slips -----------------------------------------------------------------------------------


def codes(new: Price, *rows: Price, now: datetime = NOON) -> list[str]:
    return [objection.code for objection in objections(new, PriceTable(rows), now)]


def test_an_ordinary_change_and_the_first_row_of_an_id_are_taken():
    assert codes(row("2", at=DECEMBER, amounts=("5.00", "2.50", "20.00")), row()) == []
    assert codes(row("2", at=NOON, amounts=("0.625", "0.625", "2.50")), row()) == []
    assert codes(row(at=JANUARY)) == [], "no call can have been made at another price"


@pytest.mark.parametrize(
    ("amounts", "code"),
    [
        (("10.01", "1.25", "10.00"), "large_change"),
        (("2.50", "1.25", "40.01"), "large_change"),
        (("2.50", "1.25", "2.49"), "large_change"),
        (("2.50", "0.31", "10.00"), "large_change"),
        (("2.50", "2.51", "10.00"), "cached_above_input"),
    ],
)
def test_a_leap_of_any_amount_and_a_cached_price_above_the_fresh_one_are_objected_to(
    amounts: tuple[str, str, str], code: str
):
    assert codes(row("2", at=DECEMBER, amounts=amounts), row()) == [code]


def test_four_times_as_much_is_still_taken():
    assert codes(row("2", at=DECEMBER, amounts=("10.00", "5.00", "40.00")), row()) == []


def test_free_tokens_and_a_price_per_token_are_objected_to_even_in_a_first_row():
    assert codes(row(amounts=("0", "0", "10.00"))) == ["zero_price", "zero_price"]
    assert codes(row(amounts=("0.0000025", "0.0000025", "10.00"))) == ["unusual_price", "unusual_price"]
    assert codes(row(amounts=("2500", "1250", "10.00"))) == ["unusual_price", "unusual_price"]


def test_dates_that_would_reprice_or_never_count_are_objected_to():
    current = row("1", at=JUNE)

    assert codes(row("2", at=NOON - timedelta(days=1)), current) == ["effective_in_the_past"]
    assert codes(row("2", at=JANUARY), current) == ["effective_in_the_past", "before_the_row_in_force"]
    assert codes(row("2", at=NOON - timedelta(seconds=30)), current) == [], "clocks differ a little"


def test_a_change_is_compared_with_the_row_that_it_follows_also_where_that_lies_in_the_future():
    scheduled = row("2", at=DECEMBER, amounts=("9.00", "4.00", "36.00"))

    assert codes(row("3", at=DECEMBER + timedelta(days=1), amounts=("20.00", "9.00", "80.00")), row(), scheduled) == []


def test_a_batch_tier_dearer_than_the_standard_one_is_objected_to():
    assert codes(row("2", tier="batch", amounts=("2.51", "1.25", "10.00")), row()) == ["batch_above_standard"]


def test_every_objection_says_which_amount_and_what_it_was():
    (objection,) = objections(row("2", at=DECEMBER, amounts=("2.50", "1.25", "50.00")), PriceTable([row()]), NOON)

    assert objection.message == ("output goes from $10.00 ('1') to $50.00 per million tokens, more than 4 times up.")


def test_versions_are_days_and_count_on_within_a_day():
    table = PriceTable([row("2026-11-02"), row("2026-11-02.2"), row("2026-11-02", tier="batch")])

    assert next_version(table, "gpt-x", "standard", NOON) == "2026-11-02.3"
    assert next_version(table, "gpt-x", "batch", NOON) == "2026-11-02.2"
    assert next_version(table, "gpt-y", "standard", NOON) == "2026-11-02"


def test_a_typical_call_is_the_mean_of_those_made():
    assert typical_call(TokenUsage()) == (500, 2048)
    assert typical_call(TokenUsage(prompt=9000, completion=5, calls=3)) == (3000, 2048)
    assert typical_reserve(row(), (500, 2048)) == (4 * 500 + 112) * 2500 + 2048 * 10_000


# ---- files ----------------------------------------------------------------------------------------------------------


def settings(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "prices.toml").write_text(text)
    return Settings(prices_file=tmp_path / "prices.toml")


def test_the_shipped_table_has_both_tiers_and_says_where_each_row_comes_from():
    table = load_prices(Settings(prices_file=None))

    assert table.at("gpt-4o-2024-08-06", NOON).output_per_mtok == parse_usd("10.00")
    assert table.at("gpt-4o-2024-08-06", NOON, tier="batch").output_per_mtok == parse_usd("5.00")
    assert table.at("gpt-4o-2024-08-06:batch", NOON) == table.at("gpt-4o-2024-08-06", NOON, "batch")
    for shipped in table.rows:
        assert (shipped.origin, shipped.version) == ("shipped", "2026-11-01")
        assert "https://" in shipped.source
        own_slips = [o for o in objections(shipped, PriceTable(), NOON) if o.code != "effective_in_the_past"]
        assert own_slips == []


def test_an_own_file_replaces_the_ids_that_it_names_and_may_hold_several_versions(tmp_path: Path):
    table = load_prices(
        settings(
            tmp_path,
            """
            version = "contract"
            [[price]]
            id = "gpt-4o-2024-08-06"
            effective_at = "2020-01-01"
            input = "2.00"
            output = "8.00"
            [[price]]
            id = "gpt-4o-2024-08-06"
            version = "contract-2027"
            effective_at = 2027-01-01T00:00:00+01:00
            input = "1.50"
            output = "6.00"
            """,
        )
    )

    present = table.at("gpt-4o-2024-08-06", NOON)
    assert (present.version, present.origin) == ("contract", "file")
    assert present.cached_input_per_mtok == parse_usd("2.00"), "without a cached price, cached input costs as much"
    assert table.at("gpt-4o-2024-08-06", datetime(2026, 12, 31, 23, tzinfo=UTC)).version == "contract-2027"
    with pytest.raises(Unpriced):
        table.at("gpt-4o-2024-08-06", NOON, tier="batch")
    assert table.at("gpt-4o-mini-2024-07-18", NOON).origin == "shipped"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('id = "x"\neffective_at = "2026-01-01"\ninput = 2.5\noutput = "1"', "amounts are written as text"),
        ('id = "x"\neffective_at = "soon"\ninput = "2.5"\noutput = "1"', "'x'"),
        ('id = "x"\ninput = "2.5"\noutput = "1"', "lacks 'effective_at'"),
        ('id = "x"\ntier = "cheap"\neffective_at = "2026-01-01"\ninput = "1"\noutput = "1"', "tier must be"),
        ('id = "x"\nprice = "1"\neffective_at = "2026-01-01"\ninput = "1"\noutput = "1"', "unknown key 'price'"),
        (
            'id = "x"\neffective_at = "2026-01-01"\neffective_until = "2025-01-01"\ninput = "1"\noutput = "1"',
            "effective_until lies before",
        ),
        (
            """
            id = "x"
            effective_at = "2026-01-01"
            input = "1"
            output = "1"
            [[price]]
            id = "x"
            effective_at = "2026-02-01"
            input = "1"
            output = "1"
            """,
            "stands twice with version '1'",
        ),
    ],
)
def test_a_wrong_row_of_a_file_is_refused_by_name(tmp_path: Path, lines: str, says: str):
    with pytest.raises(Misconfigured, match=says):
        load_prices(settings(tmp_path, f'version = "1"\n[[price]]\n{lines}\n'))


def test_a_large_model_without_a_price_id_is_priced_by_the_name_that_its_provider_knows():
    catalog = load_catalog(
        Settings(
            small_base_url="http://localhost/v1",
            small_model="small",
            large_base_url="http://localhost/v1",
            large_model="gpt-unknown",
        )
    )

    assert catalog.entries["gpt-unknown"].price_id == "gpt-unknown"
    assert catalog.entries["small"].price_id is None


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-12-01", DECEMBER),
        ("2026-12-01T00:00:00Z", DECEMBER),
        ("2026-12-01T01:00:00+01:00", DECEMBER),
        ("2026-12-01T00:00:00.999", DECEMBER),
    ],
)
def test_moments_are_whole_seconds_in_utc(text: str, moment: datetime):
    assert parse_moment(text) == moment
