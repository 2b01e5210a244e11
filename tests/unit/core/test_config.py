"""Settings: read in one place, refused by name, and never shown when they are secret."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from cert.core.circuit_state import BreakerPolicy
from cert.core.config import VARIABLES, Settings, load_settings, read_settings
from cert.core.environment import as_text
from cert.core.errors import ConfigurationError
from cert.core.retry import RetryPolicy

ROOT = Path(__file__).parents[3]
V4_NAMES = [
    "LOG_LEVEL", "LOG_FORMAT", "LOG_OUTPUT", "LOG_FILE", "METRICS_ENABLED", "METRICS_PORT", "PRELOAD_MODELS",
    "DEVICE", "MAX_MEMORY_GB", "ANTHROPIC_API_KEY", "MAX_COST_PER_HOUR",
]  # fmt: skip


def refusal(**environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ)
    return caught.value.message


def test_without_any_variable_the_defaults_of_the_design_hold():
    """A deployment without settings has to be safe: 50 requests a minute and ten dollars an hour at most."""
    settings = load_settings({})
    assert settings.limits.requests_per_minute == 50
    assert settings.budget.per_hour == Decimal("10.00")
    assert settings.breaker.policy() == BreakerPolicy()
    assert settings.retry.policy() == RetryPolicy()
    assert settings == Settings()


def test_values_arrive_where_they_belong():
    """A setting that is read and then ignored is worse than an error."""
    settings = load_settings(
        {
            "CERT_DEVICE": "CUDA:1",
            "CERT_LOG_LEVEL": " Warning ",
            "CERT_METRICS_ENABLED": "yes",
            "CERT_METRICS_PORT": "9100",
            "CERT_REDIS_URL": "redis://:hunter2@localhost:6379/0",
            "CERT_MAX_REPLICAS": "4",
            "CERT_MAX_COST_PER_HOUR": "0.000001",
            "CERT_BREAKER_RECOVERY_SECONDS": "2.5",
            "CERT_RETRY_ATTEMPTS": "2",
            "CERT_LOG_FILE": "/var/log/cert.log",
        }
    )
    assert settings.model.device == "cuda:1"
    assert settings.logging.level == "warning"
    assert settings.logging.file == Path("/var/log/cert.log")
    assert (settings.metrics.enabled, settings.metrics.port) == (True, 9100)
    assert settings.shared.redis_url is not None
    assert settings.shared.redis_url.get_secret_value() == "redis://:hunter2@localhost:6379/0"
    assert settings.shared.max_replicas == 4
    assert settings.budget.per_hour == Decimal("0.000001")
    assert settings.breaker.policy() == BreakerPolicy(recovery_seconds=2.5)
    assert settings.retry.policy() == RetryPolicy(attempts=2)


def test_the_names_of_the_v4_documents_work():
    """Deployments written to the documents must not be ignored in silence."""
    values = {
        "LOG_LEVEL": "ERROR",
        "LOG_FORMAT": "console",
        "LOG_OUTPUT": "file",
        "LOG_FILE": "x.log",
        "METRICS_ENABLED": "true",
        "METRICS_PORT": "1234",
        "PRELOAD_MODELS": "a, b",
        "DEVICE": "cpu",
        "MAX_MEMORY_GB": "7.5",
        "ANTHROPIC_API_KEY": "sk-1",
        "MAX_COST_PER_HOUR": "3",
    }
    assert sorted(values) == sorted(V4_NAMES)
    _, reading, problems = read_settings(values)
    assert not problems
    assert {found.name for found in reading.found.values()} == set(V4_NAMES)
    settings = load_settings(values)
    assert settings.logging.level == "error"
    assert settings.logging.output == "file"
    assert settings.model.preload == ("a", "b")
    assert settings.model.max_memory_gb == 7.5
    assert settings.upstream.anthropic_api_key is not None
    assert settings.budget.per_hour == 3


@pytest.mark.parametrize("place", ["environment", "file"])
def test_our_name_wins_over_the_older_one(tmp_path, place):
    """LOG_LEVEL may be another program's: what was said to CERT by name decides, also from the file."""
    file = tmp_path / "settings.env"
    ours = {"CERT_LOG_LEVEL": "debug"}
    file.write_text("CERT_LOG_LEVEL=debug\n" if place == "file" else "")
    environ = {"LOG_LEVEL": "error"} | (ours if place == "environment" else {})
    assert load_settings(environ, file).logging.level == "debug"


def test_the_environment_wins_over_the_file(tmp_path):
    """A value given for one run must override the one that stands in the file."""
    file = tmp_path / "settings.env"
    file.write_bytes(
        b'\xef\xbb\xbfexport CERT_LOG_LEVEL="debug"\nCERT_RETRY_ATTEMPTS=3 # comment\nCERT_MODEL=$HOME/m\n'
    )
    settings = load_settings({"CERT_RETRY_ATTEMPTS": "4", "HOME": "/h"}, file)
    assert (settings.retry.attempts, settings.logging.level) == (4, "debug")
    assert settings.model.name == "$HOME/m", "a password with a dollar sign must stay as it is"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    """A typing error in the path must not mean that the defaults are used."""
    file = tmp_path / "settings.env"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"settings\.env"):
        load_settings({}, file)


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("CERT_REQUESTS_PER_MINUTE", "0", "greater than or equal to 1"),
        ("CERT_REQUESTS_PER_MINUTE", "-5", "greater than or equal to 1"),
        ("CERT_REQUESTS_PER_MINUTE", "nan", "integer"),
        ("CERT_TOKENS_PER_MINUTE", "many", "integer"),
        ("CERT_MAX_COST_PER_HOUR", "-1", "greater than or equal to 0"),
        ("CERT_MAX_COST_PER_HOUR", "NaN", "finite"),
        ("CERT_MAX_COST_PER_HOUR", "Infinity", "finite"),
        ("CERT_MAX_COST_PER_HOUR", "0.0000001", "6 decimal places"),
        ("CERT_MAX_COST_TOTAL", "-inf", "finite"),
        ("MAX_COST_PER_HOUR", "$10", "decimal"),
        ("CERT_MAX_MEMORY_GB", "nan", "finite"),
        ("CERT_MAX_MEMORY_GB", "0", "greater than 0"),
        ("MAX_MEMORY_GB", "-1", "greater than 0"),
        ("CERT_BREAKER_FAILURE_RATE", "1.5", "less than or equal to 1"),
        ("CERT_BREAKER_FAILURE_RATE", "nan", "finite"),
        ("CERT_BREAKER_RECOVERY_SECONDS", "inf", "finite"),
        ("CERT_RETRY_TOTAL_SECONDS", "-3", "greater than 0"),
        ("CERT_RETRY_ATTEMPTS", "0", "greater than or equal to 1"),
        ("CERT_MAX_REPLICAS", "0", "greater than or equal to 1"),
        ("CERT_METRICS_PORT", "70000", "65535"),
        ("CERT_METRICS_PORT", "tcp://10.0.0.1:9090", "enableServiceLinks"),
        ("METRICS_ENABLED", "perhaps", "boolean"),
        ("LOG_LEVEL", "loud", "'warning'"),
        ("CERT_LOG_FORMAT", "xml", "'console'"),
        ("CERT_LOG_OUTPUT", "printer", "'stderr'"),
        ("DEVICE", "tpu", "cuda"),
        ("CERT_DTYPE", "int3", "bfloat16"),
        ("CERT_MODEL_CACHE_SIZE", "0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_value_is_refused_by_name_with_what_is_right(name, value, right):
    """Whoever deploys must read which variable is wrong, what it holds, and what would do."""
    message = refusal(**{name: value})
    assert f"{name}={value!r}" in message
    assert right in message


def test_every_problem_is_told_at_once():
    """Finding the errors of a deployment one restart at a time takes an afternoon."""
    message = refusal(
        CERT_LOG_OUTPUT="file", CERT_LOG_LEVEL="loud", CERT_METRICS_PORT="x", CERT_REDIS_URL="localhost:6379"
    )
    for name in ("CERT_LOG_LEVEL", "CERT_METRICS_PORT", "CERT_REDIS_URL", "CERT_LOG_FILE"):
        assert name in message


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hunter2@host/0",
        "redis:me:hunter2@host",
        "hunter2",
        "me:hunter2@host:6379",
        "me:hunter2@host://0",
    ],
)
def test_a_wrong_secret_is_refused_without_being_told(url):
    """An error message ends up in logs and tickets: a password in the wrong form must not."""
    message = refusal(CERT_REDIS_URL=url)
    assert "CERT_REDIS_URL" in message
    assert "hunter2" not in message


def test_secrets_show_in_no_representation():
    """A settings object in a log line or traceback must not give the key away."""
    settings = load_settings(
        {"ANTHROPIC_API_KEY": "sk-hunter2", "CERT_REDIS_URL": "rediss://me:hunter2@host:6379/1"}
    )
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()
    shown = {
        variable.name: as_text(variable, getattr(getattr(settings, variable.group), variable.field))
        for variable in VARIABLES
    }
    assert "hunter2" not in str(shown)
    assert shown["CERT_REDIS_URL"] == "rediss://********@host:6379/1"


@pytest.mark.parametrize(
    "form", ["redis://me:{}@host:6379/0", "unix://:{}@/path", "rediss://h/0?password={}"]
)
@example("@/")
@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1))
def test_a_password_in_an_address_is_never_shown(form, password):
    """Whatever characters a password has, masking must not let any of it through."""
    (variable,) = (one for one in VARIABLES if one.name == "CERT_REDIS_URL")
    shown = as_text(variable, form.format(f"Q7{password}7Q")) or ""
    assert "Q7" not in shown
    assert "7Q" not in shown


def test_an_address_without_a_password_is_shown():
    """Which Redis it is has to be seen; only what is secret is masked."""
    (variable,) = (one for one in VARIABLES if one.name == "CERT_REDIS_URL")
    for url in ("redis://localhost:6379/0", "unix:///run/redis.sock", "rediss://********@host:6379/1"):
        assert as_text(variable, url) == url


def test_an_empty_value_counts_as_not_set():
    """docker-compose passes NAME="" for what nobody filled in; that must not be an error."""
    assert (
        load_settings({"CERT_REDIS_URL": "", "ANTHROPIC_API_KEY": " ", "CERT_RETRY_ATTEMPTS": ""})
        == Settings()
    )


@pytest.mark.parametrize(
    ("value", "models"), [("true", ("m",)), ("0", ()), ("off", ()), ("a,,b ", ("a", "b"))]
)
def test_models_to_preload_are_named_or_all(value, models):
    """Documents say both PRELOAD_MODELS=true and a list; both have to mean what they say."""
    assert load_settings({"PRELOAD_MODELS": value, "CERT_MODEL": "m"}).model.preload == models


def test_a_variable_that_means_nothing_is_warned_of_with_the_nearest_name():
    """CERT_MAX_COST_PER_HOURS=1 must not leave the budget at ten dollars in silence."""
    with pytest.warns(UserWarning, match=r"CERT_MAX_COST_PER_HOURS .*did you mean CERT_MAX_COST_PER_HOUR\?"):
        load_settings({"CERT_MAX_COST_PER_HOURS": "1"})
    with pytest.warns(UserWarning, match="CERT_XYZZY means nothing to CERT$"):
        load_settings({"CERT_XYZZY": "1"})


def test_what_kubernetes_sets_by_itself_is_not_warned_of():
    """A service named cert-api would otherwise fill the log of every container with warnings."""
    load_settings(
        {
            "CERT_API_SERVICE_HOST": "10.0.0.1",
            "CERT_API_SERVICE_PORT": "80",
            "CERT_API_SERVICE_PORT_HTTP": "80",
            "CERT_API_PORT": "tcp://10.0.0.1:80",
            "CERT_API_PORT_80_TCP_ADDR": "10.0.0.1",
        }
    )


def test_settings_are_frozen_and_closed():
    """A setting that changes under a running service, or a misspelt one in a program, has to fail."""
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.retry.attempts = 7
    with pytest.raises(ValidationError):
        settings.retry = settings.retry
    with pytest.raises(ValidationError):
        Settings(retries=3)  # type: ignore[call-arg]


def test_only_load_settings_reads_the_environment(monkeypatch, tmp_path):
    """A library that picks up variables by itself behaves differently on each machine."""
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("CERT_RETRY_ATTEMPTS=9\n")
    monkeypatch.setenv("CERT_RETRY_ATTEMPTS", "8")
    monkeypatch.setenv("RETRY", '{"attempts": 7}')
    assert Settings().retry.attempts == 6
    assert load_settings({}).retry.attempts == 6
    assert load_settings().retry.attempts == 8
    users = {
        path.relative_to(ROOT / "src/cert").as_posix()
        for path in (ROOT / "src/cert/core").glob("*.py")
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    }
    assert users == {"core/config.py"}


def test_names_are_unique():
    """Two settings under one variable would set each other."""
    names = [name for variable in VARIABLES for name in variable.names]
    assert len(names) == len(set(names))


def test_the_reference_page_is_up_to_date():
    """Documents that name a default which is no longer so mislead whoever deploys."""
    script = [sys.executable, str(ROOT / "scripts/settings_reference.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stderr
