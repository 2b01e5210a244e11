"""Report files: found writable first, written whole or not at all."""

import os
from pathlib import Path

import pytest

from cert.cli.output import check_writable, write_text
from cert.core.errors import OutputError


@pytest.mark.parametrize("path", ["missing/report.html", "."])
def test_a_path_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch, path):
    """Minutes of generation must not be lost to a misspelt folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError):
        check_writable(tmp_path / path)


def test_a_read_only_place_is_found_before_the_work():
    """Permission bits do not tell root; the file system does."""
    if not Path("/proc/self").is_dir():
        pytest.skip("no /proc on this system")
    with pytest.raises(OutputError):
        check_writable(Path("/proc/self/report.html"))


def test_checking_leaves_no_trace(tmp_path):
    """A failed run must not leave an empty report behind, or empty the old one."""
    old = tmp_path / "old.html"
    old.write_text("old")
    check_writable(old)
    check_writable(tmp_path / "new.html")
    assert [path.name for path in tmp_path.iterdir()] == ["old.html"]
    assert old.read_text() == "old"


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    """A full disk must not destroy the report of yesterday."""
    target = tmp_path / "report.html"
    target.write_text("yesterday")

    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="No space left"):
        write_text(target, "today")
    assert target.read_text() == "yesterday"
    assert list(tmp_path.iterdir()) == [target]


def test_a_written_file_is_as_readable_as_any_new_file(tmp_path):
    """A report that only its author can open is no report."""
    plain = tmp_path / "plain"
    plain.write_text("x")
    write_text(tmp_path / "report", "x")
    assert (tmp_path / "report").stat().st_mode == plain.stat().st_mode
