"""The logs of commands: quiet at a terminal, and as the environment says."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from cert.cli import logs as logs_module
from cert.cli.logs import logs
from cert.cli.main import main
from cert.core.config import VARIABLES
from cert.core.errors import ConfigurationError
from cert.core.events import BudgetRefused, ModelUnloaded, default_hub


def write_something() -> None:
    default_hub().emit(BudgetRefused(budget="hourly", micro_dollars=1))
    default_hub().emit(ModelUnloaded(model="reference"))
    logging.getLogger("somebody").warning("said a library")


def test_a_person_sees_warnings_in_plain_words_and_no_more(capsys):
    """Lines of every event would drown the result; a refusal that nobody is told of is a riddle."""
    with logs({}):
        write_something()
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split()[1:3] for line in sorted(err.splitlines(), key=lambda line: line[28:])] == [
        ["warning", "budget_refused"],
        ["warning", "said"],
    ]


@pytest.mark.parametrize("prefix", ["CERT_", ""])
def test_the_environment_decides(tmp_path, prefix, capsys):
    """Who runs commands in a pipeline collects their logs as those of a service."""
    path = tmp_path / "log.json"
    environ = {"LOG_LEVEL": "info", "LOG_FORMAT": "json", "LOG_OUTPUT": "file", "LOG_FILE": str(path)}
    with logs({prefix + name: value for name, value in environ.items()}):
        write_something()
    assert {json.loads(line)["event"] for line in path.read_text().splitlines()} == {
        "budget_refused",
        "model_unloaded",
        "said a library",
    }
    assert capsys.readouterr().err == ""


def test_what_is_not_set_stays_as_for_a_person(capsys):
    """Asking for more lines is not asking for JSON."""
    with logs({"CERT_LOG_LEVEL": "info"}):
        write_something()
    assert "model_unloaded" in capsys.readouterr().err
    with logs({"CERT_LOG_FORMAT": "json"}):
        write_something()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {line["level"] for line in lines} == {"warning"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CERT_LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("CERT_LOG_OUTPUT", "file"),
        ("CERT_LOG_MAX_BYTES", "0"),
    ],
)
def test_a_wrong_variable_is_exit_code_2_with_its_name(monkeypatch, capsys, name, value):
    """A command that logs nowhere, or not what was asked, is found out when the log is needed."""
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("CERT_METRICS_PORT", "none of a command's business")
    monkeypatch.setattr(sys, "argv", ["cert", "demo"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert ("CERT_LOG_FILE" if value == "file" else f"{name}={value!r}") in told
    assert "METRICS" not in told


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    """The log of an hour's work would be missing at its end."""
    with (
        pytest.raises(ConfigurationError, match="cannot be written"),
        logs({"LOG_OUTPUT": "file", "LOG_FILE": str(tmp_path / "missing" / "log")}),
    ):
        pytest.fail("the work began")


def test_the_command_that_checks_settings_tells_of_all(monkeypatch, capsys):
    """Stopped at the first wrong variable of the logs, it would hide the others from who came to see them."""
    monkeypatch.setenv("CERT_LOG_LEVEL", "loud")
    monkeypatch.setenv("CERT_METRICS_PORT", "none")
    monkeypatch.setattr(sys, "argv", ["cert", "config", "check"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert "CERT_LOG_LEVEL" in told
    assert "CERT_METRICS_PORT" in told


def test_nothing_is_left_behind(capsys, caplog):
    """A program that calls the command line would find its own logging changed."""
    before = logging.getLogger().handlers[:], logging.getLogger("cert").level
    with pytest.raises(KeyError), logs({"CERT_LOG_LEVEL": "debug"}):
        raise KeyError
    caplog.clear()
    write_something()
    default_hub().flush()
    assert [record.name for record in caplog.records] == ["somebody"], "the hub has one listener less again"
    assert (logging.getLogger().handlers[:], logging.getLogger("cert").level) == before
    assert "budget_refused" not in capsys.readouterr().err


def test_every_variable_of_the_logs_is_looked_at():
    """One that is not in the list would be ignored as long as no other is set."""
    known = {name for variable in VARIABLES if variable.group == "logging" for name in variable.names}
    assert set(logs_module.VARIABLES) == known


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["demo", "--help"], ["analyze", "--help"]])
def test_help_and_version_load_neither_settings_nor_logs(arguments):
    """Who asks for help waits for what the help does not need, or is refused it for a wrong variable."""
    program = (
        "import sys\nfrom cert.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as stopped:\n    assert not stopped.code\n"
        "print('loaded:', *{'pydantic_settings', 'structlog', 'pyinstrument'} & set(sys.modules))"
    )
    environ = os.environ | {"CERT_LOG_LEVEL": "loud"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_a_log_on_standard_error_loads_no_library_of_log_files():
    """It would load a Redis client and more with it, a third of a second at the start of each command."""
    program = (
        "import sys\nfrom cert.observability.logging import configure_logging\n"
        "configure_logging()\nprint(*{'concurrent_log_handler', 'portalocker', 'redis'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
