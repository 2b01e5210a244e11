"""The final answer is found where models put it, and nothing is found where there is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.answers.extract import (
    EXTRACTORS,
    Extraction,
    boxed,
    choice,
    extract,
    hash_marks,
    last_number,
    stated,
    whole,
)
from cert.core.errors import ConfigurationError, InputError


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{42}.", "42"),
        (r"\boxed{1}, no, \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed {x}", "x"),
        (r"$\boxed 5$", "5"),
        (r"\fbox{7}", "7"),
        (r"\boxed{1} and then \boxed{2", None),
        (r"\boxed{}", None),
        (r"\boxedx{1}", None),
        ("none", None),
    ],
)
def test_the_last_box_is_the_answer(text, answer):
    """A cut-off or nested box would give a piece of the answer as the answer."""
    assert boxed(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("2 + 2 = 4\n#### 4", "4"),
        ("#### 1\n#### 1,234 \nrest", "1,234"),
        ("##### 4", None),
        ("x #### 4", None),
        ("####", None),
        ("#### \n5", None),
    ],
)
def test_gsm8k_solutions_end_in_hash_marks(text, answer):
    """The benchmark's own answers would not be found."""
    assert hash_marks(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is Paris.", "Paris"),
        ("the final answer is: **42**", "42"),
        ("**Answer:** Paris\nmore", "Paris"),
        ("Answer:\n\n42", "42"),
        ("The answer is 3.14. It is known.", "3.14"),
        ("The answer is 5. No: the answer is 6.", "6"),
        ("The answer is Dr. Watson, of course.", "Dr. Watson, of course"),
        ("The correct option is B", "B"),
        ("The answer is “yes!” he said", "yes"),
        ("My answer would be 'no'", "no"),
        ("The answer is", None),
        ("An answer was given.", None),
        ("Answers: 1, 2", None),
        ("Paris", None),
    ],
)
def test_the_last_statement_is_the_answer(text, answer):
    """A corrected answer would be scored by what the model took back, or a name be cut at its point."""
    assert stated(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("First 3, then 18 eggs.", "18"),
        ("It costs -$1,234.50!", "-$1,234.50"),
        ("5 - 3 = 2", "2"),
        ("between 3 and 1,5", None),
        ("see x-3", None),
        ("none", None),
    ],
)
def test_the_last_number_counts_only_if_it_can_be_read(text, answer):
    """An earlier number would be taken for the answer where the last one is unclear."""
    assert last_number(text) == answer


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b)", "B"),
        ("(C)", "C"),
        ("B. Paris", "B"),
        ("**B**", "B"),
        ("The answer is (b).", "B"),
        ("The answer is B because it fits.", "B"),
        ("The answer is: A", "A"),
        ("A) no. Wait, the answer is C.", "C"),
        (r"\boxed{\text{D}}", "D"),
        (r"The answer is A. \boxed{B}", "B"),
        ("I would say (B), yes (B).", "B"),
        ("（Ｂ）", "B"),
        ("Either (A) or (B).", None),
        ("A dog", None),
        ("The answer is a dog", None),
        ("The answer is A good one", None),
        ("Berlin", None),
        ("X", None),
        ("", None),
    ],
)
def test_choices_are_letters_not_words(text, letter):
    """An article would be scored as the choice A."""
    assert choice(text) == letter


def test_only_letters_on_offer_count():
    """Option E of four would be an answer."""
    assert choice("D", "ABCD") == "D"
    assert choice("E", "ABCD") is None


@pytest.mark.parametrize("letters", ["", "AA", "ab", "A-", "Á"])
def test_letters_must_be_distinct_capitals(letters):
    """Odd letters would build an odd pattern."""
    with pytest.raises(ConfigurationError, match="letters"):
        choice("A", letters)


def test_extractors_are_tried_in_order_and_named():
    """A user could not tell from where an answer came."""
    found = extract(r"The answer is 5, so \boxed{6}", "hash_marks", "boxed", "stated")
    assert found == Extraction("6", "boxed")
    assert extract("nothing here", "boxed", "last_number") is None
    mine = extract("abc", "boxed", str.upper)
    assert mine == Extraction("ABC", "upper")


def test_unknown_extractors_are_named_with_what_there_is():
    """A typing error would silently find nothing in every answer."""
    with pytest.raises(ConfigurationError, match="boxd") as caught:
        extract("x", "boxd")
    assert "boxed" in str(caught.value.hint)
    with pytest.raises(ConfigurationError, match="no extractor"):
        extract("x")


def test_space_alone_is_no_answer():
    """An empty generation would count as an answer."""
    assert whole(" \n") is None
    assert whole(" Paris\n") == "Paris"


PIECES = st.sampled_from(
    ["\\boxed{", "\\boxed ", "{", "}", "\\{", "####", "\n", "the answer is ", "Answer:", "(A)", *"B. *5\0ﬁ"]
)


@pytest.mark.parametrize("name", EXTRACTORS)
@given(text=st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join)))
def test_no_text_breaks_an_extractor(name, text):
    """One hostile answer would stop a run."""
    answer = EXTRACTORS[name](text)
    assert answer is None or answer.strip()


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize(
    "piece", ["\\boxed{", "\\boxed ", "#### ", "answer ", "answer: ", "answer is ", "(A", *"{* .\n\\"]
)
def test_hostile_repetition_takes_linear_time(name, piece):
    """A model could hang a service by repeating itself (the suite's time-out would end this test)."""
    EXTRACTORS[name](piece * (200_000 // len(piece)))


@pytest.mark.parametrize("name", EXTRACTORS)
def test_texts_over_the_limit_are_refused(name):
    """Work without bound."""
    with pytest.raises(InputError):
        EXTRACTORS[name]("x" * (1 << 21))
