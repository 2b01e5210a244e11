"""What the routes of the service work with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import Request

from cert.services.common.principal import Principal, require
from cert.services.hamiltonian.models import ModelTable
from cert.services.hamiltonian.options import HamiltonianOptions
from cert.services.hamiltonian.passthrough.engine import Engine
from cert.services.hamiltonian.recent import Entry, RecentAnalyses
from cert.trajectory.calibration.watch import GateWatch

__all__ = ["HamiltonianState", "LiveStreams", "Reader", "State", "Writer", "state_of"]


class LiveStreams:
    """Generations that somebody reads as they come; all of them can be brought to an end.

    Attributes:
        ending: the service is about to end.
    """

    def __init__(self) -> None:
        self.ending = False
        self._stops: set[Callable[[], None]] = set()

    @contextlib.contextmanager
    def open(self, stop: Callable[[], None]) -> Iterator[None]:
        """Count a stream for as long as the block runs; ``stop`` ends it at its next token."""
        self._stops.add(stop)
        if self.ending:
            stop()
        try:
            yield
        finally:
            self._stops.discard(stop)

    def end(self) -> None:
        """Stop every stream, and each that begins from now on."""
        self.ending = True
        for stop in list(self._stops):
            stop()


@dataclass(frozen=True)
class HamiltonianState:
    """The resources of the running service.

    Attributes:
        options: what the operator decided.
        models: the allow-list.
        recent: the analyses of late.
        engine: behind the pass-through; ``None`` where the models of the list answer.
        live: streams that are open.
    """

    options: HamiltonianOptions
    models: ModelTable
    recent: RecentAnalyses
    engine: Engine | None = None
    live: LiveStreams = field(default_factory=LiveStreams)

    def watch_of(self, entry: Entry, tenant: str) -> GateWatch | None:
        """Return the watch of the gate that decided on an analysis; ``None`` without a gate."""
        if entry.source == "chat" and not self.is_local(entry.model):
            return None if self.engine is None else self.engine.watch_of(entry.model, tenant)
        if entry.model not in self.models.names:
            return None
        return self.models.monitor(entry.model, tenant).gate_watch

    def is_local(self, model: str) -> bool:
        """Say whether a chat with a model is answered in this process and not by the engine."""
        if self.engine is None:
            return True
        return model in self.models.names and model not in self.engine.options.models


async def state_of(request: Request) -> HamiltonianState:  # asynchronous, since any other takes a thread
    """Return the resources of the service that a request came to."""
    return cast(HamiltonianState, request.app.state.cert)


State = Annotated[HamiltonianState, Depends(state_of)]
Reader = Annotated[Principal, Depends(require("read"))]
Writer = Annotated[Principal, Depends(require("write"))]
