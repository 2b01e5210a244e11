"""``cert --profile``: there whenever the command began, and never what decides the exit code."""

from __future__ import annotations

import builtins
import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

from cert.cli.main import main
from cert.core import config as cert_config

CERT = [sys.executable, "-c", "from cert.cli.main import main; main()"]


@pytest.fixture
def cert(monkeypatch, capsys):
    """Run the command line in this process; gives exit code and stderr."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["cert", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), capsys.readouterr().err

    return run


def replace_the_work(monkeypatch, work) -> None:
    monkeypatch.setattr("cert.core.config.read_settings", work)


def test_a_profile_of_a_command_opens_in_a_viewer(cert, tmp_path, monkeypatch):
    """That is what one takes it for; and a command that nobody can see into stays slow."""
    quick = cert_config.read_settings

    def read_settings_slowly(*arguments, **options):
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            pass
        return quick(*arguments, **options)

    replace_the_work(monkeypatch, read_settings_slowly)
    assert cert("--profile", tmp_path / "p.speedscope.json", "config", "check")[0] == 0
    profile = json.loads((tmp_path / "p.speedscope.json").read_text("utf-8"))
    assert profile["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert "read_settings_slowly" in json.dumps(profile["shared"])


@pytest.mark.parametrize(
    ("error", "code"), [(ZeroDivisionError(), 3), (KeyboardInterrupt(), 130), (SystemExit(4), 4)]
)
def test_a_command_that_fails_leaves_its_profile_and_its_exit_code(cert, tmp_path, monkeypatch, error, code):
    """The run that went wrong is the one to look at; a script still has to see that it did."""

    def fail(*_, **__):
        raise error

    replace_the_work(monkeypatch, fail)
    assert cert("--profile", tmp_path / "p.txt", "config", "check")[0] == code
    assert (tmp_path / "p.txt").stat().st_size > 0


def test_an_interrupted_command_leaves_its_profile(tmp_path):
    """A command that hangs is ended by Ctrl-C, and where it hung is the question."""
    command = [*CERT, "--profile", str(tmp_path / "p.txt"), "analyze", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        end = time.monotonic() + 60
        while not list(tmp_path.glob(".p.txt.*.part")) and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(1.0)  # what it imports must be in: an import in C swallows an interrupt
        run.send_signal(signal.SIGINT)
        _, told = run.communicate(timeout=60)
    assert run.returncode == 130, told
    assert b"Traceback" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["p.txt"]


@pytest.mark.parametrize(
    ("file", "code", "says"),
    [("p.prof", 2, "which kind of profile"), ("missing/p.json", 3, "cannot be written")],
)
def test_a_profile_that_cannot_be_is_refused_before_the_work(cert, tmp_path, monkeypatch, file, code, says):
    """An hour of work whose profile then cannot be saved is an hour lost."""
    replace_the_work(monkeypatch, lambda *_, **__: pytest.fail("the work began"))
    ended, told = cert("--profile", tmp_path / file, "config", "check")
    assert ended == code
    assert says in told


def test_a_profile_that_cannot_be_written_in_the_end_does_not_fail_the_command(cert, tmp_path, monkeypatch):
    """A gate that failed an answer must not become `could not run`."""
    folder = tmp_path / "gone"
    folder.mkdir()

    def work(*_, **__):
        shutil.rmtree(folder)
        raise SystemExit(1)

    replace_the_work(monkeypatch, work)
    ended, told = cert("--profile", folder / "p.json", "config", "check")
    assert ended == 1
    assert "warning: the profile cannot be written" in told


def test_a_missing_profiler_is_named_with_its_extra(cert, tmp_path, monkeypatch):
    """`No module named pyinstrument` does not say what to install."""
    real = builtins.__import__

    def without(name, *rest, **options):
        if name.startswith("pyinstrument"):
            raise ImportError(name=name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    ended, told = cert("--profile", tmp_path / "p.json", "config", "check")
    assert ended == 3
    assert "cert-framework[profiling]" in told


def test_help_and_version_take_no_profile(cert, tmp_path):
    """They run no command; an empty profile would replace the last one."""
    for asked in (["--version"], ["--help"], ["config", "check", "--help"]):
        assert cert("--profile", tmp_path / "p.json", *asked)[0] == 0
    assert list(tmp_path.iterdir()) == []
