"""Ctrl-C that ends the work in good order: the first one asks, the second one insists."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["Interrupt", "stopped_by_ctrl_c"]


class Interrupt:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.happened = False


@contextlib.contextmanager
def stopped_by_ctrl_c(stop: Callable[[], object]) -> Iterator[Interrupt]:
    """Call ``stop`` on the first Ctrl-C during a block, on another thread; a second one is as usual.

    Only the main thread of a process hears of signals: on another one this does nothing, and neither does it
    in a process that was started to ignore them (``nohup``, a job in the background).

    Raises:
        KeyboardInterrupt: on the second Ctrl-C.
    """
    interrupt = Interrupt()
    on_main_thread = threading.current_thread() is threading.main_thread()
    if not on_main_thread or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield interrupt
        return
    # The one thing that is safe in a signal handler: any lock may be held by the code that it interrupts.
    told: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def first(_number: int, _frame: FrameType | None) -> None:
        interrupt.happened = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        told.put(True)

    def wait() -> None:
        if told.get():
            stop()

    before = signal.signal(signal.SIGINT, first)
    thread = threading.Thread(target=wait, name="cert-interrupt", daemon=True)
    thread.start()
    try:
        yield interrupt
    finally:
        told.put(False)
        signal.signal(signal.SIGINT, before)
        thread.join()
