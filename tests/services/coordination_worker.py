"""A replica of the Coordination service in a process of its own, which may kill itself at work.

``python -m tests.services.coordination_worker DATABASE_URL KEY BILLS DIES_AT``
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from pathlib import Path

from pydantic import SecretStr

from cert.coordination.chat import ChatRequest
from cert.coordination.scripted import ScriptedChat
from cert.core.config import Settings
from cert.services.common.drain import drain_of
from cert.services.coordination.app import create_app
from cert.services.coordination.options import CoordinationOptions


class Vendor:
    """Bills each call at once, as vendors do, and answers some time later."""

    def __init__(self, bills: Path, dies_at: int) -> None:
        self._bills, self._dies_at, self._billed = bills, dies_at, 0

    async def __call__(self, request: ChatRequest) -> str:
        told = repr([(m.role, m.content) for m in request.messages]) + f"{request.draw} {request.seed}"
        with self._bills.open("a", encoding="utf-8") as file:
            file.write(hashlib.sha256(told.encode()).hexdigest() + "\n")
        self._billed += 1
        if self._billed == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(0.01)
        return "42"


async def main() -> None:
    """Work until SIGTERM."""
    url, key, bills, dies_at = sys.argv[1:]
    options = CoordinationOptions(
        database_url=SecretStr(url), key=SecretStr(key), lease_seconds=60.0, concurrent=2
    )
    vendor = Vendor(Path(bills), int(dies_at))
    app = create_app(Settings(), clients={"scripted": ScriptedChat(otherwise=vendor)}, options=options)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with app.router.lifespan_context(app):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await ended.wait()
        drain_of(app).begin()


if __name__ == "__main__":
    asyncio.run(main())
