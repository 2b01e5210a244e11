"""Whether the process that wrote something is surely dead, so that nobody has to wait for it.

A process is named by the boot of the machine, its namespace of process ids, its id and the moment of its
start. Only from the same boot and namespace can its death be seen; for all others (another machine, another
container, a system without ``/proc``) time has to tell.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

__all__ = ["surely_dead", "this_process"]

_PROC = Path("/proc")


def this_process() -> str:
    """Return the name of this process; a forked child has its own."""
    return _name(os.getpid())


def surely_dead(name: str) -> bool:
    """Say whether the process is gone; ``False`` where that cannot be seen from here."""
    boot, namespace, number, started = name.split("/")
    here = this_process().split("/")
    if not boot or [boot, namespace] != here[:2]:
        return False
    return _started(int(number)) != started


@functools.lru_cache(maxsize=8)
def _name(number: int) -> str:
    started = _started(number)
    if started is None:
        return f"//{number}/"
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = os.stat(_PROC / "self/ns/pid").st_ino
    except OSError:
        return f"//{number}/"
    return f"{boot}/{namespace}/{number}/{started}"


def _started(number: int) -> str | None:
    """Return the ticks from the boot to the start of a process, ``None`` where there is none that runs."""
    try:
        told = (_PROC / str(number) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name of the program is in parentheses and may hold any of them; the state is the field after it.
    fields = told.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]
