"""Every setting, as frozen values; `load_settings` is the only code that reads the environment.

Only the services and the command line call it. The library takes its options as arguments.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from cert.core.config_services import AnalysisSettings, GatewaySettings, JobSettings, ServiceSettings
from cert.core.environment import (
    Problem,
    Reading,
    SettingsGroup,
    find_values,
    problems_of,
    setting,
    variables_of,
)
from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cert.core.circuit_state import BreakerPolicy
    from cert.core.retry import RetryPolicy

__all__ = [
    "DEFAULT_ANTHROPIC_MODEL",
    "VARIABLES",
    "AnalysisSettings",
    "BreakerSettings",
    "BudgetSettings",
    "GatewaySettings",
    "JobSettings",
    "LimitSettings",
    "LoggingSettings",
    "MetricsSettings",
    "ModelSettings",
    "RetrySettings",
    "ServiceSettings",
    "Settings",
    "SharedSettings",
    "UpstreamSettings",
    "load_settings",
    "read_settings",
]


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Dollars = Annotated[Decimal, Field(ge=0, decimal_places=6, max_digits=15)]


class ModelSettings(SettingsGroup):
    """Models that run in this process."""

    name: str = setting("reference", "MODEL", "model to watch: a folder, a hub id, or `reference`")
    device: Annotated[str, BeforeValidator(_lower), Field(pattern=r"^(auto|cpu|cuda|cuda:\d+|mps)$")] = (
        setting("auto", "DEVICE", "`auto`, `cpu`, `cuda`, `cuda:N` or `mps`", "DEVICE")
    )
    dtype: Annotated[Literal["auto", "float32", "float16", "bfloat16"], BeforeValidator(_lower)] = setting(
        "auto", "DTYPE", "type of the weights; `auto` is float32 on a CPU, else the checkpoint's own"
    )
    cache_size: int = setting(1, "MODEL_CACHE_SIZE", "models kept in memory at once", ge=1)
    preload: tuple[str, ...] = setting(
        (),
        "PRELOAD_MODELS",
        "models to load at the start, with commas between; `true` is the one of CERT_MODEL",
        "PRELOAD_MODELS",
    )
    max_memory_gb: float | None = setting(
        None,
        "MAX_MEMORY_GB",
        "memory of the device that may be used, in 10⁹ bytes; not set: all",
        "MAX_MEMORY_GB",
        gt=0,
        allow_inf_nan=False,
    )

    @field_validator("preload", mode="before")
    @classmethod
    def _names(cls, value: Any, info: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.strip().lower() in ("0", "false", "no", "off"):
            return ()
        if value.strip().lower() in ("1", "true", "yes", "on"):
            return (info.data.get("name", "reference"),)
        return tuple(name for part in value.split(",") if (name := part.strip()))


class LoggingSettings(SettingsGroup):
    """Logs."""

    level: Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_lower)] = (
        setting("info", "LOG_LEVEL", "`debug`, `info`, `warning`, `error` or `critical`", "LOG_LEVEL")
    )
    format: Annotated[Literal["json", "console"], BeforeValidator(_lower)] = setting(
        "json", "LOG_FORMAT", "`json`, or `console` for people", "LOG_FORMAT"
    )
    output: Annotated[Literal["stderr", "stdout", "file"], BeforeValidator(_lower)] = setting(
        "stderr", "LOG_OUTPUT", "`stderr`, `stdout` or `file`", "LOG_OUTPUT"
    )
    file: Path | None = setting(None, "LOG_FILE", "path of the log when the output is `file`", "LOG_FILE")
    max_bytes: int = setting(100_000_000, "LOG_MAX_BYTES", "size at which the file is rotated", ge=1)
    backups: int = setting(10, "LOG_BACKUPS", "rotated files that are kept", ge=0)

    @field_validator("file")
    @classmethod
    def _is_named(cls, value: Path | None, info: Any) -> Path | None:
        if value is None and info.data.get("output") == "file":
            raise ValueError("it has to name the file that CERT_LOG_OUTPUT=file writes")
        return value


class MetricsSettings(SettingsGroup):
    """Metrics for Prometheus."""

    enabled: bool = setting(False, "METRICS_ENABLED", "serve metrics: `true` or `false`", "METRICS_ENABLED")
    port: int = setting(9090, "METRICS_PORT", "port that serves them; 0: any", "METRICS_PORT", ge=0, le=65535)


class SharedSettings(SettingsGroup):
    """What replicas share."""

    redis_url: SecretStr | None = setting(
        None, "REDIS_URL", "Redis of the shared limits; not set: limits are of this process", secrecy="url"
    )
    max_replicas: int | None = setting(
        None,
        "MAX_REPLICAS",
        "replicas at most; without Redis each takes its share of a limit, and none if this is not set",
        ge=1,
    )

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(
            ("redis://", "rediss://", "unix://")
        ):
            raise ValueError("it should start with redis://, rediss:// or unix://")
        return value


# The one place that names it; a test fails when it has no price or its vendor calls it deprecated.
DEFAULT_ANTHROPIC_MODEL = "claude-sonnet-5-5"


class UpstreamSettings(SettingsGroup):
    """Servers that we call."""

    anthropic_api_key: SecretStr | None = setting(
        None, "ANTHROPIC_API_KEY", "key of the Claude API", "ANTHROPIC_API_KEY", secrecy="secret"
    )
    anthropic_model: str = setting(
        DEFAULT_ANTHROPIC_MODEL, "ANTHROPIC_MODEL", "model of the Claude API where no other is named"
    )
    openai_api_key: SecretStr | None = setting(
        None, "OPENAI_API_KEY", "key of an OpenAI-compatible server", "OPENAI_API_KEY", secrecy="secret"
    )


class LimitSettings(SettingsGroup):
    """Our own rate limits."""

    requests_per_minute: int = setting(
        50,
        "REQUESTS_PER_MINUTE",
        "requests in any window of 60 s; the smallest usual tier of vendors",
        ge=1,
        le=1_000_000,
    )
    tokens_per_minute: int | None = setting(
        None, "TOKENS_PER_MINUTE", "tokens a minute; not set: no limit", ge=1, le=60_000_000
    )


class BudgetSettings(SettingsGroup):
    """Our own limits on dollars."""

    per_hour: Dollars = setting(
        Decimal("10.00"), "MAX_COST_PER_HOUR", "dollars in any window of an hour", "MAX_COST_PER_HOUR"
    )
    total: Dollars | None = setting(None, "MAX_COST_TOTAL", "dollars in all; not set: no limit")


class RetrySettings(SettingsGroup):
    """How often and how long a call is tried."""

    attempts: int = setting(6, "RETRY_ATTEMPTS", "attempts in all", ge=1)
    total_seconds: Seconds = setting(120.0, "RETRY_TOTAL_SECONDS", "seconds to the start of the last one")
    initial_seconds: Seconds = setting(0.5, "RETRY_INITIAL_SECONDS", "longest first wait; it doubles")
    maximum_seconds: Seconds = setting(20.0, "RETRY_MAXIMUM_SECONDS", "longest wait of our own choice")

    def policy(self) -> RetryPolicy:
        """Return the policy that these values make."""
        from cert.core.retry import RetryPolicy

        return RetryPolicy(**self.model_dump())


class BreakerSettings(SettingsGroup):
    """When calls to a failing server stop."""

    failure_rate: float = setting(
        0.5, "BREAKER_FAILURE_RATE", "share of failures that opens it", gt=0, le=1, allow_inf_nan=False
    )
    minimum_calls: int = setting(20, "BREAKER_MINIMUM_CALLS", "results that a share needs", ge=1)
    window_seconds: Seconds = setting(30.0, "BREAKER_WINDOW_SECONDS", "how far back results count")
    failures_in_a_row: int = setting(
        5, "BREAKER_FAILURES_IN_A_ROW", "that open it while there are fewer results", ge=1
    )
    recovery_seconds: Seconds = setting(15.0, "BREAKER_RECOVERY_SECONDS", "from opening to the first probe")

    def policy(self) -> BreakerPolicy:
        """Return the policy that these values make."""
        from cert.core.circuit_state import BreakerPolicy

        return BreakerPolicy(**self.model_dump())


class Settings(BaseSettings):
    """All settings. Made by hand they read nothing: neither the environment nor a file."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    model: ModelSettings = ModelSettings()
    logging: LoggingSettings = LoggingSettings()
    metrics: MetricsSettings = MetricsSettings()
    shared: SharedSettings = SharedSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    limits: LimitSettings = LimitSettings()
    budget: BudgetSettings = BudgetSettings()
    retry: RetrySettings = RetrySettings()
    breaker: BreakerSettings = BreakerSettings()
    service: ServiceSettings = ServiceSettings()
    gateway: GatewaySettings = GatewaySettings()
    jobs: JobSettings = JobSettings()
    analyses: AnalysisSettings = AnalysisSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the same
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the same
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave out every source but the values that `load_settings` found: it knows where each came from."""
        return (init_settings,)


VARIABLES = tuple(variables_of(Settings))


def read_settings(
    environ: Mapping[str, str] | None = None, env_file: str | Path | None = None
) -> tuple[Settings | None, Reading, list[Problem]]:
    """Return the settings, where each came from, and everything that is wrong; no settings if anything is.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    environ = os.environ if environ is None else environ
    reading = find_values(VARIABLES, environ, None if env_file is None else Path(env_file))
    groups: dict[str, dict[str, str]] = {}
    for variable in VARIABLES:
        if variable.name in reading.found:
            groups.setdefault(variable.group, {})[variable.field] = reading.found[variable.name].raw
    try:
        return Settings(**groups), reading, []  # type: ignore[arg-type]  # text, which pydantic turns to values
    except ValidationError as error:
        return None, reading, problems_of(error, VARIABLES, reading)


def load_settings(environ: Mapping[str, str] | None = None, env_file: str | Path | None = None) -> Settings:
    """Return the settings of this process; warns of variables with our prefix that mean nothing.

    Args:
        environ: variables; those of the process by default.
        env_file: a file of lines ``NAME=value``, for what the environment does not say.

    Raises:
        ConfigurationError: with every wrong variable, its value (masked if secret), and what would be right.
    """
    settings, reading, problems = read_settings(environ, env_file)
    if settings is None:
        raise ConfigurationError(
            "wrong settings: " + "; ".join(map(str, problems)),
            hint="`cert config check` lists them; docs/reference/settings.md says what is right",
            context={"variables": [problem.variable for problem in problems]},
        )
    for name, nearest in reading.unknown:
        told = f"; did you mean {nearest}?" if nearest else ""
        warnings.warn(f"the variable {name} means nothing to CERT{told}", stacklevel=2)
    return settings
