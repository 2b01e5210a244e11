"""Models as version 3 loaded them: a model and its tokenizer in the caller's hands."""

from __future__ import annotations

import gc
import importlib.util
import os
import warnings
import weakref
from dataclasses import dataclass, replace
from typing import Any

from cert.backends.loading import LoadOptions, load_model, require_libraries
from cert.core.errors import ConfigurationError
from cert.trajectory.v3.deprecation import deprecated

__all__ = ["Origin", "load_model_for_monitoring", "origin_of", "unload_model"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model came from, for the results to say."""

    name: str
    revision: str | None


# A model doesn't know the name that it was asked for by, only the directory.
_origins: weakref.WeakKeyDictionary[Any, Origin] = weakref.WeakKeyDictionary()


def load_model_for_monitoring(
    model_name: str | os.PathLike[str],
    use_8bit: bool | None = None,
    device: str | None = None,
    *,
    load_in_8bit: bool | None = None,
    options: LoadOptions | None = None,
) -> tuple[Any, Any]:
    """Load a model and its tokenizer.

    Args:
        model_name: ``reference``, a model directory or a hub id.
        use_8bit: 8-bit weights. By default as in version 3: on a CUDA device yes, elsewhere no; where the
            extra ``quantization`` is missing, a warning says that the weights stay as they are.
        device: ``auto`` (the default), ``cpu``, ``cuda`` or ``mps``.
        load_in_8bit: another name of ``use_8bit``.
        options: what else there is to say; ``device`` and ``use_8bit`` go before it.

    Returns:
        (model, tokenizer)

    Raises:
        DependencyMissingError: torch or transformers is not installed, or 8-bit weights were asked for
            without the extra ``quantization``.
        ConfigurationError: ``use_8bit`` and ``load_in_8bit`` contradict each other; an unknown device.
        ResourceError: the model is not there, not safe or not loadable.
    """
    deprecated("load_model_for_monitoring", "HamiltonianMonitor(model_name), which loads the model itself")
    chosen = options or LoadOptions()
    if device is not None:
        chosen = replace(chosen, device=device)
    if _eight_bit(use_8bit, load_in_8bit, chosen, given=options is not None):
        chosen = replace(chosen, quantization="8bit")
    loaded = load_model(os.fspath(model_name), chosen)
    _origins[loaded.model] = Origin(loaded.name, loaded.revision)
    return loaded.model, loaded.tokenizer


def unload_model(model: Any, tokenizer: Any = None) -> None:  # noqa: ARG001 - version 3 took both
    """Give back the memory of a model's weights; the model cannot be used afterwards.

    The tokenizer has no memory worth the name and stays as it is.
    """
    deprecated("unload_model", "HamiltonianMonitor.unload, or its context manager")
    torch, _ = require_libraries()
    _empty(torch, model)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def origin_of(model: Any) -> Origin:
    """Return the name that a model was loaded by, else the one that its config holds."""
    try:
        return _origins[model]
    except (KeyError, TypeError):  # not loaded here; or an object that cannot be referred to weakly
        return Origin(str(model.config._name_or_path), None)


def _empty(torch: Any, model: Any) -> None:
    """Put placeholders without memory in the place of all weights, which a holder of the model would keep."""
    for module in model.modules():
        # Not Module.to: quantised weights refuse to be moved.
        for table in (module._parameters, module._buffers):
            for name, value in table.items():
                if value is not None:
                    empty = torch.empty(value.shape, dtype=value.dtype, device="meta")
                    is_weight = table is module._parameters
                    table[name] = torch.nn.Parameter(empty, requires_grad=False) if is_weight else empty
        # bitsandbytes holds its numbers here as well.
        for name in ("state", "quant_state"):
            if hasattr(module, name):
                setattr(module, name, None)


def _eight_bit(use_8bit: bool | None, other: bool | None, options: LoadOptions, *, given: bool) -> bool:
    if use_8bit is not None and other is not None and bool(use_8bit) != bool(other):
        raise ConfigurationError("use_8bit and load_in_8bit contradict each other", hint="give one of them")
    asked = other if use_8bit is None else use_8bit
    if asked is not None:
        return bool(asked)
    if given or not _on_cuda(options.device):  # options say all that there is to say
        return False
    if importlib.util.find_spec("bitsandbytes") is not None:
        return True
    warnings.warn(
        "version 3 loaded 8-bit weights on a CUDA device, which needs the extra 'quantization' "
        "(pip install 'cert-framework[quantization]'): the weights stay as they are; use_8bit says which",
        UserWarning,
        stacklevel=3,
    )
    return False


def _on_cuda(device: str) -> bool:
    torch, _ = require_libraries()
    return device.startswith("cuda") or (device == "auto" and bool(torch.cuda.is_available()))
