"""What a model directory may hold before a library reads it: untrusted input, checked file by file.

Weights are ``safetensors``; settings that would run code, or send the loader to other files than those that
were checked, are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cert.backends.load_options import LoadOptions
from cert.backends.quantization import stored_quantization
from cert.core.errors import ModelLoadError, UnsafeModelError

__all__ = ["check_directory", "first_line", "read_config", "reads_pickle"]

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.msgpack", "*.h5")
_CODE_CONFIGS = ("config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json")
_KERNELS = (
    "_attn_implementation",
    "attn_implementation",
    "_experts_implementation",
    "experts_implementation",
)


def check_directory(name: str, directory: Path, options: LoadOptions) -> None:
    """Do nothing if a directory holds a model that can be loaded safely with these options.

    Raises:
        UnsafeModelError: loading it would run code, or read files elsewhere.
        ModelLoadError: it is not a model's, incomplete, or its settings are not readable.
    """
    if not (directory / "config.json").is_file():
        raise ModelLoadError(
            f"'{name}' is not a model directory: it has no config.json",
            hint="give the directory that holds config.json, the tokenizer and the weights",
            context={"model": name},
        )
    config = read_config(directory)
    _refuse_redirections(name, config)
    stored_quantization(name, config)
    _check_code(name, directory, options)
    if any(directory.glob("*.safetensors")):
        _check_indices(name, directory, options)
        if (directory / "adapter_model.bin").exists() and not (
            directory / "adapter_model.safetensors"
        ).exists():
            _refuse_pickle(name, ["adapter_model.bin"], options)
        return
    pickles = sorted(path.name for pattern in _PICKLES for path in directory.glob(pattern))
    if not pickles:
        raise ModelLoadError(
            f"model '{name}' has no weights (*.safetensors)",
            hint="copy the whole repository; of a hub model, 'hf download' brings what is missing",
            context={"model": name},
        )
    _refuse_pickle(name, pickles, options)


def read_config(directory: Path) -> dict[str, Any]:
    """Return config.json.

    Raises:
        ModelLoadError: it is not readable, or no JSON object.
    """
    return _read_json(directory / "config.json")


def reads_pickle(directory: Path, options: LoadOptions) -> bool:
    """Say whether weights come from ``torch.save`` files."""
    return options.allow_pickle and not any(directory.glob("*.safetensors"))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().split("\n", 1)[0]


def _refuse_redirections(name: str, config: dict[str, Any]) -> None:
    """Refuse settings by which a config sends the loader elsewhere than to the files that were checked."""
    for path, key, value in _settings(config):
        if key == "transformers_weights":
            raise UnsafeModelError(
                f"model '{name}' names its weights file in config.json ('{path}')",
                hint="remove the setting and name the weights model.safetensors",
                context={"model": name},
            )
        if key in _KERNELS and "/" in str(value):
            raise UnsafeModelError(
                f"model '{name}' asks for code of another repository ('{path}' in config.json)",
                hint="remove the setting from config.json",
                context={"model": name},
            )


def _settings(config: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield path, key and value of every setting: a composite model has the configs of its parts inside."""
    waiting: list[tuple[str, Any]] = [("", config)]
    while waiting:
        path, part = waiting.pop()
        entries = part.items() if isinstance(part, dict) else enumerate(part)
        for key, value in entries:
            inside = f"{path}.{key}" if path else str(key)
            yield inside, str(key), value
            if isinstance(value, dict | list):
                waiting.append((inside, value))


def _check_code(name: str, directory: Path, options: LoadOptions) -> None:
    code = {
        file: read
        for file in _CODE_CONFIGS
        if (path := directory / file).is_file()
        if "auto_map" in (read := _read_json(path))
    }
    if code and not options.allow_remote_code:
        raise UnsafeModelError(
            f"model '{name}' asks to run Python code of its own ('auto_map' in {', '.join(sorted(code))})",
            hint="read that code first; then allow it for this model with allow_remote_code=True",
            context={"model": name, "files": sorted(code)},
        )
    # transformers takes "owner/repository--module.Class" from that repository, at whatever it is today.
    elsewhere = sorted(file for file, read in code.items() if "--" in json.dumps(read["auto_map"]))
    if elsewhere:
        raise UnsafeModelError(
            f"model '{name}' asks to run code of another repository ('auto_map' in {', '.join(elsewhere)})",
            hint="copy that code into the model's directory, read it, and name it without '--'",
            context={"model": name, "files": elsewhere},
        )


def _check_indices(name: str, directory: Path, options: LoadOptions) -> None:
    """Make sure that an index of shards names safetensors files of this directory and nothing else."""
    for index in directory.glob("*.safetensors.index.json"):
        shards = _read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            raise ModelLoadError(
                f"{index.name} of the model is not an index of weights", context={"model": name}
            )
        files = sorted(set(shards.values()))
        foreign = [file for file in files if file != Path(file).name]
        if foreign:
            raise UnsafeModelError(
                f"model '{name}' has an index that leads out of its directory ({_few(foreign)})",
                hint=f"every entry of {index.name} must be the name of a file beside it",
                context={"model": name},
            )
        pickles = [file for file in files if not file.endswith(".safetensors")]
        if pickles:
            _refuse_pickle(name, pickles[:3], options)
        _require_files(name, directory, index.name, files)


def _require_files(name: str, directory: Path, index: str, files: list[str]) -> None:
    absent = [file for file in files if not (directory / file).is_file()]
    if absent:
        raise ModelLoadError(
            f"model '{name}' lacks {len(absent)} of the {len(files)} files of its weights: {_few(absent)}",
            hint=f"{index} names them; copy the whole repository, or finish its download",
            context={"model": name, "missing": absent},
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def _refuse_pickle(name: str, files: list[str], options: LoadOptions) -> None:
    if not options.allow_pickle:
        raise UnsafeModelError(
            f"model '{name}' has pickled weights, which can run code when read ({', '.join(files)})",
            hint="convert them to safetensors, or allow them for this model with allow_pickle=True",
            context={"model": name, "files": files},
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path.name} of the model is not readable JSON: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path.name} of the model is not a JSON object")
    return content
