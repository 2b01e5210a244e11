"""Memory in use, on a device and in this process. What cannot be measured is ``None``, never 0."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cert.core.errors import ConfigurationError, OutOfMemoryError
from cert.core.health_probe import Finding

__all__ = ["MemoryReading", "MemoryTracker", "MemoryUse"]

_STATM = Path("/proc/self/statm")
_NEARLY_FULL = 0.9  # of the limit: a warning before the first request that fails


@dataclass(frozen=True)
class MemoryReading:
    """Memory of a device at one moment, in bytes; each is ``None`` where it is not measured.

    Attributes:
        used: by this process now: its resident set on the CPU, what torch allocated on a GPU.
        peak: the most of it since the process started.
        total: that the device has.
    """

    device: str
    used: int | None
    peak: int | None
    total: int | None


class MemoryUse(Protocol):
    """Reads the memory of a device."""

    def __call__(self, device: str, /) -> MemoryReading:
        """Return what is measured on a device such as ``cpu``, ``cuda:0`` or ``mps``."""
        ...


class MemoryTracker:
    """Reads memory, and knows a limit.

    A GPU is read through torch, and only once something else has imported it: reading must cost nothing.

    Args:
        limit_bytes: that this process may use on a device; ``None`` for no limit.
        read: where readings come from.

    Raises:
        ConfigurationError: the limit is not a positive number.
    """

    def __init__(self, limit_bytes: int | None = None, *, read: MemoryUse | None = None) -> None:
        if limit_bytes is not None and limit_bytes <= 0:
            raise ConfigurationError(f"a memory limit must be over 0 bytes, not {limit_bytes!r}")
        self.limit_bytes = limit_bytes
        self._read = read or _read

    def read(self, device: str) -> MemoryReading:
        """Return the memory of a device now."""
        return self._read(device)

    def require_within_limit(self, device: str) -> None:
        """Do nothing while the use is within the limit, or is not measured.

        Raises:
            OutOfMemoryError: more is in use than is allowed.
        """
        used = self.read(device).used
        if used is not None and self.limit_bytes is not None and used > self.limit_bytes:
            told = f"{_gigabytes(used)} GB are in use on {device}"
            raise OutOfMemoryError(
                f"{told}, over the limit of {_gigabytes(self.limit_bytes)} GB",
                hint="raise the memory limit, or use a smaller model or data type",
                context={"device": device, "used_bytes": used, "limit_bytes": self.limit_bytes},
            )

    def finding(self, device: str) -> Finding:
        """Return degraded from 90 % of the limit on, for a health check."""
        used = self.read(device).used
        if used is None or self.limit_bytes is None or used < _NEARLY_FULL * self.limit_bytes:
            return Finding("healthy")
        told = f"{_gigabytes(used)} of {_gigabytes(self.limit_bytes)} GB on {device}"
        return Finding("degraded", "memory_nearly_full", told)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f}"


def _read(device: str) -> MemoryReading:
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return MemoryReading(device, _resident(), _peak_resident(), _physical())
    torch = sys.modules.get("torch")
    try:
        if torch is not None and kind == "cuda" and torch.cuda.is_initialized():
            return _read_cuda(torch, device, int(index) if index else None)
        if torch is not None and kind == "mps":
            return MemoryReading(device, int(torch.mps.current_allocated_memory()), None, None)
    except (RuntimeError, ValueError, AttributeError, AssertionError):
        pass  # no such device, or a torch built without it: not measured
    return MemoryReading(device, None, None, None)


def _read_cuda(torch: Any, device: str, index: int | None) -> MemoryReading:
    _, total = torch.cuda.mem_get_info(index)
    used = int(torch.cuda.memory_allocated(index))
    return MemoryReading(device, used, int(torch.cuda.max_memory_allocated(index)), int(total))


def _resident() -> int | None:
    # The second field of statm, in pages (proc(5)). Elsewhere the peak alone can be had without a package.
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _peak_resident() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, the others kibibytes


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
