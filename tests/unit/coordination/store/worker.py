"""A process that asks fifty questions through a store; its vendor writes each bill into a file.

Arguments: store, file of bills, seconds for an answer, and how it dies: ``lives``, or ``paid:N`` (kill -9 of
itself when the Nth answer has been billed and not yet arrived) or ``kept:N`` (when the Nth has been kept).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from cert.coordination.chat import ChatRequest, Completion
from cert.coordination.scripted import ScriptedChat
from cert.coordination.store import CachedChatClient, open_store

QUESTIONS = 50


class Vendor:
    """Bills, and answers some time later."""

    def __init__(self, bills: str, seconds: float, dies_at: int) -> None:
        self.bills, self.seconds, self.dies_at = bills, seconds, dies_at
        self.billed = 0

    async def __call__(self, request: ChatRequest) -> str:
        question = request.messages[0].content
        with open(self.bills, "a", encoding="utf-8") as file:
            file.write(question + "\n")
        self.billed += 1
        if self.billed == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(self.seconds)
        return f"answer to {question}"


async def main() -> None:
    """Ask, and print what was told and what may be lost."""
    target, bills, seconds, death = sys.argv[1:]
    how, _, number = death.partition(":")
    vendor = Vendor(bills, float(seconds), int(number) if how == "paid" else -1)
    kept = 0
    async with open_store(target) as store:
        client = CachedChatClient(ScriptedChat(otherwise=vendor), store)
        before = await store.lost()

        async def ask(number: int) -> Completion:
            nonlocal kept
            told = await client.complete(f"question {number}")
            kept += 1
            if how == "kept" and kept == int(death.partition(":")[2]):
                os.kill(os.getpid(), signal.SIGKILL)
            return told

        told = []
        for first in range(0, QUESTIONS, 10):
            told += await asyncio.gather(*(ask(number) for number in range(first, first + 10)))
        assert [one.text for one in told] == [f"answer to question {n}" for n in range(QUESTIONS)]
        sys.stdout.write(f"{before}; paid for {sum(not one.from_cache for one in told)}\n")


if __name__ == "__main__":
    asyncio.run(main())
