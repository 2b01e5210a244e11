"""One key from the person at the terminal, or the first letter of a line from a pipe."""

from __future__ import annotations

import os
import sys

__all__ = ["read_key"]

_END = ""


def read_key() -> str:
    """Return the key that is pressed, in lower case; an empty text at the end of the input.

    The terminal is put back at once, so that a process that is killed between two keys leaves it as it was.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    if sys.stdin is None:
        return _END
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.strip().lower()[:1] or ("\n" if line else _END)
    try:
        import termios
        import tty
    except ImportError:
        return _windows_key()
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor, termios.TCSADRAIN)
        pressed = os.read(descriptor, 32)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
    if pressed[:1] == b"\x04":
        return _END
    # An arrow key comes as several characters, none of which may count as a letter.
    return pressed.decode("utf-8", "replace").lower() if len(pressed) == 1 else "?" if pressed else _END


def _windows_key() -> str:
    import msvcrt

    key: str = msvcrt.getwch()  # type: ignore[attr-defined]  # of another system
    if key == "\x03":
        raise KeyboardInterrupt
    return _END if key in ("\x04", "\x1a") else key.lower()
