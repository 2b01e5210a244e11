"""The clients of the Coordination service."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from cert.client.calls import Call, read_answer, read_problem
from cert.client.errors import ConnectionFailedError, ProblemError
from cert.client.transport import AsyncCarrier, Carrier
from cert.client.types import (
    Budget,
    Costs,
    DriftList,
    DriftSeries,
    Measurement,
    MeasurementEvent,
    MeasurementPage,
)

if TYPE_CHECKING:
    import httpx2

__all__ = ["AsyncCoordinationClient", "CoordinationClient"]

# A stream that ended without its end is gone on with, after so many seconds, until nothing new came so often.
_PAUSE = 0.5
_FRUITLESS = 10


class CoordinationClient(Carrier):
    """Asks a Coordination service, and blocks meanwhile.

    Example:
        ``job = client.measure({"tasks": […], "systems": ["vote"]}, idempotency_key="nightly-17")``, then
        ``for event in client.follow(job.id): …`` and ``client.result(job.id)``.
    """

    def measure(self, request: Mapping[str, Any], *, idempotency_key: str | None = None) -> Measurement:
        """Begin a measurement; it goes on without us.

        Args:
            request: as ``POST /v1/measurements`` takes it.
            idempotency_key: the same key makes one measurement, however often it is sent; without one a
                connection that breaks is not tried again.

        Raises:
            ClientError: it could not be asked, or the service says no.
        """
        return self.call(_measure(request, idempotency_key))

    def measurement(self, measurement_id: str) -> Measurement:
        """Return where a measurement is."""
        return self.call(_get(measurement_id))

    def measurements(self, *, limit: int = 20) -> Iterator[Measurement]:
        """Yield measurements, the latest first; pages are asked for as they are needed."""
        cursor: str | None = None
        while True:
            page = self.call(_page(limit, cursor))
            yield from page.items
            if (cursor := page.next) is None:
                return

    def follow(self, measurement_id: str, *, after: str | None = None) -> Iterator[MeasurementEvent]:
        """Yield events until the measurement is done; a stream that breaks off goes on after the last one.

        Args:
            measurement_id: which one.
            after: the id of the last event that was seen.
        """
        fruitless = 0
        while True:
            with contextlib.suppress(ConnectionFailedError):
                for event in self.events(_follow(measurement_id, after)):
                    read, fruitless = _event(event), 0
                    after = read.id or after
                    yield read
            if self.measurement(measurement_id).done:
                return
            if (fruitless := fruitless + 1) > _FRUITLESS:
                raise ConnectionFailedError("the events broke off again and again")
            time.sleep(_PAUSE)

    def cancel(self, measurement_id: str) -> Measurement:
        """End a measurement: no further call is paid for."""
        return self.call(_cancel(measurement_id))

    def delete(self, measurement_id: str) -> None:
        """Delete a measurement that has ended, with its texts; what it cost stays in the books.

        Raises:
            ClientError: there is none, it has not ended, or the connection broke: look whether it is there.
        """
        self.call(_delete(measurement_id))

    def result(self, measurement_id: str) -> dict[str, Any]:
        """Return the whole report as data."""
        return self.call(_result(measurement_id))

    def report(self, measurement_id: str) -> bytes:
        """Return the report as a page of HTML."""
        return self.call(_report(measurement_id))

    def budget(self) -> Budget:
        """Return what may be spent."""
        return self.call(_BUDGET)

    def costs(self) -> Costs:
        """Return what was spent."""
        return self.call(_COSTS)

    def drift(self) -> list[DriftSeries]:
        """Return where the systems stand that are watched."""
        return self.call(_DRIFT).items

    def acknowledge(self, series: DriftSeries) -> DriftSeries:
        """Take off the alarm of a series that was seen; without one nothing happens.

        Raises:
            ProblemError: another alarm stands by now (409), or there is no such series.
        """
        return self.call(_acknowledge(series))


class AsyncCoordinationClient(AsyncCarrier):
    """The same for tasks; see `CoordinationClient`."""

    async def measure(self, request: Mapping[str, Any], *, idempotency_key: str | None = None) -> Measurement:
        """Do what `CoordinationClient.measure` does."""
        return await self.call(_measure(request, idempotency_key))

    async def measurement(self, measurement_id: str) -> Measurement:
        """Do what `CoordinationClient.measurement` does."""
        return await self.call(_get(measurement_id))

    async def measurements(self, *, limit: int = 20) -> AsyncIterator[Measurement]:
        """Yield what `CoordinationClient.measurements` yields."""
        cursor: str | None = None
        while True:
            page = await self.call(_page(limit, cursor))
            for item in page.items:
                yield item
            if (cursor := page.next) is None:
                return

    async def follow(
        self, measurement_id: str, *, after: str | None = None
    ) -> AsyncIterator[MeasurementEvent]:
        """Yield what `CoordinationClient.follow` yields."""
        fruitless = 0
        while True:
            with contextlib.suppress(ConnectionFailedError):
                async for event in self.events(_follow(measurement_id, after)):
                    read, fruitless = _event(event), 0
                    after = read.id or after
                    yield read
            if (await self.measurement(measurement_id)).done:
                return
            if (fruitless := fruitless + 1) > _FRUITLESS:
                raise ConnectionFailedError("the events broke off again and again")
            await asyncio.sleep(_PAUSE)

    async def cancel(self, measurement_id: str) -> Measurement:
        """Do what `CoordinationClient.cancel` does."""
        return await self.call(_cancel(measurement_id))

    async def delete(self, measurement_id: str) -> None:
        """Do what `CoordinationClient.delete` does."""
        await self.call(_delete(measurement_id))

    async def result(self, measurement_id: str) -> dict[str, Any]:
        """Do what `CoordinationClient.result` does."""
        return await self.call(_result(measurement_id))

    async def report(self, measurement_id: str) -> bytes:
        """Do what `CoordinationClient.report` does."""
        return await self.call(_report(measurement_id))

    async def budget(self) -> Budget:
        """Do what `CoordinationClient.budget` does."""
        return await self.call(_BUDGET)

    async def costs(self) -> Costs:
        """Do what `CoordinationClient.costs` does."""
        return await self.call(_COSTS)

    async def drift(self) -> list[DriftSeries]:
        """Do what `CoordinationClient.drift` does."""
        return (await self.call(_DRIFT)).items

    async def acknowledge(self, series: DriftSeries) -> DriftSeries:
        """Do what `CoordinationClient.acknowledge` does."""
        return await self.call(_acknowledge(series))


def _measure(request: Mapping[str, Any], key: str | None) -> Call[Measurement]:
    headers = {} if key is None else {"Idempotency-Key": key}
    return Call("POST", "/v1/measurements", Measurement, request, headers=headers, repeatable=key is not None)


def _at(measurement_id: str, rest: str = "") -> str:
    return f"/v1/measurements/{quote(measurement_id, safe='')}{rest}"


def _get(measurement_id: str) -> Call[Measurement]:
    return Call("GET", _at(measurement_id), Measurement)


def _page(limit: int, cursor: str | None) -> Call[MeasurementPage]:
    return Call("GET", "/v1/measurements", MeasurementPage, query={"limit": limit, "cursor": cursor})


def _follow(measurement_id: str, after: str | None) -> Call[Any]:
    headers = {} if after is None else {"Last-Event-ID": after}
    return Call("GET", _at(measurement_id, "/events"), bytes, headers=headers)


def _cancel(measurement_id: str) -> Call[Measurement]:
    return Call("POST", _at(measurement_id, "/cancel"), Measurement)


def _delete(measurement_id: str) -> Call[bytes]:
    # A second try would find nothing, and could not say who has deleted it.
    return Call("DELETE", _at(measurement_id), bytes, repeatable=False)


def _acknowledge(series: DriftSeries) -> Call[DriftSeries]:
    seen = {} if series.alarm is None else {"raised_at": series.alarm["raised_at"]}
    return Call("POST", f"/v1/drift/{quote(series.id, safe='')}/acknowledge", DriftSeries, seen)


def _result(measurement_id: str) -> Call[dict[str, Any]]:
    return Call("GET", _at(measurement_id, "/result"), dict[str, Any])


def _report(measurement_id: str) -> Call[bytes]:
    return Call("GET", _at(measurement_id, "/report"), bytes, headers={"Accept": "text/html"})


_BUDGET: Call[Budget] = Call("GET", "/v1/budget", Budget)
_COSTS: Call[Costs] = Call("GET", "/v1/costs", Costs)
_DRIFT: Call[DriftList] = Call("GET", "/v1/drift", DriftList)


def _event(event: httpx2.ServerSentEvent) -> MeasurementEvent:
    data = event.data.encode()
    if event.event == "error":
        members = msgspec.json.decode(data)
        problem = read_problem(int(members.get("status", 500)), data)
        if problem.status == 503:  # the replica ends; another one goes on
            raise ConnectionFailedError("the service is shutting down")
        raise ProblemError(problem.status, problem.members)
    return MeasurementEvent(event.event, read_answer(data, dict[str, Any]), event.id)
