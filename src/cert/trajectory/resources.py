"""The model behind a monitor: loaded when it is needed, shared by every call, and let go of."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cert.backends.base import Backend, Generation, GenerationRequest, Message, Prompt
from cert.backends.control import Control
from cert.backends.loading import REFERENCE, LoadOptions, require_libraries
from cert.backends.opening import ServerOptions, is_server, open_backend
from cert.backends.placement import resolve_device, weights_bytes
from cert.core.errors import CertError, DependencyMissingError, ResourceError
from cert.core.events import EventHub
from cert.core.health_probe import Finding
from cert.core.memory import MemoryReading, MemoryTracker
from cert.core.resources import ManagedResource

__all__ = ["GivenBackend", "HamiltonianModelResource", "ModelMemory"]


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """What a loaded model takes.

    Attributes:
        before: memory of the device before the load, the libraries already imported.
        after: memory of the device right after it. On a CPU that is the whole process, so that work on
            other threads counts too.
        weights_bytes: exact bytes of parameters and buffers, ``None`` where the model is on a server.
    """

    before: MemoryReading
    after: MemoryReading
    weights_bytes: int | None


class HamiltonianModelResource(ManagedResource[Backend]):
    """A model by name.

    However many threads ask, it is loaded once; while any of them uses it, it is not unloaded, and after
    that its memory is really free.

    Args:
        model_name: ``reference`` (the default), a model directory, a hub id, or ``openai:MODEL@URL``.
        options: how a model is loaded into this process.
        memory: measures what it takes; with a limit, a load that goes over it fails.
        hub: hears `ModelLoaded`, with the bytes that it took, and `ModelUnloaded`.
        server: how a model on a server is asked.
        make_backend: makes the backend in place of `cert.backends.opening.open_backend`.
        check: raises for a backend that will not do; it is then closed and the load fails.
    """

    def __init__(
        self,
        model_name: str | None = None,
        options: LoadOptions | None = None,
        *,
        memory: MemoryTracker | None = None,
        hub: EventHub | None = None,
        server: ServerOptions | None = None,
        make_backend: Callable[[str, LoadOptions], Backend] | None = None,
        check: Callable[[Backend], object] | None = None,
    ) -> None:
        self.model_name = REFERENCE if model_name is None else model_name
        super().__init__(self.model_name, memory=memory, hub=hub)
        self._options = options
        self._server = server
        self._make = make_backend
        self._check = check
        self._memory_use: ModelMemory | None = None

    @property
    def memory_use(self) -> ModelMemory | None:
        """What the loaded model takes; ``None`` while it is not loaded."""
        return self._memory_use if self.state == "loaded" else None

    def preload(self) -> None:
        """Load the model and generate one token, so that the first request finds everything warm.

        Raises:
            ResourceError: the model is loaded and gives no numbers; it stays loaded.
            Exception: whatever loading raises.
        """
        self.load()
        finding = self.check_inference()
        if finding.status != "healthy":
            raise ResourceError(
                f"model '{self.model_name}' is loaded and does not work: {finding.detail}",
                context={"model": self.model_name, "code": finding.code},
            )

    def check_inference(self, *, timeout: float = 10.0) -> Finding:
        """Generate one token and see whether its numbers are finite, for a health check.

        A model that is not loaded is not loaded by this; the finding is then that of `health`. On a server
        the token is a request like any other.
        """
        try:
            if not self._take_if_loaded():
                return self.health()
            try:
                return _inference(self._held(), timeout)
            finally:
                self._give_back()
        except CertError as error:
            return Finding("degraded" if error.retryable else "unhealthy", error.code, error.message)

    def _prepare(self) -> None:
        options = self._options or LoadOptions()
        if is_server(self.model_name):
            self.device = "server"
        elif self._make is None:
            # What is missing is told by the load itself, with its hint.
            with contextlib.suppress(DependencyMissingError):
                torch, _ = require_libraries()
                self.device = _measurable(
                    torch, resolve_device(torch, options.device, quantized=options.quantization is not None)
                )
        # Memory that is free but kept would be filled first, and the model seem to take less than it does.
        _return_heap()

    def _load(self) -> Backend:
        before = self._memory.read(self.device)
        backend = self._make_backend()
        try:
            if self._check is not None:
                self._check(backend)
        except BaseException:
            backend.close()
            raise
        model = getattr(backend, "model", None)
        size = weights_bytes(model) if hasattr(model, "parameters") else None
        self._memory_use = ModelMemory(before, self._memory.read(self.device), size)
        return backend

    def _make_backend(self) -> Backend:
        if self._make is not None:
            return self._make(self.model_name, self._options or LoadOptions())
        return open_backend(self.model_name, self._options, server=self._server)

    def _release(self, value: Backend) -> None:
        value.close()

    def _abandon(self) -> None:
        _free_kept_memory()

    def _reclaim(self) -> None:
        _free_kept_memory()


class GivenBackend(ManagedResource[Backend]):
    """A backend that somebody else made and will let go of."""

    def __init__(self, backend: Backend, *, hub: EventHub | None = None) -> None:
        super().__init__(backend.identity.name, hub=hub)
        self._backend = backend

    def _load(self) -> Backend:
        return self._backend


def _inference(backend: Backend, timeout: float) -> Finding:
    if not backend.capabilities.generates:
        return Finding("healthy", "not_checked", "stored records generate nothing")
    prompt: Prompt = "1" if backend.capabilities.plain_prompts else (Message("user", "1"),)
    control = Control(timeout=timeout)
    request = GenerationRequest(prompt, max_new_tokens=1, top_logprobs=1)
    generation = control.wait(backend.begin(request, control))
    if not _measured(generation):
        return Finding("unhealthy", "not_measured", "one token was generated and not measured")
    return Finding("healthy")


def _measured(generation: Generation) -> bool:
    steps = generation.steps if len(generation.steps) else generation.stop_step
    return steps is not None and len(steps) > 0 and math.isfinite(steps.logprob[0])


def _measurable(torch: Any, device: Any) -> str:
    """Return a device's name; a CUDA device is started, since its memory cannot be read before."""
    if device.type == "cuda":
        torch.cuda.init()
        return f"cuda:{torch.cuda.current_device() if device.index is None else device.index}"
    return str(device)


def _free_kept_memory() -> None:
    # Models hold references in circles; the C library keeps freed blocks for its next ones, and so does
    # torch those of a GPU.
    gc.collect()
    _return_heap()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _return_heap() -> None:
    with contextlib.suppress(OSError, AttributeError, TypeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
