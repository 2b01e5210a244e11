"""Models from a name to memory, without running anything that comes with them.

A model directory is untrusted input. Weights are read from ``safetensors`` only, and Python code that a
repository brings is never run, unless the caller allows it by name. A hub repository is first brought to
the local cache without its pickles and then treated as a directory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cert.core.errors import (
    ConfigurationError,
    DependencyMissingError,
    InputError,
    ModelLoadError,
    ModelNotFoundError,
    UnsafeModelError,
)

__all__ = [
    "REFERENCE",
    "LoadOptions",
    "LoadedModel",
    "load_model",
    "locate",
    "peek_vocab_size",
    "require_libraries",
]

REFERENCE = "reference"

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.msgpack", "*.h5")
_CODE_CONFIGS = ("config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json")
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.tiktoken", "*.jinja"]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a model is loaded.

    Attributes:
        device: ``auto`` takes CUDA, then Apple's GPU, then the CPU.
        dtype: ``auto`` is float32 on a CPU and the checkpoint's own type elsewhere.
        revision: branch, tag or commit of a hub repository.
        allow_pickle: read weights from ``torch.save`` files where there are no ``safetensors``. torch then
            still refuses objects that are not weights.
        allow_remote_code: run Python code of the model's repository. It can do all that you can.
    """

    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    allow_pickle: bool = False
    allow_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory with its tokenizer."""

    name: str
    revision: str | None
    model: Any
    tokenizer: Any


def load_model(name: str, options: LoadOptions | None = None) -> LoadedModel:
    """Load a causal language model and its tokenizer.

    Args:
        name: ``reference``, a directory, or a hub id such as ``Qwen/Qwen2.5-7B``.
        options: device, type, revision, and what is allowed besides safe weights.

    Raises:
        DependencyMissingError: torch or transformers is not installed.
        ModelNotFoundError: there is no such model here, and none could be fetched.
        UnsafeModelError: loading it would run code and was not allowed.
        ModelLoadError: its files do not make a working model.
    """
    options = options or LoadOptions()
    torch, transformers = require_libraries()
    device = _device(torch, options.device)
    dtype = _dtype(torch, options.dtype, device)
    directory, revision = locate(name, options)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            directory, trust_remote_code=options.allow_remote_code, local_files_only=True
        )
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            directory,
            output_loading_info=True,
            dtype=dtype,
            use_safetensors=not _reads_pickle(directory, options),
            trust_remote_code=options.allow_remote_code,
            local_files_only=True,
        )
        model.to(device).eval()
    # Whatever a damaged or hostile directory provokes inside the libraries, it is this one failure.
    except Exception as error:
        raise ModelLoadError(
            f"model '{name}' could not be loaded: {type(error).__name__}: {first_line(error)}",
            hint="check that the directory is complete and of a causal language model",
            context={"model": name},
        ) from error
    # transformers fills what is missing with random numbers and goes on.
    absent = sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])})
    if absent:
        raise ModelLoadError(
            f"model '{name}' lacks weights: {', '.join(absent[:3])}{' …' if len(absent) > 3 else ''}",
            hint="check that the directory is complete and of a causal language model",
            context={"model": name, "missing": len(absent)},
        )
    return LoadedModel(name, revision, model, tokenizer)


def locate(name: str, options: LoadOptions) -> tuple[Path, str | None]:
    """Find the directory of a model, fetch it to the local cache if need be, and check that it is safe.

    Returns:
        The directory, and the commit of the hub repository or ``None``.
    """
    if not name.strip():
        raise InputError("the name of a model is empty")
    existing = _existing(name)
    if existing is not None:
        directory, revision = existing, None
    elif _looks_like_a_path(name):
        raise ModelNotFoundError(
            f"there is no model directory '{name}'",
            hint="give an existing directory, a hub id such as 'Qwen/Qwen2.5-7B', or 'reference'",
            context={"model": name},
        )
    else:
        directory, revision = _fetch(name, options)
    _check(name, directory, options)
    return directory, revision


def peek_vocab_size(name: str, options: LoadOptions) -> int | None:
    """Return the size of a model's vocabulary without loading it.

    Returns:
        The size that config.json names; ``None`` if it names none, or for a hub id, which is not fetched.

    Raises:
        ResourceError: the directory is not there, not safe or not a model's.
    """
    if _existing(name) is None and not _looks_like_a_path(name):
        return None
    directory, _ = locate(name, options)
    config = _read_json(directory / "config.json")
    text_config = config.get("text_config")
    size = (text_config if isinstance(text_config, dict) else config).get("vocab_size")
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ModelLoadError(f"model '{name}' names a vocabulary of {size!r}", context={"model": name})
    return size


def _existing(name: str) -> Path | None:
    if name == REFERENCE:
        from cert.reference import weights

        return weights.path()
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    # A name too long for the file system, or of a user that is not there, is no path.
    except (OSError, RuntimeError, ValueError):
        return None


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or os.sep in name.replace("/", "")


def _fetch(name: str, options: LoadOptions) -> tuple[Path, str | None]:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = _HUB_FILES + (["*.bin"] if options.allow_pickle else [])
    patterns += ["*.py"] if options.allow_remote_code else []
    try:
        directory = Path(
            huggingface_hub.snapshot_download(name, revision=options.revision, allow_patterns=patterns)
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFoundError(
            f"model '{name}' is neither a directory nor in the local cache, and could not be fetched: "
            f"{first_line(error)}",
            hint=f"without a network: run 'hf download {name}' on a machine that has one and give the copied "
            "directory as the model, or use the model that comes with the package, 'reference'",
            context={"model": name, "revision": options.revision},
        ) from error
    # The cache names a snapshot's directory after its commit.
    return directory, directory.name


def _check(name: str, directory: Path, options: LoadOptions) -> None:
    if not (directory / "config.json").is_file():
        raise ModelLoadError(
            f"'{name}' is not a model directory: it has no config.json",
            hint="give the directory that holds config.json, the tokenizer and the weights",
            context={"model": name},
        )
    _refuse_redirections(name, _read_json(directory / "config.json"))
    code = sorted(_remote_code(directory))
    if code and not options.allow_remote_code:
        raise UnsafeModelError(
            f"model '{name}' asks to run Python code of its own ('auto_map' in {', '.join(code)})",
            hint="read that code first; then allow it for this model with allow_remote_code=True",
            context={"model": name, "files": code},
        )
    if any(directory.glob("*.safetensors")):
        _check_shards(name, directory, options)
        if (directory / "adapter_model.bin").exists() and not (
            directory / "adapter_model.safetensors"
        ).exists():
            _refuse_pickle(name, ["adapter_model.bin"], options)
        return
    pickles = sorted(path.name for pattern in _PICKLES for path in directory.glob(pattern))
    if not pickles:
        raise ModelLoadError(f"model '{name}' has no weights (*.safetensors)", context={"model": name})
    _refuse_pickle(name, pickles, options)


def _refuse_redirections(name: str, config: dict[str, Any]) -> None:
    """Refuse settings by which a config sends the loader elsewhere than to the files that were checked."""
    if "transformers_weights" in config:
        raise UnsafeModelError(
            f"model '{name}' names its weights file in config.json ('transformers_weights')",
            hint="remove the setting and name the weights model.safetensors",
            context={"model": name},
        )
    kernels = [key for key in ("_attn_implementation", "attn_implementation") if "/" in str(config.get(key))]
    if kernels:
        raise UnsafeModelError(
            f"model '{name}' asks for code of another repository ('{kernels[0]}' in config.json)",
            hint="remove the setting from config.json",
            context={"model": name},
        )


def _check_shards(name: str, directory: Path, options: LoadOptions) -> None:
    """Make sure that an index of shards names safetensors files of this directory and nothing else."""
    for index in directory.glob("*.safetensors.index.json"):
        shards = _read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            raise ModelLoadError(
                f"{index.name} of the model is not an index of weights", context={"model": name}
            )
        foreign = sorted({shard for shard in shards.values() if shard != Path(shard).name})
        if foreign:
            raise UnsafeModelError(
                f"model '{name}' has an index that leads out of its directory ({', '.join(foreign[:3])})",
                hint=f"every entry of {index.name} must be the name of a file beside it",
                context={"model": name},
            )
        pickles = sorted({shard for shard in shards.values() if not shard.endswith(".safetensors")})
        if pickles:
            _refuse_pickle(name, pickles[:3], options)


def _refuse_pickle(name: str, files: list[str], options: LoadOptions) -> None:
    if not options.allow_pickle:
        raise UnsafeModelError(
            f"model '{name}' has pickled weights, which can run code when read ({', '.join(files)})",
            hint="convert them to safetensors, or allow them for this model with allow_pickle=True",
            context={"model": name, "files": files},
        )


def _reads_pickle(directory: Path, options: LoadOptions) -> bool:
    return options.allow_pickle and not any(directory.glob("*.safetensors"))


def _remote_code(directory: Path) -> Iterator[str]:
    for file in _CODE_CONFIGS:
        path = directory / file
        if not path.is_file():
            continue
        if "auto_map" in _read_json(path):
            yield file


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path.name} of the model is not readable JSON: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path.name} of the model is not a JSON object")
    return content


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


def _device(torch: Any, name: str) -> Any:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"unknown device '{name}'", hint="auto, cpu, cuda, cuda:N or mps") from error
    if device.type not in {"cpu", "cuda", "mps", "xpu"}:
        raise ConfigurationError(f"device '{name}' cannot run a model", hint="auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            f"device '{name}' is not here: torch sees no CUDA device", hint="use cpu or auto"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError(
            f"device '{name}' is not here: torch sees no Apple GPU", hint="use cpu or auto"
        )
    return device


def _dtype(torch: Any, name: str, device: Any) -> Any:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name not in known:
        raise ConfigurationError(f"unknown dtype '{name}'", hint=f"auto, {', '.join(known)}")
    return known[name]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().split("\n", 1)[0]
