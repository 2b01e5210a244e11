"""What an operator decides about this service: which models there are, and how much of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pydantic import SecretStr

from cert.backends.loading import REFERENCE, LoadOptions
from cert.backends.opening import ServerOptions
from cert.backends.server_url import checked_url
from cert.core.bounds import positive
from cert.core.errors import ConfigurationError
from cert.trajectory.calibration.gate import CalibratedGate, GateLike
from cert.trajectory.types import TrajectoryConfig

__all__ = ["HamiltonianOptions", "KeepingOptions", "Mode", "UpstreamOptions", "WatchedModel"]

Mode: TypeAlias = Literal["observe", "hold"]


@dataclass(frozen=True, slots=True)
class WatchedModel:
    """One model of the allow-list.

    Attributes:
        name: as requests name it.
        source: what it is: ``reference``, a directory, a hub id or ``openai:MODEL@URL``. No request can
            change it.
        gate: a certificate, its file or a gate; without one the thresholds of the config decide.
        config: thresholds and settings.
        load: how a model is loaded into this process.
        server: how a model on a server is asked.
        preload: load it when the service starts.
    """

    name: str
    source: str = REFERENCE
    gate: GateLike | None = None
    config: TrajectoryConfig | None = None
    load: LoadOptions | None = None
    server: ServerOptions | None = None
    preload: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """The engine behind the pass-through.

    Attributes:
        base_url: of its API, mostly ending with ``/v1``.
        api_key: of the operator, sent as a bearer token; callers never see it.
        top_logprobs: candidates a token that are asked for, so that there is something to measure.
        models: that may be asked for; empty for whatever it has.
        gates: that decide on answers, by model; without one the thresholds of ``config`` do.
        config: thresholds of the verdict.
        vocab_size: of the model, for upper bounds of the entropy.
        connect_seconds: for a connection to be made.
        answer_seconds: for a whole answer.
        silence_seconds: the longest wait for the next bytes of an answer.
        most_bytes: of one answer.
        connections: that are open at once.
    """

    base_url: str
    api_key: SecretStr | None = field(default=None, repr=False)
    top_logprobs: int = 20
    models: Sequence[str] = ()
    gates: Mapping[str, CalibratedGate] = field(default_factory=dict)
    config: TrajectoryConfig | None = None
    vocab_size: int | None = None
    connect_seconds: float = 10.0
    answer_seconds: float = 600.0
    silence_seconds: float = 120.0
    most_bytes: int = 64 * 2**20
    connections: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", checked_url(self.base_url))
        for name in ("connect_seconds", "answer_seconds", "silence_seconds"):
            positive(name, getattr(self, name))
        if self.top_logprobs < 1 or self.most_bytes < 1 or self.connections < 1:
            raise ConfigurationError("top_logprobs, most_bytes and connections are 1 or more")


@dataclass(frozen=True, slots=True)
class KeepingOptions:
    """Where analyses are kept that outlive the process.

    Attributes:
        database_url: ``sqlite:///FILE`` or ``postgresql://…``.
        key: of their texts, in base64; of several with commas between, the first seals and all open.
        retention_seconds: that an analysis is kept.
        most: analyses of a tenant.
        wait_seconds: for a write, before an answer is sent whose analysis is not kept yet.
    """

    database_url: SecretStr
    key: SecretStr = field(repr=False)
    retention_seconds: float = 720 * 3600.0
    most: int = 10_000
    wait_seconds: float = 2.0

    def __post_init__(self) -> None:
        positive("retention_seconds", self.retention_seconds)
        positive("wait_seconds", self.wait_seconds)
        if self.most < 1:
            raise ConfigurationError("most is 1 or more analyses")


@dataclass(frozen=True, slots=True)
class HamiltonianOptions:
    """All of it.

    Attributes:
        models: the allow-list; the first is the one of requests that name none.
        upstream: the engine behind the pass-through; without one it answers with the models of the list.
        mode: of the pass-through: ``observe`` forwards every answer with its verdict; ``hold`` keeps an
            answer back until the verdict is there, and replaces one that fails.
        replacement: the text in place of an answer that fails; ``None`` answers with an error.
        fail_closed: an answer that could not be measured is treated as one that fails.
        cache_size: analyses that are kept for each tenant and model.
        recent: recent analyses that are kept for each tenant.
        recent_bytes: the most memory that they take, for each tenant.
        keeping: the database that has them too, for longer; ``None`` for memory alone.
        most_prompts: of a batch.
        most_new_tokens: of one generation.
        timeout_seconds: for one analysis; a request may ask for less.
    """

    models: Sequence[WatchedModel] = (WatchedModel(REFERENCE),)
    upstream: UpstreamOptions | None = None
    mode: Mode = "observe"
    replacement: str | None = None
    fail_closed: bool = False
    cache_size: int = 1000
    recent: int = 200
    recent_bytes: int = 256 * 2**20
    keeping: KeepingOptions | None = None
    most_prompts: int = 256
    most_new_tokens: int = 4096
    timeout_seconds: float = 120.0

    def __post_init__(self) -> None:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ConfigurationError("two models of the service have the same name")
        if not names and self.upstream is None:
            raise ConfigurationError("the service has no model", hint="CERT_MODEL=reference")
        positive("timeout_seconds", self.timeout_seconds)
        if self.mode not in ("observe", "hold"):
            raise ConfigurationError(f"the mode of the pass-through is observe or hold, not {self.mode!r}")
        if min(self.cache_size, self.recent) < 0 or min(self.most_prompts, self.recent_bytes) < 1:
            raise ConfigurationError("limits of the service must not be negative")
