"""Models from a name to memory, without running anything that comes with them.

`cert.backends.model_source` finds the directory, `cert.backends.model_directory` checks it,
`cert.backends.placement` and `cert.backends.quantization` say where and in what form its weights go.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cert.backends.load_options import LoadOptions, Quantization
from cert.backends.model_directory import first_line, read_config, reads_pickle
from cert.backends.model_source import REFERENCE, locate, peek_vocab_size
from cert.backends.placement import hold_weights, resolve_device, resolve_dtype, weights_bytes
from cert.backends.quantization import (
    agreed_quantization,
    loading_arguments,
    stored_quantization,
)
from cert.backends.quantized_weights import check_quantized
from cert.core.errors import CertError, DependencyMissingError, ModelLoadError, OutOfMemoryError

__all__ = [
    "REFERENCE",
    "LoadOptions",
    "LoadedModel",
    "first_line",
    "load_model",
    "locate",
    "peek_vocab_size",
    "require_libraries",
]

# transformers changes settings of the whole process while it loads, such as torch's default type.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory with its tokenizer.

    Attributes:
        revision: the commit of the hub repository that it came from, ``None`` for a directory.
        quantization: the bits of its linear layers, ``None`` where they are not quantised.
    """

    name: str
    revision: str | None
    model: Any
    tokenizer: Any
    quantization: Quantization | None = None

    @property
    def weights_bytes(self) -> int:
        """Bytes of its parameters and buffers."""
        return weights_bytes(self.model)


def load_model(name: str, options: LoadOptions | None = None) -> LoadedModel:
    """Load a causal language model and its tokenizer. Threads that load at the same time take turns.

    Args:
        name: ``reference``, a directory, or a hub id such as ``Qwen/Qwen2.5-7B``.
        options: device, type, bits, revision, and what is allowed besides safe weights.

    Raises:
        DependencyMissingError: torch, transformers or what quantised weights need is not installed.
        ConfigurationError: a device, type or quantization that is unknown, not here or impossible together.
        ModelNotFoundError: there is no such model here, and none could be fetched.
        UnsafeModelError: loading it would run code and was not allowed.
        ModelLoadError: its files do not make a working model.
        OutOfMemoryError: the device has no memory for it.
    """
    options = options or LoadOptions()
    torch, _ = require_libraries()
    resolve_device(torch, options.device, quantized=options.quantization is not None)  # before any download
    directory, revision = locate(name, options)
    config = read_config(directory)
    stored = stored_quantization(name, config)
    quantization = agreed_quantization(name, options.quantization, stored)
    device = resolve_device(torch, options.device, quantized=quantization is not None)
    dtype = resolve_dtype(torch, options.dtype, device)
    how: dict[str, Any] = {}
    if quantization is not None:
        how = loading_arguments(
            quantization, stored=stored is not None, config=config, device=device, dtype=dtype
        )
    model, tokenizer, report = _read(name, directory, options, device, {"dtype": dtype, **how})
    _require_whole(name, report)
    if quantization is not None:
        check_quantized(name, model, quantization)
    return LoadedModel(name, revision, model, tokenizer, quantization)


def require_libraries() -> tuple[Any, Any]:
    """Return torch and transformers.

    Raises:
        DependencyMissingError: one of them is not installed.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise DependencyMissingError(
            f"in-process models need the package '{error.name}'",
            hint="pip install 'cert-framework[local]'",
            context={"package": error.name},
        ) from error
    return torch, transformers


def _read(
    name: str, directory: Path, options: LoadOptions, device: Any, how: dict[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    torch, transformers = require_libraries()
    common = {"trust_remote_code": options.allow_remote_code, "local_files_only": True}
    try:
        with _one_at_a_time:
            tokenizer = transformers.AutoTokenizer.from_pretrained(directory, **common)
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                directory,
                output_loading_info=True,
                use_safetensors=not reads_pickle(directory, options),
                **common,
                **how,
            )
        if "device_map" not in how:
            model.to(device)
        hold_weights(model)
        return model.eval(), tokenizer, report
    except CertError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        # Without its traceback, whose frames hold the half-loaded model.
        raise _no_memory(name, device, first_line(error)) from None
    # Whatever a damaged or hostile directory provokes inside the libraries, it is this one failure.
    except Exception as error:
        raise ModelLoadError(
            f"model '{name}' could not be loaded: {type(error).__name__}: {first_line(error)}",
            hint="check that the directory is complete and of a causal language model",
            context={"model": name},
        ) from error


def _no_memory(name: str, device: Any, reason: str) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"no memory on {device} for model '{name}': {reason}",
        hint="load 8-bit or 4-bit weights (quantization='4bit'), or take a smaller model or device='cpu'",
        context={"model": name, "device": str(device)},
    )


def _require_whole(name: str, report: dict[str, Any]) -> None:
    """Refuse a model some of whose weights transformers filled with random numbers, as it does silently."""
    absent = sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])})
    if absent:
        raise ModelLoadError(
            f"model '{name}' lacks weights: {', '.join(absent[:3])}{' …' if len(absent) > 3 else ''}",
            hint="check that the directory is complete and of a causal language model",
            context={"model": name, "missing": len(absent)},
        )
