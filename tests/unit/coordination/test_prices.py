"""Prices: exact, from the published table or given, with tiers and dates, and upper bounds that are ones."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("genai_prices")

import genai_prices
from genai_prices.data_snapshot import get_snapshot

from cert.coordination.chat import Usage
from cert.coordination.clients.price_table import published_price, table_version
from cert.coordination.clients.prices import Price, PriceSchedule, Tier
from cert.core.config import DEFAULT_ANTHROPIC_MODEL
from cert.core.errors import ConfigurationError

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
TIERED = Price(
    input=Decimal(3),
    output=Decimal(15),
    cache_read=Decimal("0.3"),
    cache_write=Decimal("3.75"),
    tiers=(Tier(200_000, Price(input=Decimal(6), output=Decimal("22.5"))),),
)
COUNTS = st.integers(0, 400_000)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS)


def test_the_default_model_has_a_price_and_is_not_deprecated():
    """A default that the vendor retired fails for every new user, and one without a price cannot start."""
    anthropic = pytest.importorskip("anthropic")
    from anthropic.resources.messages.messages import DEPRECATED_MODELS
    from anthropic.types import Model

    assert DEFAULT_ANTHROPIC_MODEL not in DEPRECATED_MODELS
    assert DEFAULT_ANTHROPIC_MODEL in str(Model), anthropic.__version__
    assert published_price(DEFAULT_ANTHROPIC_MODEL, vendor="anthropic").at(datetime.now(UTC)).input > 0


def test_a_completion_is_rounded_up_once():
    """Rounding each kind of token by itself would charge up to four micro-dollars too much."""
    price = Price(input=Decimal("0.25"), output=Decimal("0.25"), cache_read=Decimal("0.25"))
    assert price.cost(Usage(1, 1, 1)) == 1
    assert price.cost(Usage(2, 2, 1)) == 2
    assert price.cost(Usage()) == 0


def test_a_longer_prompt_has_its_tiers_price_for_all_tokens():
    """Tiers are a cliff: the cheap price for the first part would undercount the bill."""
    assert TIERED.cost(Usage(200_000, 10)) == 600_150
    assert TIERED.cost(Usage(200_001, 10)) == 1_200_231
    assert TIERED.cost(Usage(100_000, 0, 100_000, 1)) == 600_000 + 600_000 + 6


@given(USAGES)
def test_no_completion_costs_more_than_was_set_aside(usage: Usage):
    """The budget is a hard limit only while its upper bound is one, whatever was cached, in any tier."""
    read = usage.total_tokens - usage.output_tokens
    for price in (TIERED, Price.free(), Price(input=Decimal("0.1"), output=Decimal(9))):
        assert price.cost(usage) <= price.most(read, usage.output_tokens)
        assert price.most(read, usage.output_tokens) <= price.most(read + 1, usage.output_tokens)


@pytest.mark.parametrize(
    ("vendor", "flavour"), [("anthropic", "default"), ("openai", "chat")], ids=["anthropic", "openai"]
)
@given(data=st.data())
def test_prices_are_those_of_the_table(vendor: str, flavour: str, data: Any):
    """Our arithmetic and the table's own agree on every model of text, every tier and cached tokens."""
    models = [model.id for p in get_snapshot().providers if p.id == vendor for model in p.models]
    model = data.draw(st.sampled_from(models))
    usage = data.draw(USAGES)
    try:
        price = published_price(model, vendor=vendor).at(NOW)
    except ConfigurationError:
        return
    read = usage.total_tokens - usage.output_tokens
    told = genai_prices.Usage(
        input_tokens=read,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = genai_prices.calc_price(told, model, provider_id=vendor, genai_request_timestamp=NOW)
    exact = theirs.total_price * 1_000_000
    assert exact <= price.cost(usage) < exact + 1


def test_most_models_of_both_vendors_have_a_price():
    """A reader of the table that refused too much would leave users to look prices up."""
    for vendor, least in (("anthropic", 27), ("openai", 80)):
        models = [model.id for p in get_snapshot().providers if p.id == vendor for model in p.models]
        priced = [model for model in models if _has_price(model, vendor)]
        assert len(priced) >= least, vendor


def _has_price(model: str, vendor: str) -> bool:
    try:
        published_price(model, vendor=vendor)
    except ConfigurationError:
        return False
    return True


def test_a_price_that_changes_on_a_date_changes_then():
    """A client that runs over the date would go on with the old price."""
    schedule = published_price("claude-opus-4-6", vendor="anthropic")
    prices = {schedule.at(NOW - timedelta(days=days)).tiers != () for days in (0, 400)}
    assert prices == {True, False}
    old, new = Price(input=Decimal(1), output=Decimal(1)), Price(input=Decimal(2), output=Decimal(2))
    changing = PriceSchedule(((None, old), (lambda moment: moment >= NOW, new)), "test")
    assert changing.at(NOW) is new
    assert changing.at(NOW - timedelta(seconds=1)) is old
    assert PriceSchedule(((lambda moment: False, old),), "test").at(NOW) is old


@pytest.mark.parametrize(
    ("model", "where"),
    [
        ("claude-that-is-none", {"vendor": "anthropic"}),
        ("gpt-oss-20b", {"url": "http://127.0.0.1:8000/v1"}),
        ("whisper-1", {"vendor": "openai"}),
        ("text-embedding-3-small", {"vendor": "openai"}),
    ],
)
def test_what_has_no_price_is_refused_with_what_to_do(model, where):
    """A guess in place of a price makes every cost wrong, and the budget no limit."""
    with pytest.raises(ConfigurationError) as raised:
        published_price(model, **where)
    assert "Price(" in str(raised.value.hint)


def test_a_server_of_a_known_vendor_is_found_by_its_address():
    """The model on OpenAI's own address has OpenAI's price without naming the vendor twice."""
    assert published_price("gpt-6-sol", url="https://api.openai.com/v1").at(NOW).output == 10


def test_the_version_of_the_table_is_recorded():
    """A cost in an old report can be traced to the prices of its day."""
    assert published_price(DEFAULT_ANTHROPIC_MODEL, vendor="anthropic").source == table_version()
    assert table_version() == f"genai-prices {genai_prices.__version__}"


@pytest.mark.parametrize("wrong", [0.15, -1, Decimal("NaN"), Decimal("-0.1"), True, "3"])
def test_a_price_that_is_none_is_refused(wrong):
    """A float is no exact price, and a negative one would earn money."""
    with pytest.raises(ConfigurationError, match="the price of input"):
        Price(input=wrong, output=Decimal(1))


def test_tiers_out_of_order_are_refused():
    """The wrong tier would be taken in silence."""
    one = Price(input=Decimal(1), output=Decimal(1))
    with pytest.raises(ConfigurationError, match="tiers"):
        Price(input=Decimal(1), output=Decimal(1), tiers=(Tier(20, one), Tier(10, one)))
    assert Price(input=1, output=2).output == Decimal(2)  # type: ignore[arg-type]  # whole dollars are exact


@given(USAGES)
def test_weighted_tokens_are_never_nothing(usage: Usage):
    """A budget of weight 0 would match an answer with infinitely many."""
    for price in (TIERED, Price.free(), Price(input=Decimal(0), output=Decimal(5))):
        assert (price.weight(usage) > 0) == (usage.total_tokens > 0)


def test_weights_are_dollars_or_output_tokens():
    """Debate reads much and writes little: its budget must not count both alike."""
    assert TIERED.weight(Usage(1_000_000, 0)) == 6.0
    assert Price.free().weight(Usage(10, 3, 5)) == pytest.approx(6.0)
