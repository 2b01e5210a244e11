"""The machine's clock, as everything that waits uses it."""

from __future__ import annotations

import asyncio
import threading

from cert.core.clock import SYSTEM_CLOCK


def test_a_wait_takes_its_time() -> None:
    """A wait that returns early sends retries in bursts."""
    began = SYSTEM_CLOCK.monotonic()
    SYSTEM_CLOCK.sleep(0.02)
    assert SYSTEM_CLOCK.monotonic() - began >= 0.015


def test_an_async_wait_lets_others_run() -> None:
    """A wait that blocks the event loop stops every other request of a service."""
    ran = threading.Event()

    async def scenario() -> bool:
        asyncio.get_running_loop().call_soon(ran.set)
        await SYSTEM_CLOCK.sleep_async(0.01)
        return ran.is_set()

    assert asyncio.run(scenario())
