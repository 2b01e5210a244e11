"""Settings of the two services; read with all others by `cert.core.config`."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator

from cert.core.environment import SettingsGroup, setting

__all__ = ["AnalysisSettings", "GatewaySettings", "JobSettings", "ServiceSettings"]

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
KEY_BYTES = 32
_KEYS = (
    "32 random bytes in base64, or several such keys with commas between, of which the first encrypts and "
    "all decrypt: of the texts of"
)


def _parts(value: Any) -> Any:
    """Split text at its commas."""
    if not isinstance(value, str):
        return value
    return tuple(part for piece in value.split(",") if (part := piece.strip()))


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


class ServiceSettings(SettingsGroup):
    """The services over HTTP."""

    host: str = setting(
        "127.0.0.1", "HOST", "address to listen on; every address but this machine's needs keys"
    )
    port: int | None = setting(
        None,
        "PORT",
        "port to listen on; not set: 8000 Hamiltonian, 8001 Coordination; 0: any",
        ge=0,
        le=65535,
    )
    metrics_host: str = setting("127.0.0.1", "METRICS_HOST", "address that serves the metrics")
    models: Annotated[tuple[str, ...], BeforeValidator(_parts)] = setting(
        (), "MODELS", "models that may be asked for, with commas between; not set: the one of CERT_MODEL"
    )
    gates: Annotated[tuple[str, ...], BeforeValidator(_parts)] = setting(
        (), "GATES", "certificates in force, as `FILE` for every model or `MODEL=FILE`, with commas between"
    )
    gate_key: Path | None = setting(
        None, "GATE_KEY", "public key (PEM) that certificates have to be signed with; not set: any or none"
    )
    api_keys_file: Path | None = setting(
        None,
        "API_KEYS_FILE",
        "file of the API keys that `cert keys` writes; not set: this machine alone may ask",
    )
    await_api_keys: bool = setting(
        False,
        "AWAIT_API_KEYS",
        "start without the file of keys, and answer nobody until it is there",
    )
    allow_anonymous: bool = setting(
        False, "ALLOW_ANONYMOUS", "answer everybody without a key, whatever the address"
    )
    trusted_proxies: Annotated[tuple[str, ...], BeforeValidator(_parts)] = setting(
        (),
        "TRUSTED_PROXIES",
        "addresses or networks of proxies whose X-Forwarded-… is believed, with commas between",
    )
    max_body_bytes: int = setting(2_000_000, "MAX_BODY_BYTES", "size of a request", ge=1_000)
    max_batch: int = setting(64, "MAX_BATCH", "prompts in one request", ge=1)
    max_concurrent: int = setting(64, "MAX_CONCURRENT", "requests at work at once", ge=1)
    max_queue: int = setting(256, "MAX_QUEUE", "requests that wait for a place", ge=0)
    max_streams: int = setting(2_000, "MAX_STREAMS", "streams of events that are open at once", ge=1)
    request_seconds: Seconds = setting(120.0, "REQUEST_SECONDS", "seconds until an answer begins")
    stream_seconds: Seconds = setting(3_600.0, "STREAM_SECONDS", "seconds that a stream of events may last")
    body_seconds: Seconds = setting(15.0, "BODY_SECONDS", "seconds for a request's head, and for its body")
    shutdown_seconds: Seconds = setting(30.0, "SHUTDOWN_SECONDS", "seconds for work in hand at the end")
    session_seconds: Seconds = setting(
        28_800.0, "SESSION_SECONDS", "seconds that a sign-in to the page lasts"
    )
    recent_analyses: int = setting(
        200, "RECENT_ANALYSES", "analyses that are kept in memory for each tenant", ge=1
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            try:
                ipaddress.ip_network(one)
            except ValueError:
                raise ValueError(f"{one} is neither an address nor a network such as 10.0.0.0/8") from None
        return value


class GatewaySettings(SettingsGroup):
    """The pass-through of the OpenAI API."""

    upstream_url: str | None = setting(
        None,
        "UPSTREAM_URL",
        "base URL of the engine, such as http://vllm:8000/v1; not set: the models in process",
    )
    upstream_api_key: SecretStr | None = setting(
        None, "UPSTREAM_API_KEY", "key of the engine", secrecy="secret"
    )
    upstream_models: Annotated[tuple[str, ...], BeforeValidator(_parts)] = setting(
        (), "UPSTREAM_MODELS", "models of the engine that may be asked for; not set: whatever it has"
    )
    upstream_seconds: Seconds = setting(120.0, "UPSTREAM_SECONDS", "seconds between two pieces of its answer")
    max_response_bytes: int = setting(16_000_000, "MAX_RESPONSE_BYTES", "size of its answer", ge=1_000)
    mode: Annotated[Literal["observe", "hold"], BeforeValidator(_lower)] = setting(
        "observe", "GATEWAY_MODE", "`observe` passes every answer on; `hold` keeps back what fails the gate"
    )
    hold_text: str | None = setting(
        None, "HOLD_TEXT", "text in the place of an answer that is kept back; not set: an error"
    )
    fail_closed: bool = setting(
        False, "FAIL_CLOSED", "keep back what could not be measured too; needs CERT_GATEWAY_MODE=hold"
    )

    @field_validator("upstream_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("it should start with http:// or https://")
        return value


class JobSettings(SettingsGroup):
    """Measurements as jobs of the Coordination service."""

    database_url: SecretStr | None = setting(
        None,
        "DATABASE_URL",
        "sqlite:///FILE or postgresql://…, where jobs are kept; not set: in memory, until the process ends",
        secrecy="url",
    )
    key: SecretStr | None = setting(None, "JOBS_KEY", f"{_KEYS} jobs", secrecy="secret")
    retention_hours: float = setting(
        720.0, "JOBS_RETENTION_HOURS", "hours that a job that is done is kept", gt=0, allow_inf_nan=False
    )
    concurrent: int = setting(2, "JOBS_CONCURRENT", "measurements at work at once in this process", ge=1)
    queue: int = setting(100, "JOBS_QUEUE", "measurements of a tenant that wait", ge=1)
    database_wait_seconds: float = setting(
        30.0,
        "DATABASE_WAIT_SECONDS",
        "seconds that a start waits for PostgreSQL to be there",
        ge=0,
        allow_inf_nan=False,
    )
    lease_seconds: Seconds = setting(
        30.0, "JOBS_LEASE_SECONDS", "seconds after which a silent replica is dead"
    )

    prices: Annotated[tuple[str, ...], BeforeValidator(_parts)] = setting(
        (),
        "PRICES",
        "dollars for a million tokens read and written, of models without a published price, "
        "as `MODEL=IN/OUT` with commas between; 0/0 is free",
    )

    @field_validator("database_url")
    @classmethod
    def _is_database(cls, value: SecretStr | None) -> SecretStr | None:
        return _database(value)

    @field_validator("key")
    @classmethod
    def _is_key(cls, value: SecretStr | None, info: Any) -> SecretStr | None:
        return _keys(value, info, "CERT_DATABASE_URL")


class AnalysisSettings(SettingsGroup):
    """Analyses of the Hamiltonian service that outlive it."""

    database_url: SecretStr | None = setting(
        None,
        "ANALYSES_DATABASE_URL",
        "sqlite:///FILE or postgresql://…, where analyses are kept; not set: in memory, the recent ones",
        secrecy="url",
    )
    key: SecretStr | None = setting(None, "ANALYSES_KEY", f"{_KEYS} analyses", secrecy="secret")
    retention_hours: float = setting(
        720.0, "ANALYSES_RETENTION_HOURS", "hours that an analysis is kept there", gt=0, allow_inf_nan=False
    )
    most: int = setting(10_000, "ANALYSES_MOST", "analyses of a tenant that are kept there", ge=1)

    @field_validator("database_url")
    @classmethod
    def _is_database(cls, value: SecretStr | None) -> SecretStr | None:
        return _database(value)

    @field_validator("key")
    @classmethod
    def _is_key(cls, value: SecretStr | None, info: Any) -> SecretStr | None:
        return _keys(value, info, "CERT_ANALYSES_DATABASE_URL")


def _database(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not value.get_secret_value().startswith(("sqlite:///", "postgresql://")):
        raise ValueError("it should start with sqlite:/// or postgresql://")
    return value


def _keys(value: SecretStr | None, info: Any, database: str) -> SecretStr | None:
    if value is None:
        if info.data.get("database_url") is not None:
            raise ValueError(f"it has to be set where {database} is: texts are kept encrypted alone")
        return None
    given = [key.strip() for key in value.get_secret_value().split(",")]
    if len(set(given)) < len(given) or any(_size(key) != KEY_BYTES for key in given):
        raise ValueError(
            "it should be 32 bytes in base64, as `openssl rand -base64 32` makes them; "
            "several keys, each once, with commas between"
        )
    return value


def _size(key: str) -> int:
    try:
        return len(base64.b64decode(key, validate=True))
    except binascii.Error:
        return -1
