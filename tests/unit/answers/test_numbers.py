"""Numbers in text are read exactly or not at all."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cert.answers.numbers import MAX_DIGITS, MAX_EXPONENT, Number, find_numbers, parse_number, same_number
from cert.core.errors import ConfigurationError, InputError


def read(text, decimal=".") -> Number:
    number = parse_number(text, decimal)
    assert number is not None
    return number


READ = {
    "42": "42",
    "-5": "-5",
    "−5": "-5",
    "+5": "5",
    "1,234.5": "1234.5",
    "12,345,678": "12345678",
    "1_000": "1000",
    "1'000.5": "1000.5",
    "1\u202f000": "1000",
    ".5": "0.5",
    "-.5": "-0.5",
    "3.": "3",
    "007": "7",
    "1e3": "1000",
    "1.5E-3": "0.0015",
    r"1.5 \times 10^{3}": "1500",
    "1.5×10³": "1500",
    "1.5 x 10^-3": "0.0015",
    "10^5": "100000",
    "10**5": "100000",
    "50%": "0.5",
    "50 percent": "0.5",
    "3/4": "3/4",
    "1 / 2": "1/2",
    "1 1/2": "3/2",
    "-1 1/2": "-3/2",
    "3½": "7/2",
    "⅓": "1/3",
    r"\frac{3}{4}": "3/4",
    r"-\dfrac{1}{2}": "-1/2",
    r"\frac{-1}{2}": "-1/2",
    r"2\frac12": "5/2",
    "$1,234.50": "1234.5",
    r"\$5": "5",
    "-$5": "-5",
    "$-5": "-5",
    "5€": "5",
    "$5$": "5",
    "$1.5 million": "1500000",
    "2 hundred thousand": "200000",
    r"10,\!000": "10000",
    "1{,}000": "1000",
    "٣٤": "34",
    "５": "5",
    "**5**": "5",
    "<answer>5</answer>": "5",
    "(5)": "5",
    "5 km": "5",
    "5km": "5",
    "- 5 apples": "5",
    "x = - 5": "-5",
    "=> 5": "5",
    r"90^\circ": "90",
    r"5\text{ cm}": "5",
    "She has 18 eggs left.": "18",
}


@pytest.mark.parametrize("text", READ)
def test_usual_notations_are_read(text):
    """A right answer in another notation would count as wrong."""
    number = parse_number(text)
    assert number is not None
    assert number.value == Fraction(READ[text])


UNREAD = [
    "1,5", "1,2,3", "0,500", "1.234.567", "1.2.3.4", "12/05/2020", "1/2/3/4", "1/0", "5 3/2", "0x1F", "3e4f",
    "1e5e5", "5k", "$5M", "3x", "4i", "2π", r"2\pi", "√2", r"\sqrt{2}", "sqrt(2)", "2^8", "2**8",
    "10^3^2", "10^3^{2}",
    "10^x", "±3", r"\pm 3", "--5", "x-3", "x - 5", "x + 5", "5 - x", "3-5", "3–5", "a*5", "5*x", "a × 5",
    "covid-19", "5/x", "x/5", "< 5", "≥5", "5(x+1)", "25¢", "1e999999999", "9" * (MAX_DIGITS + 1),
    f"1e{MAX_EXPONENT + 1}", f"1e-{MAX_EXPONENT + 1}", "10^99999999999999999999",
]  # fmt: skip


@pytest.mark.parametrize("text", UNREAD)
def test_what_can_be_read_in_two_ways_or_is_too_big_is_not_read(text):
    """A guess at a number would be scored as the model's answer; a huge one would eat the memory."""
    assert parse_number(text) is None
    assert any(number.value is None for number in find_numbers(text))


@pytest.mark.parametrize(
    "text", ["", "four", "H2O", "v1.2", "m^2", "1 000", "12:30", "5 or 6", "nan", "inf", "Ⅷ"]
)
def test_texts_without_exactly_one_number_have_none(text):
    """The first or last of several numbers is a choice that only an extractor may make."""
    assert parse_number(text) is None


def test_a_comma_is_the_decimal_mark_on_demand():
    """European answers would be read a thousand times too large."""
    assert [n.value for n in find_numbers("1.234,5 1,5 1.234", ",")] == [
        Fraction("1234.5"),
        Fraction("1.5"),
        1234,
    ]
    assert read("1.234.567", ",").value == 1234567


def test_percent_currency_and_unit_are_told():
    """Five euros and five dollars, or 5 km and 5 m, would be the same."""
    assert read("50 %").percent
    assert read("$5").currency == "$"
    assert read("5 €").currency == "€"
    assert read("$5$").currency == ""
    assert [read(text).unit for text in ("5km", "5 Km.", "5 km long", "about 5 km")] == [
        "km",
        "km",
        "",
        "",
    ]


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**12), max_value=10**12))
@example(Decimal("-0.000001"))
def test_every_decimal_survives_its_notations(value):
    """A digit lost in reading is a wrong measurement."""
    for text in (f"{value:f}", f"{value:,f}", f"{value:e}", f"The answer is {value:f}.", f"${value:f}$"):
        number = parse_number(text)
        assert number is not None, text
        assert number.value == Fraction(value), text


@given(st.fractions(max_denominator=10**6))
def test_every_fraction_survives(value):
    """A fraction read as its numerator is a wrong measurement."""
    text = f"{value.numerator}/{value.denominator}"
    assert read(text).value == value
    whole, rest = divmod(abs(value), 1)
    if whole and rest:
        sign = "-" if value < 0 else ""
        assert read(f"{sign}{whole} {rest.numerator}/{rest.denominator}").value == value


PIECES = st.sampled_from(
    [
        *"0123456789.,eE+-/^{}()$%*_ \n\\x×√±<>=",
        "1e9",
        "10^",
        "\\frac{",
        "\\times",
        "½",
        "²",
        "−",
        "٣",
        "million",
        "\0",
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES, max_size=40).map("".join)))
def test_no_text_breaks_the_reading_and_what_was_read_reads_again_as_the_same(text):
    """One hostile answer would stop a run; a number would change when it is extracted and then compared."""
    for number in find_numbers(text):
        if number.value is not None:
            again = parse_number(number.text)
            assert again is not None, number
            assert again.value == number.value


@pytest.mark.parametrize(
    "piece",
    ["1,", "1/", "10^", "1*10", "\\frac{", "\\frac{1", "1e", "1.1.", "1 hundred ", "1 / ", *"1-$ \\²½("],
)
def test_hostile_repetition_takes_linear_time(piece):
    """A model could hang a service by repeating a character (the suite's time-out would end this test)."""
    find_numbers("1" + piece * (200_000 // len(piece)) + "a")


def test_too_long_and_wrong_types_are_refused():
    """Work without bound, or a crash deep inside, instead of a clear error."""
    with pytest.raises(InputError, match="at most"):
        find_numbers("1" * (1 << 21))
    with pytest.raises(InputError, match="not int"):
        find_numbers(5)  # type: ignore[arg-type]


def test_tolerances_are_exact():
    """Binary rounding would decide cases that lie on the limit."""
    tenth, third = Fraction(1, 10), Fraction(1, 3)
    assert same_number(third, third)
    assert not same_number(third, Fraction("0.3333333333333333333333"))
    assert same_number(Fraction(100), Fraction(101), absolute=1.0)
    assert not same_number(Fraction(100), Fraction(101) + tenth**30, absolute=1.0)
    assert same_number(Fraction(3), Fraction(4), relative=0.25)
    assert not same_number(Fraction(3), Fraction(4) + tenth**30, relative=0.25)
    assert not same_number(Fraction(10**400), Fraction(10**400 + 1))


@given(st.fractions(), st.fractions(), st.floats(0, 10), st.floats(0, 10))
def test_closeness_is_symmetric(a, b, relative, absolute):
    """The order of two answers would decide whether they agree."""
    tolerances = {"relative": relative, "absolute": absolute}
    assert same_number(a, b, **tolerances) == same_number(b, a, **tolerances)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_senseless_tolerances_are_refused(value):
    """NaN would make every number different, infinity every number the same."""
    with pytest.raises(ConfigurationError, match="tolerance"):
        same_number(Fraction(1), Fraction(1), absolute=value)
