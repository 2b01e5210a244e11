"""The end of the service, as a chat that is being streamed hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

import msgspec

from cert.core.errors import OverloadedError
from cert.services.hamiltonian.options import Mode
from cert.services.hamiltonian.passthrough.errors import error_bytes
from cert.services.hamiltonian.passthrough.watching import Choice, Outcome

__all__ = ["Ending", "cut_short", "shutting_down"]

T = TypeVar("T")


class Ending:
    """Ends the wait for what comes next, once it is told to.

    Attributes:
        told: that it was.
    """

    def __init__(self) -> None:
        self.told = False
        self._clock: asyncio.Timeout | None = None

    def stop(self) -> None:
        """End it, on the event loop; what has come already is not taken back."""
        if self.told:
            return
        self.told = True
        if self._clock is not None:
            self._clock.reschedule(asyncio.get_running_loop().time())

    async def until(self, source: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Yield what a source yields; the source stays its maker's to close.

        Raises:
            OverloadedError: it was told to end.
        """
        while True:
            if self.told:
                raise shutting_down()
            try:
                async with asyncio.timeout(None) as self._clock:
                    found = await anext(source)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if self.told:
                    raise shutting_down() from None
                raise
            finally:
                self._clock = None
            yield found


def shutting_down() -> OverloadedError:
    """Return why a stream ends before its answer is whole."""
    return OverloadedError("the service is shutting down; ask again", retry_after=5.0)


def cut_short(mode: Mode) -> bytes:
    """Return the data of the last event of such a stream: an error, with a verdict on nothing measured."""
    error = shutting_down()
    outcome = Outcome((Choice(0, None, error.code),), mode)
    told = msgspec.json.decode(error_bytes(error))
    return msgspec.json.encode({**told, "cert": outcome.to_dict()})
