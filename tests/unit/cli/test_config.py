"""``cert config``: what people see of their settings."""

from __future__ import annotations

import json
import os

import pytest
from typer.testing import CliRunner

from cert.cli.config import app

runner = CliRunner()


@pytest.fixture
def environ(monkeypatch):
    for name in [name for name in os.environ if name.startswith("CERT_")]:
        monkeypatch.delenv(name)
    for name in ("LOG_LEVEL", "DEVICE", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_each_value_is_shown_with_where_it_came_from(environ, tmp_path):
    """The question why it uses that value has to be answered by one command."""
    file = tmp_path / "settings.env"
    file.write_text("CERT_RETRY_ATTEMPTS=3\n")
    environ.setenv("LOG_LEVEL", "debug")
    environ.setenv("CERT_DEVICE", "cpu")
    result = runner.invoke(app, ["show", "--env-file", str(file)])
    assert result.exit_code == 0
    lines = {line.split()[0]: line.split(maxsplit=2)[1:] for line in result.stdout.splitlines()}
    assert lines["CERT_LOG_LEVEL"] == ["debug", "environment variable LOG_LEVEL"]
    assert lines["CERT_DEVICE"] == ["cpu", "environment variable CERT_DEVICE"]
    assert lines["CERT_RETRY_ATTEMPTS"] == ["3", f"CERT_RETRY_ATTEMPTS in file {file}"]
    assert lines["CERT_MAX_COST_PER_HOUR"] == ["10.00", "default"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_secrets_are_masked(environ, options):
    """The output gets pasted into tickets."""
    environ.setenv("ANTHROPIC_API_KEY", "sk-hunter2")
    environ.setenv("CERT_REDIS_URL", "redis://:hunter2@localhost/0")
    result = runner.invoke(app, ["show", *options])
    assert result.exit_code == 0
    assert "hunter2" not in result.output
    assert "********" in result.output


def test_programs_get_json(environ):
    """A deployment script reads the effective values without parsing columns."""
    environ.setenv("CERT_MODLE", "x")
    environ.setenv("CERT_PRELOAD_MODELS", "a,b")
    result = runner.invoke(app, ["show", "--json"])
    shown = json.loads(result.stdout)
    assert shown["schema_version"] == 1
    assert shown["settings"]["CERT_PRELOAD_MODELS"] == {
        "value": ["a", "b"],
        "origin": "environment",
        "name": "CERT_PRELOAD_MODELS",
        "file": None,
    }
    assert shown["settings"]["CERT_MAX_COST_PER_HOUR"]["value"] == "10.00"
    assert shown["settings"]["CERT_METRICS_ENABLED"]["value"] is False
    assert shown["settings"]["CERT_REDIS_URL"]["value"] is None
    assert shown["unknown"] == [{"name": "CERT_MODLE", "nearest": "CERT_MODEL"}]


def test_right_settings_pass_the_check_and_strangers_are_warned_of(environ):
    """A check before a deployment exits 0, and still says that a name was misspelt."""
    environ.setenv("CERT_MODLE", "x")
    result = runner.invoke(app, ["check"])
    assert result.exit_code == 0
    assert "right" in result.stdout
    assert "CERT_MODLE means nothing to CERT; did you mean CERT_MODEL?" in result.stderr


@pytest.mark.parametrize("command", ["check", "show"])
def test_wrong_settings_fail_with_every_problem(environ, command):
    """One run lists all of them, and the exit code stops the deployment."""
    environ.setenv("CERT_RETRY_ATTEMPTS", "0")
    environ.setenv("LOG_LEVEL", "lo\x1b[31mud")
    result = runner.invoke(app, [command])
    assert result.exit_code == 2
    assert "CERT_RETRY_ATTEMPTS='0'" in result.stderr
    assert "LOG_LEVEL=" in result.stderr
    assert "\x1b" not in result.output


def test_a_value_cannot_paint_the_terminal(environ):
    """A model's name from a hostile environment must not send control characters to the terminal."""
    environ.setenv("CERT_MODEL", "m\x1b[2J\nCERT_X fake")
    result = runner.invoke(app, ["show"])
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert not any(line.startswith("CERT_X") for line in result.stdout.splitlines())
