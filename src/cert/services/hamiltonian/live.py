"""A generation as events: tokens with their signals, the alarm, and the analysis of the whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from cert.core.errors import GenerationTimeoutError, OverloadedError
from cert.services.common.errors import problem_of
from cert.services.common.sse import Event
from cert.services.hamiltonian.answers import record_of
from cert.services.hamiltonian.state import HamiltonianState
from cert.trajectory.gate import json_number
from cert.trajectory.streaming import AsyncTrajectoryStream, StreamedToken
from cert.trajectory.types import TrajectoryAnalysis

__all__ = ["events_of"]


async def events_of(
    state: HamiltonianState,
    tenant: str,
    name: str,
    tokens: AsyncTrajectoryStream,
    *,
    group: str | None,
    detail: str,
) -> AsyncGenerator[Event, None]:
    """Yield ``token`` for each token, ``alarm`` once where the gate raises it, and at last ``analysis``.

    A generation whose time is over ends with ``error``, which has what was measured until then as
    ``partial``; so does one that the end of the service cuts short.
    """
    count, alarmed = 0, False
    try:
        async with tokens:
            with state.live.open(tokens.stop):
                async for token in tokens:
                    count += 1
                    yield Event("token", _token(token), id=str(count))
                    if token.alarm and not alarmed:
                        alarmed = True
                        at = count - 1 if token.metrics is None else token.metrics.step
                        yield Event("alarm", {"token": at}, id=f"{count}-alarm")
        entry = await state.recent.keep(tenant, tokens.analysis, model=name, source="stream", group=group)
        record = record_of(entry, detail)
        stopped = tokens.analysis.generation.finish_reason == "early_stop"
        if state.live.ending and stopped and tokens.analysis.early_stop is None:
            error = OverloadedError("the service is shutting down; ask again", retry_after=5.0)
            yield Event("error", problem_of(error) | {"partial": record}, id="end")
        else:
            yield Event("analysis", record, id="end")
    except GenerationTimeoutError as error:
        problem = problem_of(error)
        if isinstance(error.partial, TrajectoryAnalysis):
            entry = await state.recent.keep(tenant, error.partial, model=name, source="stream", group=group)
            problem["partial"] = record_of(entry, detail)
        yield Event("error", problem, id="end")


def _token(token: StreamedToken) -> dict[str, Any]:
    return {
        "text": token.text,
        "token_id": token.token_id,
        "alarm": token.alarm,
        "entropy_lower": json_number(token.entropy_lower),
        "entropy_upper": json_number(token.entropy_upper),
        "signals": None if token.metrics is None else token.metrics.to_dict(),
    }
