"""How a model is loaded into this process, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from cert.core.errors import ConfigurationError

__all__ = ["LoadOptions", "Quantization"]

Quantization: TypeAlias = Literal["8bit", "4bit"]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a model is loaded. Nothing of it is ever read from the environment.

    Attributes:
        device: ``auto`` takes CUDA, then Apple's GPU, then the CPU.
        dtype: ``auto`` is float32 on a CPU and the checkpoint's own type elsewhere.
        revision: branch, tag or commit of a hub repository. A commit is a pin: what it names never changes.
        allow_pickle: read weights from ``torch.save`` files where there are no ``safetensors``. torch then
            still refuses objects that are not weights.
        allow_remote_code: run Python code of the model's repository. It can do all that you can. For a hub
            repository the code has to be pinned: ``revision`` is a commit.
        quantization: hold the linear layers in 8 or 4 bits; see `cert.backends.quantization`. A checkpoint
            that is stored in so many bits needs no word here.
        local_files_only: take hub repositories from the local cache alone and touch no network.

    Raises:
        ConfigurationError: an unknown quantization.
    """

    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    allow_pickle: bool = False
    allow_remote_code: bool = False
    quantization: Quantization | None = None
    local_files_only: bool = False

    def __post_init__(self) -> None:
        if self.quantization is not None and self.quantization not in get_args(Quantization):
            raise ConfigurationError(
                f"unknown quantization {self.quantization!r}",
                hint="8bit, 4bit, or None for the weights as they are",
            )
