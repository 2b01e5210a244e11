"""Weights in 8 or 4 bits, by bitsandbytes through transformers; they work on CUDA and on the CPU.

``8bit`` is LLM.int8() (arXiv 2208.07339): int8 weights and inputs with a scale a row, columns of inputs that
hold an outlier (≥ 6) in higher precision. ``4bit`` is NF4 with its scales quantised again (arXiv 2305.14314,
section 3); inputs stay as they are. Embeddings, norms and the output layer keep their type, so that logits
are computed as ever.

Which columns are outliers is decided over all rows of a batch, so that with 8 bits an answer may depend a
little on what runs beside it. 4 bits have no such dependence.

A checkpoint may itself be stored this way; its settings are untrusted.
"""

from __future__ import annotations

import importlib
import logging
import math
from typing import Any

from cert.backends.load_options import Quantization
from cert.core.errors import ConfigurationError, DependencyMissingError, ModelLoadError

__all__ = [
    "FLOAT_TYPES",
    "agreed_quantization",
    "loading_arguments",
    "quantization_of",
    "stored_quantization",
]

FLOAT_TYPES = ("float16", "bfloat16", "float32")
_STORAGES = ("uint8", "int8", *FLOAT_TYPES)
_CODES = ("nf4", "fp4")
_SETTINGS_OFF = ("llm_int8_enable_fp32_cpu_offload", "llm_int8_has_fp16_weight")


# --- what a checkpoint says of itself ---


def stored_quantization(name: str, config: dict[str, Any]) -> Quantization | None:
    """Return in how many bits a checkpoint is stored, ``None`` if it is not quantised.

    Args:
        name: of the model, for messages.
        config: its config.json.

    Raises:
        ModelLoadError: another method than bitsandbytes, or settings of it that make no sense.
    """
    found = [
        part["quantization_config"] for part in _parts(config) if part.get("quantization_config") is not None
    ]
    kinds = {_read(name, settings) for settings in found}
    if len(kinds) > 1:
        raise _senseless(name, "two of them contradict each other")
    return kinds.pop() if kinds else None


def agreed_quantization(
    name: str, asked: Quantization | None, stored: Quantization | None
) -> Quantization | None:
    """Return what a model is to be loaded in.

    Raises:
        ConfigurationError: the checkpoint is stored in other bits than asked for.
    """
    if asked is not None and stored is not None and asked != stored:
        raise ConfigurationError(
            f"model '{name}' is stored in {stored} weights and cannot be loaded in {asked}",
            hint="leave quantization out, or give the unquantised model",
        )
    return asked or stored


def _read(name: str, settings: Any) -> Quantization:
    if not isinstance(settings, dict):
        raise _senseless(name, "it is no object")
    method = settings.get("quant_method", "bitsandbytes")
    if method != "bitsandbytes":
        raise ModelLoadError(
            f"model '{name}' is quantised by {method!r}, which is not read in this process",
            hint="let a server such as vLLM run it and watch it as openai:MODEL@URL, or give the unquantised "
            "model with quantization='4bit'",
            context={"model": name, "method": str(method)[:50]},
        )
    eight, four = _flag(name, settings, "load_in_8bit"), _flag(name, settings, "load_in_4bit")
    if eight == four:
        raise _senseless(name, "it has to say load_in_8bit or load_in_4bit, and one of them")
    _check_settings(name, settings)
    return "8bit" if eight else "4bit"


def _check_settings(name: str, settings: dict[str, Any]) -> None:
    for key in _SETTINGS_OFF:
        if _flag(name, settings, key):
            raise _senseless(name, f"{key} is of no use here")
    _flag(name, settings, "bnb_4bit_use_double_quant")
    for key, known in (
        ("bnb_4bit_compute_dtype", FLOAT_TYPES),
        ("bnb_4bit_quant_storage", _STORAGES),
        ("bnb_4bit_quant_type", _CODES),
    ):
        if settings.get(key) is not None and settings[key] not in known:
            raise _senseless(name, f"{key} is none of {', '.join(known)}")
    threshold = settings.get("llm_int8_threshold", 6.0)
    if not isinstance(threshold, float) or not (math.isfinite(threshold) and threshold >= 0.0):
        raise _senseless(name, "llm_int8_threshold is no number of 0 or more")
    skipped = settings.get("llm_int8_skip_modules")
    if skipped is not None and not (isinstance(skipped, list) and all(isinstance(m, str) for m in skipped)):
        raise _senseless(name, "llm_int8_skip_modules is no list of names")


def _flag(name: str, settings: dict[str, Any], key: str) -> bool:
    value = settings.get(key, False)
    if not isinstance(value, bool):
        raise _senseless(name, f"{key} is neither true nor false")
    return value


def _senseless(name: str, reason: str) -> ModelLoadError:
    return ModelLoadError(
        f"the quantization_config of model '{name}' makes no sense: {reason}", context={"model": name}
    )


def quantization_of(model: Any) -> Quantization | None:
    """Return in how many bits a loaded model holds its linear layers, ``None`` for the bits of its type."""
    if getattr(model, "is_loaded_in_8bit", False):
        return "8bit"
    return "4bit" if getattr(model, "is_loaded_in_4bit", False) else None


# --- loading ---


def loading_arguments(
    quantization: Quantization, *, stored: bool, config: dict[str, Any], device: Any, dtype: Any
) -> dict[str, Any]:
    """Return what ``from_pretrained`` is to be told besides.

    Args:
        quantization: the bits.
        stored: the checkpoint is in these bits already, and its own settings hold.
        config: its config.json.
        device: a torch device; quantised weights are made there and stay there.
        dtype: a torch type, or ``auto``.

    Raises:
        DependencyMissingError: a package of the extra ``quantization`` is missing or broken.
    """
    _require_packages()
    place = {"device_map": {"": _with_index(device)}}
    if stored:
        # Read, not mapped: constants beside the weights would stay pages of the file (see `hold_weights`).
        return {**place, "disable_mmap": True}
    settings: dict[str, Any] = {"load_in_8bit": True}
    if quantization == "4bit":
        settings = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": _checkpoint_type(config) if dtype == "auto" else _bare(dtype),
        }
    transformers: Any = importlib.import_module("transformers")
    return {**place, "quantization_config": transformers.BitsAndBytesConfig(**settings)}


def _require_packages() -> None:
    for package in ("accelerate", "bitsandbytes"):
        try:
            importlib.import_module(package)
        # A build for another CUDA fails in ways of its own.
        except Exception as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name == package
            fault = "" if absent else f", which is here and cannot be used: {type(error).__name__}"
            raise DependencyMissingError(
                f"8-bit and 4-bit weights need the package '{package}'{fault}",
                hint="pip install 'cert-framework[quantization]'",
                context={"package": package},
            ) from error
    _quieten()


def _quieten() -> None:
    """Silence what bitsandbytes logs for each layer of each step: that 8-bit inputs become float16."""
    logger = logging.getLogger("bitsandbytes.autograd._functions")
    if _is_news not in logger.filters:
        logger.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("MatMul8bitLt: inputs will be cast")


def _with_index(device: Any) -> Any:
    import torch

    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _checkpoint_type(config: dict[str, Any]) -> str:
    named = (part.get(key) for part in _parts(config) for key in ("dtype", "torch_dtype"))
    return next((value for value in named if value in FLOAT_TYPES), "float32")


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    text_config = config.get("text_config")
    return [config, text_config] if isinstance(text_config, dict) else [config]


def _bare(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
