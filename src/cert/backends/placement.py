"""Where a model is put: its device, its type, and the bytes that it takes there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cert.core.errors import ConfigurationError

__all__ = ["hold_weights", "resolve_device", "resolve_dtype", "weights_bytes"]

_KINDS = "auto, cpu, cuda, cuda:N or mps"


def resolve_device(torch: Any, name: str, *, quantized: bool = False) -> Any:
    """Return the torch device that a name stands for.

    Args:
        torch: the library.
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        quantized: for 8-bit or 4-bit weights, for which ``auto`` goes past Apple's GPU.

    Raises:
        ConfigurationError: no such device, none here, or one that cannot work with quantised weights.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() and not quantized else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigurationError(f"unknown device {name!r}", hint=_KINDS) from error
    if device.type not in {"cpu", "cuda", "mps"}:
        raise ConfigurationError(f"device '{name}' cannot run a model", hint=_KINDS)
    if device.type == "cuda":
        _require_cuda(torch, name, device.index)
    if device.type == "mps" and quantized:
        raise ConfigurationError(
            "8-bit and 4-bit weights are not supported on Apple's GPU",
            hint="use cpu, or leave quantization out",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError(
            f"device '{name}' is not here: torch sees no Apple GPU", hint="use cpu or auto"
        )
    return device


def resolve_dtype(torch: Any, name: str, device: Any) -> Any:
    """Return the torch type that a name stands for, or ``auto`` for the checkpoint's own.

    Raises:
        ConfigurationError: an unknown name.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name not in known:
        raise ConfigurationError(f"unknown dtype {name!r}", hint=f"auto, {', '.join(known)}")
    return known[name]


def hold_weights(model: Any) -> None:
    """Copy weights that are still pages of their file into memory of the process.

    safetensors maps a file whose types fit. Whoever copied another version over it would change the running
    model, and its memory would be counted only as it is used.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        # Memory that is not torch's own cannot be resized.
        if tensor.device.type == "cpu" and not tensor.untyped_storage().resizable():
            tensor.data = tensor.data.clone()


def weights_bytes(model: Any) -> int:
    """Return the bytes of a model's parameters and buffers, on whatever device.

    Memory that several share, such as tied embeddings, counts once; so do the constants that quantised
    weights are read with.
    """
    storages = {}
    for tensor in _tensors(model):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _require_cuda(torch: Any, name: str, index: int | None) -> None:
    if not torch.cuda.is_available():
        raise ConfigurationError(
            f"device '{name}' is not here: torch sees no CUDA device", hint="use cpu or auto"
        )
    count = torch.cuda.device_count()
    if index is not None and index >= count:
        raise ConfigurationError(
            f"device '{name}' is not here: there are {count}, counted from 0", hint=_KINDS
        )


def _tensors(model: Any) -> Iterator[Any]:
    for module in model.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            yield tensor
            yield from _constants(tensor)
        # bitsandbytes moves an 8-bit weight and its scales here at the first use.
        yield from _constants(getattr(module, "state", None))


def _constants(holder: Any) -> Iterator[Any]:
    """Yield the tensors beside a weight of bitsandbytes: scales of 8 bits, blocks and codes of 4 bits."""
    yield from (tensor for key in ("CB", "SCB") if (tensor := getattr(holder, key, None)) is not None)
    state = getattr(holder, "quant_state", None)
    while state is not None:
        # Packing a weight for the processor takes some of them away.
        yield from (
            tensor
            for key in ("absmax", "code", "offset")
            if (tensor := getattr(state, key, None)) is not None
        )
        state = getattr(state, "state2", None)
