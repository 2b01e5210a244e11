"""The options of every command that asks a model: which one, how it generates, what is measured."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from cert.cli.console import quiet_libraries, stderr
from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import SecretStr

    from cert.trajectory import HamiltonianMonitor, TrajectoryConfig
    from cert.trajectory.calibration.gate import CalibratedGate

__all__ = ["Chat", "MeasureOptions", "ModelOptions", "SamplingOptions", "Timeout"]

Chat = Annotated[bool, typer.Option("--chat", help="Send the prompt as a chat message, not as plain text.")]


def _seconds(value: float | None) -> float | None:
    # Clocks of the system cannot wait much longer than a year.
    if value is not None and not 0.0 < value <= 3e7:
        raise typer.BadParameter(f"{value:g} is no number of seconds above 0 and within a year")
    return value


Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", callback=_seconds, help="Stop the work after so long."),
]

# The settings of a process have many more; a command whose environment has none of these loads none.
_VARIABLES = (
    *("CERT_MODEL", "CERT_DEVICE", "DEVICE", "CERT_DTYPE"),
    *("CERT_OPENAI_API_KEY", "OPENAI_API_KEY"),
)


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it is loaded; ``None`` is what the environment says, or the usual default."""

    PANEL: ClassVar[str] = "Model"
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="'reference', a model directory, a hub id, or openai:MODEL@URL for a server.",
            show_default="CERT_MODEL, or reference",
        ),
    ] = None
    device: Annotated[
        str | None,
        typer.Option(help="auto, cpu, cuda, cuda:N or mps.", show_default="CERT_DEVICE, or auto"),
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option(help="auto, float32, float16 or bfloat16.", show_default="CERT_DTYPE, or auto"),
    ] = None
    quantization: Annotated[
        Literal["8bit", "4bit"] | None, typer.Option(help="Load the weights with so few bits.")
    ] = None
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickled weights of a model that has no safetensors.")
    ] = False
    allow_remote_code: Annotated[
        bool, typer.Option("--allow-remote-code", help="Run Python code that comes with the model.")
    ] = False

    dialect: Annotated[
        str | None,
        typer.Option(help="The kind of server, such as vllm.", show_default="found out by asking it"),
    ] = None
    vocab_size: Annotated[
        int | None, typer.Option(min=1, help="Vocabulary of a server's model, to bound entropies from above.")
    ] = None

    def name(self) -> str:
        """Return the model's name.

        Raises:
            ConfigurationError: a variable of the environment is wrong.
        """
        return _environment().name if self.model is None else self.model

    def monitor(self, config: TrajectoryConfig, gate: CalibratedGate | None = None) -> HamiltonianMonitor:
        """Return a monitor whose model is loaded.

        Args:
            config: thresholds and settings.
            gate: that decides in place of the thresholds.

        Raises:
            ConfigurationError: an option or a variable of the environment that cannot be right.
            CertError: the model cannot be loaded.
        """
        from rich.text import Text

        from cert.backends.opening import is_server
        from cert.cli.view import printable
        from cert.trajectory import HamiltonianMonitor

        name = self.name()
        how = self._server(config) if is_server(name) else self._in_process()
        monitor = HamiltonianMonitor(name, config=config, gate=gate, **how)
        with stderr().status(Text(f"loading {printable(name)}")):
            quiet_libraries()
            monitor.load()
        return monitor

    def refuse_all_but_vocab_size(self, why: str) -> None:
        """Refuse every option that a command without a model would pass over in silence.

        Raises:
            ConfigurationError: one of them was given.
        """
        self._refuse(("model", "dialect", *_IN_PROCESS), why)

    def _in_process(self) -> dict[str, Any]:
        from cert.trajectory import LoadOptions

        self._refuse(_OF_SERVERS, "is for models on a server")
        usual = _environment()
        given: dict[str, Any] = {name: getattr(self, name) for name in _IN_PROCESS}
        given["device"] = usual.device if self.device is None else self.device
        given["dtype"] = usual.dtype if self.dtype is None else self.dtype
        return {"options": LoadOptions(**given)}

    def _server(self, config: TrajectoryConfig) -> dict[str, Any]:
        from cert.backends.opening import ServerOptions

        self._refuse(_IN_PROCESS, "is for models in this process, and this one is on a server")
        return {
            "server": ServerOptions(
                api_key=_environment().api_key,
                dialect=self.dialect or "auto",
                top_logprobs=config.top_k,
                vocab_size=self.vocab_size,
            )
        }

    def _refuse(self, names: tuple[str, ...], why: str) -> None:
        given = [name for name in names if getattr(self, name) not in (None, False)]
        if given:
            raise ConfigurationError(f"--{given[0].replace('_', '-')} {why}")


_IN_PROCESS = ("device", "dtype", "quantization", "revision", "allow_pickle", "allow_remote_code")
_OF_SERVERS = ("dialect", "vocab_size")


@dataclass(frozen=True)
class SamplingOptions:
    """How much is generated, and how each token is chosen."""

    PANEL: ClassVar[str] = "Generation"
    max_new_tokens: Annotated[int, typer.Option(min=0, help="Generate at most so many tokens.")] = 150
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy; above 0 samples.")] = 0.0
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling.")] = None
    sampling_top_k: Annotated[
        int | None, typer.Option(min=0, help="Sample among the k likeliest tokens.")
    ] = None
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the sampling.")] = None


@dataclass(frozen=True)
class MeasureOptions:
    """What is recorded of each token, and what passes the gate."""

    PANEL: ClassVar[str] = "Signals and gate"
    top_k: Annotated[int, typer.Option(min=1, help="Candidates to record a token.")] = 20
    perplexity_threshold: Annotated[
        float, typer.Option(help="Largest mean token perplexity that passes.")
    ] = 50.0
    entropy_threshold: Annotated[
        float, typer.Option(help="Largest entropy of a token that passes, in nats.")
    ] = 2.5
    surprise_threshold: Annotated[
        float, typer.Option(help="Largest cumulative surprise that passes, in nats.")
    ] = 10.0
    top_k_entropy_threshold: Annotated[
        float | None, typer.Option(help="Largest top-K entropy of a token that passes, in nats.")
    ] = None
    max_prompt_chars: Annotated[int, typer.Option(min=1, help="Refuse longer prompts.")] = 10_000

    def config(self, sampling: SamplingOptions | None = None) -> TrajectoryConfig:
        """Return the monitor's config.

        Raises:
            ConfigurationError: an option outside its range.
        """
        from cert.trajectory import TrajectoryConfig

        generated = asdict(sampling or SamplingOptions())
        del generated["seed"]  # of one request, not of the monitor
        return TrajectoryConfig(**asdict(self), **generated)


@dataclass(frozen=True)
class _Environment:
    name: str = "reference"
    device: str = "auto"
    dtype: str = "auto"
    api_key: SecretStr | None = None


def _environment() -> _Environment:
    given = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name, "").strip()}
    if not given:
        return _Environment()
    from cert.core.config import load_settings

    settings = load_settings(given)
    model = settings.model
    return _Environment(model.name, model.device, model.dtype, settings.upstream.openai_api_key)
