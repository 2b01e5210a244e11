"""The constants that quantised weights are read with, checked before the first use.

A checkpoint stored in 8 or 4 bits brings its own, untrusted; bitsandbytes hands them to compiled code that
reads as far as they say.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from cert.backends.load_options import Quantization
from cert.backends.quantization import FLOAT_TYPES
from cert.core.errors import ConfigurationError, ModelLoadError

__all__ = ["check_quantized"]

_CODES = ("nf4", "fp4")
_BLOCKS = frozenset(2**power for power in range(5, 13))  # 32 to 4096, those of bitsandbytes' kernels


def check_quantized(name: str, model: Any, quantization: Quantization) -> None:
    """Do nothing if every quantised layer has the constants it is read with, of the right shapes.

    Raises:
        ModelLoadError: some are missing, or do not fit their layer.
        ConfigurationError: the model has no layer that could be quantised.
    """
    nn: Any = importlib.import_module("bitsandbytes.nn")
    kind = nn.Linear8bitLt if quantization == "8bit" else nn.Linear4bit
    fits = _fits_8bit if quantization == "8bit" else _fits_4bit
    layers = [(path, layer) for path, layer in model.named_modules() if isinstance(layer, kind)]
    if not layers:
        raise ConfigurationError(
            f"model '{name}' has no layer that could be held in {quantization} weights",
            hint="leave quantization out",
        )
    broken = [path for path, layer in layers if not fits(layer)] + list(_raw_integers(model, kind))
    if broken:
        raise ModelLoadError(
            f"the {quantization} weights of model '{name}' are damaged: {', '.join(broken[:3])}"
            f"{' …' if len(broken) > 3 else ''}",
            hint="quantise the full weights anew: quantization='4bit' or '8bit'",
            context={"model": name, "damaged": len(broken)},
        )


def _raw_integers(model: Any, kind: Any) -> Iterator[str]:
    """Yield parameters that hold integers where no quantised layer reads them."""
    for path, module in model.named_modules():
        if not isinstance(module, kind):
            for key, parameter in module.named_parameters(recurse=False):
                if not parameter.is_floating_point():
                    yield f"{path}.{key}"


def _fits_8bit(layer: Any) -> bool:
    import torch

    weight = layer.weight
    scales = getattr(weight, "SCB", None)
    return (
        weight.dtype == torch.int8
        and tuple(weight.shape) == (layer.out_features, layer.in_features)
        and getattr(weight, "CB", None) is not None
        and scales is not None
        and scales.dtype == torch.float32
        and scales.numel() == layer.out_features
        and bool(torch.isfinite(scales).all())
    )


def _fits_4bit(layer: Any) -> bool:
    state = getattr(layer.weight, "quant_state", None)
    if state is None or tuple(state.shape or ()) != (layer.out_features, layer.in_features):
        return False
    count = layer.out_features * layer.in_features
    packed = layer.weight.numel() * layer.weight.element_size()
    return (
        state.quant_type in _CODES
        and _is_float_type(state.dtype)
        and packed == (count + 1) // 2
        and _is_float32(state.code, 16)
        and _blocks_fit(state, count)
    )


def _blocks_fit(state: Any, count: int) -> bool:
    """Say whether there is one scale a block: float32, or one byte which a second such state reads."""
    import torch

    if type(state.blocksize) is not int or state.blocksize not in _BLOCKS:
        return False
    blocks = -(-count // state.blocksize)
    if state.state2 is None:
        return _is_float32(state.absmax, blocks)
    return (
        state.absmax.dtype == torch.uint8
        and state.absmax.numel() == blocks
        and _is_float32(state.offset, 1)
        and _is_float32(state.state2.code, 256)
        and _is_float_type(state.state2.dtype)
        and state.state2.state2 is None
        and _blocks_fit(state.state2, blocks)
    )


def _is_float_type(dtype: Any) -> bool:
    return str(dtype).removeprefix("torch.") in FLOAT_TYPES


def _is_float32(tensor: Any, count: int) -> bool:
    import torch

    return tensor.dtype == torch.float32 and tensor.numel() == count and bool(torch.isfinite(tensor).all())
