"""Ctrl-C while a command works."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

from cert.cli.interrupt import stopped_by_ctrl_c

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture(autouse=True)
def handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_asks_and_the_second_insists():
    """Work that ends in good order keeps what there is; work that hangs can still be ended."""
    asked = threading.Event()

    def press_twice() -> None:
        with stopped_by_ctrl_c(asked.set) as interrupt:
            press()
            assert asked.wait(30)
            assert interrupt.happened
            press()
            asked.wait(30)

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_work_that_takes_a_lock_while_it_is_interrupted_does_not_hang():
    """A handler runs in the middle of anything, also of what holds the lock that stopping needs."""
    lock, asked = threading.Lock(), threading.Event()

    def stop() -> None:
        with lock:
            asked.set()

    with stopped_by_ctrl_c(stop):
        with lock:
            press()
        assert asked.wait(30)


def test_nothing_is_asked_without_ctrl_c():
    """A run that ends by itself was not stopped."""
    asked: list[bool] = []
    with stopped_by_ctrl_c(lambda: asked.append(True)) as interrupt:
        pass
    assert not interrupt.happened
    assert not asked


def test_a_process_that_ignores_interrupts_goes_on():
    """A job in the background of a script (`nohup`, `&`) must not end with its terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stopped_by_ctrl_c(lambda: pytest.fail("stopped")) as interrupt:
        press()
    assert not interrupt.happened


def test_outside_the_main_thread_signals_are_left_alone():
    """A program that runs commands in threads keeps its own handlers."""
    seen = []

    def work() -> None:
        with stopped_by_ctrl_c(lambda: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
