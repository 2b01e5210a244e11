"""What an operator decides about this service, and how the settings say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Final, Literal, TypeAlias

from pydantic import SecretStr

from cert.backends.load_options import LoadOptions
from cert.coordination.clients.prices import Price
from cert.core.config import Settings
from cert.core.errors import ConfigurationError
from cert.core.money import micro_dollars

__all__ = ["AskedModel", "CoordinationOptions", "options_of"]

ANTHROPIC: Final = "anthropic"
Kind: TypeAlias = Literal["in_process", "anthropic", "openai"]


@dataclass(frozen=True, slots=True)
class AskedModel:
    """One model of the allow-list.

    Attributes:
        name: as requests name it.
        kind: where it runs.
        source: what it is: ``reference``, a directory, a hub id, ``anthropic:MODEL`` or ``openai:MODEL@URL``.
            No request can change it.
        load: how a model is loaded into this process.
        api_key: of its server.
        price: where none is published.
    """

    name: str
    kind: Kind
    source: str
    load: LoadOptions | None = None
    api_key: SecretStr | None = field(default=None, repr=False)
    price: Price | None = None

    @property
    def lacks_key(self) -> bool:
        """Whether it is of the Claude API and there is no key to it."""
        return self.kind == ANTHROPIC and "@" not in self.source and not self.api_key


@dataclass(frozen=True, slots=True)
class CoordinationOptions:
    """Everything that is decided before the first request.

    Attributes:
        models: that may be asked for; the first is meant where a request names none.
        expects_anthropic: the operator has not said that there is no Claude API here.
        per_hour, total: micro-dollars of each tenant; ``None`` is no limit.
        requests_per_minute, tokens_per_minute: to each server.
        database_wait_seconds: that a start waits for PostgreSQL.
        database_url, key: where jobs are kept, and the key of their texts in base64.
        retention_seconds: that a job is kept after its end.
        concurrent: measurements at work at once in this process.
        queue: measurements of a tenant that wait.
        lease_seconds: after which a silent replica is dead.
        redis_url, max_replicas: what replicas share.
    """

    models: tuple[AskedModel, ...] = (AskedModel("reference", "in_process", "reference"),)
    expects_anthropic: bool = False
    per_hour: int | None = None
    total: int | None = None
    requests_per_minute: int = 50
    tokens_per_minute: int | None = None
    database_url: SecretStr | None = None
    key: SecretStr | None = None
    retention_seconds: float = 720 * 3600.0
    concurrent: int = 2
    queue: int = 100
    lease_seconds: float = 30.0
    database_wait_seconds: float = 30.0
    redis_url: SecretStr | None = None
    max_replicas: int | None = None

    def __post_init__(self) -> None:
        if self.database_url is not None and self.key is None:
            raise ConfigurationError(
                "jobs are kept in a database, and there is no key to encrypt their texts",
                hint="set CERT_JOBS_KEY, as `openssl rand -base64 32` makes one",
            )
        names = [model.name for model in self.models]
        if not names or len(set(names)) < len(names):
            raise ConfigurationError("the service needs a model, and each model a name of its own")


def options_of(settings: Settings) -> CoordinationOptions:
    """Return the options that the settings say.

    Raises:
        ConfigurationError: they do not go together.
    """
    sources = settings.service.models
    if not sources:
        sources = (settings.model.name,)
        if settings.upstream.anthropic_api_key:
            sources = (*sources, f"{ANTHROPIC}:{settings.upstream.anthropic_model}")
    prices = _prices(settings.jobs.prices)
    models = tuple(_model(source, settings, prices) for source in sources)
    budget, jobs = settings.budget, settings.jobs
    return CoordinationOptions(
        models=models,
        expects_anthropic=not settings.service.models or any(model.kind == ANTHROPIC for model in models),
        # A limit of nothing is one: the smallest amount, for which no call can be made.
        per_hour=max(1, micro_dollars(budget.per_hour)),
        total=None if budget.total is None else max(1, micro_dollars(budget.total)),
        requests_per_minute=settings.limits.requests_per_minute,
        tokens_per_minute=settings.limits.tokens_per_minute,
        database_url=jobs.database_url,
        key=jobs.key,
        retention_seconds=jobs.retention_hours * 3600.0,
        concurrent=jobs.concurrent,
        queue=jobs.queue,
        lease_seconds=jobs.lease_seconds,
        database_wait_seconds=jobs.database_wait_seconds,
        redis_url=settings.shared.redis_url,
        max_replicas=settings.shared.max_replicas,
    )


def _prices(written: tuple[str, ...]) -> dict[str, Price]:
    prices: dict[str, Price] = {}
    for text in written:
        model, _, amounts = text.rpartition("=")
        try:
            read, wrote = map(Decimal, amounts.split("/"))
            price = Price(input=read, output=wrote, source="given")
        except (ArithmeticError, ValueError, ConfigurationError) as error:
            raise ConfigurationError(
                f"CERT_PRICES has '{text}', which is no price", hint="such as my-model=0.5/1.5"
            ) from error
        if not model or model in prices:
            raise ConfigurationError("CERT_PRICES has one price for each model, by its name")
        prices[model] = price
    return prices


def _model(source: str, settings: Settings, prices: Mapping[str, Price]) -> AskedModel:
    upstream = settings.upstream
    if source == ANTHROPIC or source.startswith(f"{ANTHROPIC}:"):
        model, _, url = source.partition(":")[2].partition("@")
        model = model or upstream.anthropic_model
        named = f"{ANTHROPIC}:{model}" + (f"@{url}" if url else "")
        return AskedModel(
            model, "anthropic", named, api_key=upstream.anthropic_api_key, price=prices.get(model)
        )
    if source.startswith("openai:"):
        from cert.backends.openai_server.address import parse_name

        model, _ = parse_name(source)
        return AskedModel(model, "openai", source, api_key=upstream.openai_api_key, price=prices.get(model))
    path = PurePath(source)
    # Requests and records name a model not by the operator's folders.
    name = path.name if path.is_absolute() or Path(source).is_dir() else source
    load = LoadOptions(device=settings.model.device, dtype=settings.model.dtype)
    return AskedModel(name, "in_process", source, load=load)
