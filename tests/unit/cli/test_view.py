"""What a person sees in the terminal, from text that nobody can trust."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.cli.view import Painter, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", "⟨U+001B⟩[2J⟨U+001B⟩]0;owned⟨U+0007⟩"),
        ("a\rb\x08c\x7f", "a⟨U+000D⟩b⟨U+0008⟩c⟨U+007F⟩"),
        ("\x9b31m", "⟨U+009B⟩31m"),
        ("user\u202etxt.exe", "user⟨U+202E⟩txt.exe"),
        ("zero\u200bwidth", "zero⟨U+200B⟩width"),
        ("line\nand\ttab", "line\nand\ttab"),
        ("naïve 👩‍👩‍👧‍👦 日本", "naïve 👩‍👩‍👧‍👦 日本"),
    ],
)
def test_characters_that_steer_a_terminal_are_shown_and_not_obeyed(text, shown):
    """A model's output could clear the screen, set the title or show another text than it holds."""
    assert printable(text) == shown


@given(st.lists(st.text(st.sampled_from("ab \n\t\x1b\u202e\u0301\u200d é日"), max_size=12)))
def test_a_text_in_pieces_is_shown_as_the_whole(pieces):
    """Marks that climb over the lines above could come one a token, past the limit on each token."""
    painter = Painter()
    shown = "".join(part for piece in pieces for part, _ in painter.paint(piece, 0.1))
    assert shown == printable("".join(pieces))


@pytest.mark.parametrize(
    ("probability", "shown"),
    [
        (1.0, " a"),
        (0.91, " a"),
        (0.9, " [a]¹"),
        (0.51, " [a]¹"),
        (0.5, " [a]²"),
        (0.21, " [a]²"),
        (0.2, " [a]³"),
        (0.06, " [a]³"),
        (0.05, " [a]⁴"),
        (1e-9, " [a]⁴"),
    ],
)
def test_a_mark_says_in_which_range_the_probability_is(probability, shown):
    """The legend's limits are those of the marks, to the last digit."""
    # Just below the limit in surprisal is just above it in probability.
    ((part, style),) = Painter(marked=True).paint(" a", -math.log(probability) + 1e-12)
    assert (part, style) == (shown, "")


@pytest.mark.parametrize(("text", "shown"), [("\n", "[↵]⁴\n"), (" ", "[ ]⁴"), ("", ""), ("a\n", "[a]⁴\n")])
def test_blank_tokens_are_marked_where_they_stand(text, shown):
    """An unlikely end of a line is as much a decision of the model as a word."""
    assert Painter(marked=True).paint(text, 9.0) == [(shown, "")]


def test_a_token_that_was_not_measured_is_marked_as_such():
    """Its place must not look like a sure one."""
    assert Painter(marked=True).paint("a", math.nan) == [("[a]?", "")]
    assert Painter().paint("a", math.nan) == [("a", "dim")]
