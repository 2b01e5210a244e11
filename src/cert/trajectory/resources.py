"""The model behind a monitor: loaded when it is needed, shared by every call, and let go of."""

from __future__ import annotations

from collections.abc import Callable

from cert.backends.base import Backend
from cert.backends.loading import REFERENCE, LoadOptions
from cert.backends.opening import ServerOptions, open_backend
from cert.core.events import EventHub
from cert.core.memory import MemoryTracker
from cert.core.resources import ManagedResource

__all__ = ["GivenBackend", "HamiltonianModelResource"]


class HamiltonianModelResource(ManagedResource[Backend]):
    """A model by name."""

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

    def _load(self) -> Backend:
        if self._make is not None:
            backend = self._make(self.model_name, self._options or LoadOptions())
        else:
            backend = open_backend(self.model_name, self._options, server=self._server)
        if self._check is not None:
            self._check(backend)
        return backend

    def _release(self, value: Backend) -> None:
        value.close()


class GivenBackend(ManagedResource[Backend]):
    """A backend that somebody else made and will let go of."""

    def __init__(self, backend: Backend, *, hub: EventHub | None = None) -> None:
        super().__init__(backend.identity.name, hub=hub)
        self._backend = backend

    def _load(self) -> Backend:
        return self._backend
