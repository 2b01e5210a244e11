"""Scripts on a Redis over real sockets: found, reused, given back, and every failure as one of ours."""

from __future__ import annotations

import asyncio
import builtins
import os
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from fakeredis import TcpFakeServer

from cert.core.errors import ConfigurationError, DependencyMissingError, StoreError
from cert.core.redis_scripts import RedisScripts, Script

COUNT = Script("return {redis.call('INCRBY', KEYS[1], ARGV[1])}")


class PatientServer(TcpFakeServer):
    """Lets as many callers wait for a connection as a real Redis does, and not five."""

    request_queue_size = 511


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = PatientServer(("127.0.0.1", 0), server_type="redis")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_script_runs_the_first_time_and_after_the_connections_were_closed(url: str) -> None:
    """A Redis that was restarted knows no script, and an idle connection dies: both must pass unseen."""
    scripts = RedisScripts(url)
    assert scripts.run(COUNT, ["plain"], [2]) == [2]
    assert scripts.run(COUNT, ["plain"], [3]) == [5]
    scripts.close()
    assert scripts.run(COUNT, ["plain"], [1]) == [6]
    scripts.close()


def test_each_event_loop_has_connections_of_its_own(url: str) -> None:
    """A connection of another loop hangs or fails; the loop of a finished request is gone for good."""
    scripts = RedisScripts(url)

    async def twice() -> list[int]:
        answers = [await scripts.run_async(COUNT, ["loops"], [1]) for _ in range(2)]
        await scripts.aclose()
        answers.append(await scripts.run_async(COUNT, ["loops"], [1]))
        await scripts.aclose()
        return [answer[0] for answer in answers]

    assert asyncio.run(twice()) == [1, 2, 3]
    assert asyncio.run(twice()) == [4, 5, 6]
    asyncio.run(scripts.aclose())


def test_more_callers_than_connections_all_get_their_own_answers(url: str) -> None:
    """A busy service would fail calls for want of a connection, or hand one caller another's answer."""
    scripts = RedisScripts(url, timeout=20.0)
    sums: dict[int, list[int]] = {}

    def count(number: int) -> None:
        sums[number] = [scripts.run(COUNT, [f"many-{number}"], [number])[0] for _ in range(5)]

    threads = [threading.Thread(target=count, args=(number,)) for number in range(1, 49)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == {number: [number * times for times in range(1, 6)] for number in range(1, 49)}
    scripts.close()

    async def all_at_once() -> list[list[int]]:
        answers = await asyncio.gather(*(scripts.run_async(COUNT, [f"tasks-{n}"], [n]) for n in range(1, 49)))
        await scripts.aclose()
        return answers

    assert asyncio.run(all_at_once()) == [[number] for number in range(1, 49)]


def test_a_cancelled_question_leaves_its_answer_to_nobody(url: str) -> None:
    """The next caller on the same connection would read it as its own: dollars, permits, all mixed up."""
    scripts = RedisScripts(url)
    chance = random.Random(1)

    async def scenario() -> None:
        for turn in range(30):
            tasks = [
                asyncio.create_task(scripts.run_async(COUNT, [f"cancelled-{turn}-{n}"], [n]))
                for n in range(5)
            ]
            await asyncio.sleep(chance.uniform(0, 0.004))
            chance.choice(tasks).cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            for number, answer in enumerate(answers):
                assert answer == [number] or isinstance(answer, asyncio.CancelledError)
        await scripts.aclose()

    asyncio.run(scenario())


def test_a_loop_that_stood_still_does_not_take_redis_for_gone(url: str) -> None:
    """A long computation on the event loop would close the budget, with the answer there in the socket."""

    async def scenario() -> list[int]:
        scripts = RedisScripts(url, timeout=0.1)
        await scripts.run_async(COUNT, ["still"], [1])
        asked = asyncio.create_task(scripts.run_async(COUNT, ["still"], [1]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(0.5)
        answer = await asked
        await scripts.aclose()
        return answer

    assert asyncio.run(scenario()) == [2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_connections_of_its_own(url: str) -> None:
    """Two processes on one connection read each other's answers."""
    scripts = RedisScripts(url)
    assert scripts.run(COUNT, ["parent"], [1]) == [1]
    child = os.fork()
    if child == 0:
        works = False
        try:
            works = [scripts.run(COUNT, ["child"], [10])[0] for _ in range(20)] == list(range(10, 210, 10))
        finally:
            os._exit(0 if works else 1)
    assert [scripts.run(COUNT, ["parent"], [1])[0] for _ in range(20)] == list(range(2, 22))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    scripts.close()


def test_no_redis_is_a_store_error_that_names_no_password() -> None:
    """Callers fail closed on this class; another one would pass for a defect, or show the password."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        scripts = RedisScripts(f"redis://:hunter2@127.0.0.1:{unused.getsockname()[1]}/0")
    with pytest.raises(StoreError) as caught:
        scripts.run(COUNT, ["k"], [1])
    assert caught.value.context == {"store": "redis", "reason": "ConnectionError"}
    assert "hunter2" not in f"{caught.value.to_dict()}"

    async def ask() -> None:
        with pytest.raises(StoreError):
            await scripts.run_async(COUNT, ["k"], [1])
        await scripts.aclose()

    asyncio.run(ask())


def test_a_redis_that_never_answers_is_given_up(silent_port: int) -> None:
    """Every call of a service would hang with it."""
    scripts = RedisScripts(f"redis://127.0.0.1:{silent_port}/0", timeout=0.1)
    with pytest.raises(StoreError) as caught:
        scripts.run(COUNT, ["k"], [1])
    assert caught.value.context["reason"] == "TimeoutError"

    async def ask() -> None:
        with pytest.raises(StoreError) as late:
            await scripts.run_async(COUNT, ["k"], [1])
        assert late.value.context["reason"] == "TimeoutError"
        await scripts.aclose()

    asyncio.run(asyncio.wait_for(ask(), 10))


def test_a_wrong_address_is_refused_at_once_without_being_repeated() -> None:
    """A mistyped URL is found at the start of the service, and may hold a password."""
    with pytest.raises(ConfigurationError) as caught:
        RedisScripts("http://:hunter2@redis:6379")
    assert "hunter2" not in f"{caught.value.to_dict()}"
    assert "redis://" in (caught.value.hint or "")
    with pytest.raises(ConfigurationError, match="URL is needed"):
        RedisScripts()


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """`No module named redis` does not say what to install."""
    real = builtins.__import__

    def without(name, *rest, **options):
        if name == "redis":
            raise ModuleNotFoundError(name=name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DependencyMissingError) as caught:
        RedisScripts("redis://127.0.0.1:1/0")
    assert "cert-framework[redis]" in (caught.value.hint or "")
