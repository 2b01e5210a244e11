"""Profiles: written where asked, checked before the work, and gone when they cannot be."""

from __future__ import annotations

import builtins
import json
import time

import pytest

from cert.core.errors import ConfigurationError, DependencyMissingError, OutputError
from cert.observability.profiling import profile_to


def busy_work() -> None:
    end = time.perf_counter() + 0.05
    while time.perf_counter() < end:
        pass


@pytest.mark.parametrize("name", ["p.speedscope.json", "p.html", "p.txt"])
def test_a_profile_names_the_function_that_took_the_time(tmp_path, name):
    """That is what one takes a profile for."""
    with profile_to(tmp_path / name):
        busy_work()
    text = (tmp_path / name).read_text("utf-8")
    assert "busy_work" in text
    if name.endswith(".json"):
        assert json.loads(text)["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_work_that_fails_leaves_its_profile(tmp_path):
    """The run that ended in a timeout is the one to look at."""

    def fail() -> None:
        busy_work()
        raise KeyError

    with pytest.raises(KeyError), profile_to(tmp_path / "p.json"):
        fail()
    assert "busy_work" in (tmp_path / "p.json").read_text("utf-8")


def test_a_path_that_cannot_be_written_is_told_before_the_work(tmp_path):
    """An hour of work whose profile then cannot be saved is an hour lost."""
    (tmp_path / "file").write_text("")
    (tmp_path / "dir.json").mkdir()
    began = []
    for path in ("missing/p.json", "file/p.json", "dir.json", "x" * 300 + ".json"):
        with pytest.raises(OutputError, match="profile"), profile_to(tmp_path / path):
            began.append(path)  # a failure here would be hidden by the one of the writing
    assert not began


def test_an_earlier_profile_stays_until_there_is_a_new_one(tmp_path):
    """A second run that is stopped must not leave an empty file in place of the first's."""
    (tmp_path / "p.txt").write_text("earlier")
    with profile_to(tmp_path / "p.txt"):
        assert (tmp_path / "p.txt").read_text() == "earlier"
    assert (tmp_path / "p.txt").read_text() != "earlier"


def test_a_wrong_kind_or_a_second_profile_is_refused(tmp_path):
    """One thread can be sampled once; a file without a known suffix could not be opened by any viewer."""
    with pytest.raises(ConfigurationError, match="kind of profile"), profile_to(tmp_path / "p.prof"):
        pytest.fail("the work began")
    with (
        profile_to(tmp_path / "p.json"),
        pytest.raises(ConfigurationError, match="now"),
        profile_to(tmp_path / "q.json"),
    ):
        pytest.fail("the work began")
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_a_missing_library_is_named_with_its_extra(monkeypatch, tmp_path):
    """`No module named pyinstrument` does not say what to install."""
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("pyinstrument"):
            raise ImportError(name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DependencyMissingError) as caught, profile_to(tmp_path / "p.json"):
        pytest.fail("the work began")
    assert "[profiling]" in (caught.value.hint or "")
