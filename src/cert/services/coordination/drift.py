"""The state of drift of each tenant's systems."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cert.coordination.drift import DriftMonitor, DriftStatus
from cert.coordination.suite import CoordinationReport
from cert.coordination.types import Task
from cert.core.errors import InputError

__all__ = ["DriftWatch"]

_LONGEST = 200
_NO_FAMILY = "all"


class DriftWatch:
    """One `DriftMonitor` for all tenants, in which each has names of its own.

    Args:
        monitor: with the state in a database.
    """

    def __init__(self, monitor: DriftMonitor) -> None:
        self._monitor = monitor

    async def feed(self, tenant: str, who: str, tasks: Sequence[Task], report: CoordinationReport) -> None:
        """Feed the scores of a measurement; one that was fed before counts once.

        Args:
            tenant: whose.
            who: model and evaluator: other ones have another scale.
            tasks: with their families.
            report: with the scores.

        Raises:
            InputError: a name that is too long.
            StoreError: the scores could not be kept.
        """
        families = {task.id: task.family or _NO_FAMILY for task in tasks}
        series: dict[tuple[str, str], list[tuple[str, float | None]]] = {}
        for row in report.rows:
            key = hashlib.sha256(f"{report.run}\n{row.system}\n{row.task_id}".encode()).hexdigest()
            name = (f"{row.system} {report.num_agents} {who}", families[row.task_id])
            series.setdefault(name, []).append((key, row.coordinated))
        for (system, family), scores in series.items():
            keys = [key for key, _ in scores]
            await self._monitor.observe_all(
                _own(tenant, system), family, [score for _, score in scores], keys=keys
            )

    async def states(self, tenant: str) -> tuple[tuple[str, DriftStatus], ...]:
        """Return the tenant's systems by the names that it knows, with where each stands.

        Raises:
            StoreError: the state cannot be read.
        """
        own = _own(tenant, "")
        found = await self._monitor.statuses()
        return tuple((one.system.removeprefix(own), one) for one in found if one.system.startswith(own))

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._monitor.aclose()


def _own(tenant: str, system: str) -> str:
    name = f"{tenant}/{system}"  # no tenant has a slash in its name
    if len(name) > _LONGEST:
        raise InputError("the names of system, model and evaluator are too long to watch for drift")
    return name
