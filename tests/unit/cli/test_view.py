"""What a person sees in the terminal, from text that nobody can trust."""

import pytest

from cert.cli.view import printable


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
