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


def test_a_link_and_a_device_are_written_through_and_not_replaced(tmp_path):
    """/dev/stdout is both: replacing it would break every program of the machine."""
    target = tmp_path / "target"
    target.write_text("old")
    link = tmp_path / "link"
    link.symlink_to(target)
    check_writable(link)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    check_writable(Path("/dev/null"))
    write_text(Path("/dev/null"), "x")
    assert Path("/dev/null").is_char_device()


def test_a_private_file_stays_private(tmp_path):
    """Whoever made a report unreadable for others meant it."""
    report = tmp_path / "report"
    report.write_text("old")
    report.chmod(0o600)
    write_text(report, "new")
    assert report.stat().st_mode & 0o777 == 0o600


def test_ctrl_c_in_the_middle_leaves_nothing_behind(tmp_path, monkeypatch):
    """Half-written files would pile up beside the reports."""

    def interrupt(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "report", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_is_an_output_error(tmp_path):
    """Not a traceback, and before the work."""
    with pytest.raises(OutputError):
        check_writable(tmp_path / ("x" * 300))
