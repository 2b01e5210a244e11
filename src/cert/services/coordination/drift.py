"""The state of drift of each tenant's systems."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cert.coordination.drift import DriftMonitor, DriftStatus
from cert.coordination.suite import CoordinationReport
from cert.coordination.types import Task
from cert.core.errors import InputError
from cert.observability.logging import get_logger
from cert.services.common.errors import ConflictError, NotFoundError

__all__ = ["DriftWatch", "series_id"]

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

    async def acknowledge(
        self, tenant: str, identifier: str, *, by: str | None, raised_at: float | None = None
    ) -> tuple[str, DriftStatus]:
        """Take an alarm off; without one nothing happens.

        Args:
            tenant: whose.
            identifier: of the series, as `series_id` makes it.
            by: the id of the key of whoever has seen the alarm.
            raised_at: of the alarm that was seen; ``None`` is whichever stands.

        Returns:
            The system by the name that the tenant knows, and where it stands now.

        Raises:
            NotFoundError: the tenant has no such series.
            ConflictError: another alarm stands by now.
            StoreError: it could not be kept.
        """
        states = await self.states(tenant)
        found = next(
            ((system, one) for system, one in states if series_id(system, one.family) == identifier), None
        )
        if found is None:
            raise NotFoundError(
                "there is no such series of scores", hint="GET /v1/drift lists those there are"
            )
        system, before = found
        status = await self._monitor.acknowledge(before.system, before.family, by=by, raised_at=raised_at)
        if status.alarm is not None:
            raise ConflictError("another alarm stands by now", hint="look at it, and acknowledge that one")
        if status.acknowledged > before.acknowledged:
            get_logger("cert.services.coordination").info(
                "drift_acknowledged", series=identifier, tenant=tenant, key_id=by
            )
        return system, status

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._monitor.aclose()


def series_id(system: str, family: str) -> str:
    """Return the name of a series in addresses; a tenant's systems have the names that it knows."""
    return "d_" + hashlib.sha256(f"{system}\n{family}".encode()).hexdigest()[:24]


def _own(tenant: str, system: str) -> str:
    name = f"{tenant}/{system}"  # no tenant has a slash in its name
    if len(name) > _LONGEST:
        raise InputError("the names of system, model and evaluator are too long to watch for drift")
    return name
