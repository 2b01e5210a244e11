"""The options of every command that asks a model: which one, how it generates, what is measured."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from cert.cli.console import quiet_libraries, stderr
from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cert.trajectory import HamiltonianMonitor, LoadOptions, TrajectoryConfig

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
_VARIABLES = ("CERT_MODEL", "CERT_DEVICE", "DEVICE", "CERT_DTYPE")


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

    def monitor(self, config: TrajectoryConfig) -> HamiltonianMonitor:
        """Return a monitor whose model is loaded.

        Raises:
            ConfigurationError: an option or a variable of the environment that cannot be right.
            CertError: the model cannot be loaded.
        """
        from rich.text import Text

        from cert.cli.view import printable
        from cert.trajectory import HamiltonianMonitor

        usual = _usual()
        name = usual["model"] if self.model is None else self.model
        monitor = HamiltonianMonitor(name, config=config, options=self._load_options(usual))
        with stderr().status(Text(f"loading {printable(name)}")):
            quiet_libraries()
            monitor.load()
        return monitor

    def _load_options(self, usual: dict[str, str]) -> LoadOptions:
        from cert.trajectory import LoadOptions

        given: dict[str, Any] = asdict(self)
        del given["model"]
        for name in ("device", "dtype"):
            given[name] = usual[name] if given[name] is None else given[name]
        known = "quantization" in {field.name for field in fields(LoadOptions)}
        if not known and given.pop("quantization") is not None:
            raise ConfigurationError("this version of CERT cannot load quantized weights")
        return LoadOptions(**given)


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


def _usual() -> dict[str, str]:
    given = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name, "").strip()}
    if not given:
        return {"model": "reference", "device": "auto", "dtype": "auto"}
    from cert.core.config import load_settings

    settings = load_settings(given).model
    return {"model": settings.name, "device": settings.device, "dtype": settings.dtype}
