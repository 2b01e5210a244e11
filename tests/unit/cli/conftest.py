"""The command line in this process."""

from __future__ import annotations

import io
import itertools
import sys
import types

import pytest


@pytest.fixture
def cert(monkeypatch, capsys):
    """Run the command line in this process; gives exit code, stdout and stderr."""
    from cert.cli.main import main

    def run(*arguments: object, stdin: bytes | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cert", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "100")
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


@pytest.fixture
def hasty_clock(monkeypatch):
    """A clock of generations on which half a second passes whenever it is looked at."""
    looks = itertools.count()
    clock = types.SimpleNamespace(monotonic=lambda: next(looks) / 2)
    monkeypatch.setattr("cert.backends.control.time", clock)
