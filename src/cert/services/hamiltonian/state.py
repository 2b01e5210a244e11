"""What the routes of the service work with."""

from __future__ import annotations

import asyncio
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

    Args:
        patience_seconds: that answers of a chat may still take when the service is about to end.

    Attributes:
        ending: the service is about to end.
        out_of_patience: and answers of a chat have had their time.
    """

    def __init__(self, patience_seconds: float = 0.0) -> None:
        self.ending = self.out_of_patience = False
        self._patience = patience_seconds
        self._stops: set[Callable[[], None]] = set()
        self._patient: set[Callable[[], None]] = set()

    @contextlib.contextmanager
    def open(self, stop: Callable[[], None], *, patient: bool = False) -> Iterator[None]:
        """Count a stream for as long as the block runs.

        Args:
            stop: ends it at its next token.
            patient: an answer in hand that is finished where there is time; any other ends at once.
        """
        stops = self._patient if patient else self._stops
        stops.add(stop)
        if self.out_of_patience if patient else self.ending:
            stop()
        try:
            yield
        finally:
            stops.discard(stop)

    def end(self) -> None:
        """Stop every stream, and each that begins from now on; answers of a chat once their time is over."""
        self.ending = True
        for stop in list(self._stops):
            stop()
        if self._patience > 0.0:
            asyncio.get_running_loop().call_later(self._patience, self._end_patient)
        else:
            self._end_patient()

    def _end_patient(self) -> None:
        self.out_of_patience = True
        for stop in list(self._patient):
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
