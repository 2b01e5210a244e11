"""One replica for the chaos tests: many concurrent calls under a shared budget, until it is used up.

Usage: limits_worker.py URL LIMIT WORKERS threads|tasks BILLS

BILLS stands for the vendor: each call that goes out appends what it costs, before it is settled.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time

from cert.core.budget import Budget, Reservation
from cert.core.errors import BudgetExceededError, StoreError
from cert.core.redis_scripts import RedisScripts

MOST = 10
EXPIRES_AFTER = 6.0


def bill(book: int, cost: int) -> None:
    """Append one line; a short write with O_APPEND is whole or not at all, even if the process is killed."""
    os.write(book, f"{cost}\n".encode())


def outcome() -> tuple[str, int]:
    """How a call ends, and what the vendor bills."""
    kind = random.choices(["settle", "keep", "release"], [8, 1, 1])[0]
    return kind, 0 if kind == "release" else random.randint(0, MOST)


async def call_until_used_up(budget: Budget, book: int) -> None:
    while True:
        try:
            reservation = await budget.reserve_async(MOST, "agent")
        except BudgetExceededError:
            return
        except StoreError:
            await asyncio.sleep(0.05)
            continue
        await asyncio.sleep(random.uniform(0.1, 0.4))
        kind, cost = outcome()
        if cost:
            bill(book, cost)
        await asyncio.sleep(random.uniform(0.1, 0.4))
        if kind == "settle":
            await reservation.settle_async(cost)
        elif kind == "keep":
            await reservation.keep_async()
        else:
            await reservation.release_async()


def call_until_used_up_in_a_thread(budget: Budget, book: int) -> None:
    while True:
        try:
            reservation: Reservation = budget.reserve(MOST)
        except BudgetExceededError:
            return
        except StoreError:
            time.sleep(0.05)
            continue
        time.sleep(random.uniform(0.1, 0.4))
        cost = random.randint(0, MOST)
        bill(book, cost)
        time.sleep(random.uniform(0.1, 0.4))
        reservation.settle(cost)


def main() -> None:
    url, limit, workers, kind, bills = sys.argv[1:]
    scripts = RedisScripts(url)
    budget = Budget(int(limit), int(limit), redis=scripts, expires_after=EXPIRES_AFTER)
    book = os.open(bills, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def tasks() -> None:
        await asyncio.gather(*(call_until_used_up(budget, book) for _ in range(int(workers))))
        await scripts.aclose()

    if kind == "tasks":
        asyncio.run(tasks())
        return
    threads = [
        threading.Thread(target=call_until_used_up_in_a_thread, args=(budget, book))
        for _ in range(int(workers))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
