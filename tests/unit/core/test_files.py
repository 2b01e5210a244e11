"""Files that are written whole or not at all."""

import os
import stat

import pytest

from cert.core.errors import OutputError
from cert.core.files import write_whole


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path):
    """A shared results file must not become private, nor keep the tail of a longer one."""
    path = tmp_path / "results.json"
    path.write_bytes(b"a much longer older result")
    path.chmod(0o640)
    assert write_whole(path, b"new") == path
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_what_was_there_survives_a_failure(tmp_path, monkeypatch):
    """A full disk in the middle of an export must not cost the last good one, nor leave rubbish."""
    path = tmp_path / "results.json"
    path.write_bytes(b"good")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_written_through(tmp_path):
    """A link to a results folder elsewhere stays a link."""
    target = tmp_path / "target"
    target.write_bytes(b"")
    link = tmp_path / "link"
    link.symlink_to(target)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("name", ["no-such-folder/x", ".", "null\0character"])
def test_an_impossible_path_is_our_error(tmp_path, name):
    """A mistyped path must not end in a traceback of the operating system."""
    with pytest.raises(OutputError, match="could not be written"):
        write_whole(f"{tmp_path}/{name}", b"")
