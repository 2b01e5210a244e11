"""The allow-list of models: each loaded once, with a cache and a watch of its own for every tenant."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from cert.core.events import EventHub
from cert.core.health_probe import Finding, Status
from cert.core.visible import label
from cert.services.common.errors import NotFoundError
from cert.services.hamiltonian.options import WatchedModel
from cert.trajectory.api import HamiltonianMonitor
from cert.trajectory.calibration.watch import GateWatch
from cert.trajectory.engine import HamiltonianEngine

__all__ = ["ModelTable", "of_tenant"]

_MOST_SHOWN = 60


def of_tenant(
    monitor: HamiltonianMonitor, cache_size: int, hub: EventHub | None = None
) -> HamiltonianMonitor:
    """Return a monitor of the same loaded model with a cache and a gate's watch of its own.

    What one tenant asked cannot be seen by another, not even by how fast the answer comes, and one tenant's
    labels cannot refute the promise for another.
    """
    twin = copy.copy(monitor)
    if monitor.gate is not None:
        twin.gate_watch = GateWatch(monitor.gate, hub=hub)
    twin.engine = HamiltonianEngine(
        monitor.resource,
        monitor.config,
        cache_size=cache_size,
        hub=hub,
        gate=monitor.gate,
        gate_watch=twin.gate_watch,
    )
    return twin


class ModelTable:
    """Monitors by the names that requests use.

    Args:
        monitors: the allow-list; the first is the one of requests that name none.
        cache_size: analyses that are kept for each tenant and model.
        hub: hears of analyses.
        preload: names of models that `load` loads.
    """

    def __init__(
        self,
        monitors: Mapping[str, HamiltonianMonitor],
        *,
        cache_size: int = 1000,
        hub: EventHub | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        self._shared = dict(monitors)
        self._cache_size, self._hub = cache_size, hub
        self._preload = tuple(preload)
        self._own: dict[tuple[str, str], HamiltonianMonitor] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(
        cls, models: Sequence[WatchedModel], *, cache_size: int = 1000, hub: EventHub | None = None
    ) -> Self:
        """Make the monitors of a list of models; none is loaded by this.

        Raises:
            CertError: as `HamiltonianMonitor`.
        """
        monitors = {
            model.name: HamiltonianMonitor(
                model.source,
                config=model.config,
                options=model.load,
                server=model.server,
                gate=model.gate,
                cache_size=0,
                hub=hub,
            )
            for model in models
        }
        preload = [model.name for model in models if model.preload]
        return cls(monitors, cache_size=cache_size, hub=hub, preload=preload)

    @property
    def names(self) -> tuple[str, ...]:
        """The models that requests may name, the default first."""
        return tuple(self._shared)

    def name_of(self, asked: str | None) -> str:
        """Return a name of the list.

        Raises:
            NotFoundError: the list has no such model.
        """
        if asked is None and self._shared:
            return self.names[0]
        if asked is None or asked not in self._shared:
            raise NotFoundError(
                f"there is no model '{label((asked or '')[:_MOST_SHOWN])}' here",
                hint="GET /v1/models lists those that there are",
            )
        return asked

    def monitor(self, asked: str | None, tenant: str) -> HamiltonianMonitor:
        """Return a tenant's monitor of a model.

        Raises:
            NotFoundError: as `name_of`.
        """
        key = (tenant, self.name_of(asked))
        with self._lock:
            if key not in self._own:
                self._own[key] = of_tenant(self._shared[key[1]], self._cache_size, self._hub)
            return self._own[key]

    def shared(self) -> Iterator[tuple[str, HamiltonianMonitor]]:
        """Yield every model with the monitor that belongs to no tenant."""
        yield from self._shared.items()

    def load(self) -> None:
        """Load the models that are to be there from the start.

        Raises:
            CertError: one could not be loaded.
        """
        for name in self._preload:
            self._shared[name].load()

    def health(self) -> Finding:
        """Return the worst state of any model; one that waits to be loaded is well."""
        found = [(name, _unless_idle(monitor.resource.health())) for name, monitor in self._shared.items()]
        rank: tuple[Status, ...] = ("healthy", "degraded", "unhealthy")
        worst: Status = max((finding.status for _, finding in found), key=rank.index, default="healthy")
        ill = [name for name, finding in found if finding.status == worst]
        return Finding("healthy") if worst == "healthy" else Finding(worst, "model", ", ".join(ill))

    def close(self) -> None:
        """Unload every model."""
        for monitor in self._shared.values():
            monitor.unload()


def _unless_idle(finding: Finding) -> Finding:
    return Finding("healthy") if finding.code == "not_loaded" else finding
