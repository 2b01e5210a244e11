"""Scripts on a Redis over real sockets: found, reused, given back, and every failure as one of ours."""

from __future__ import annotations

import asyncio
import builtins
import socket
import threading
from collections.abc import Iterator

import pytest
from fakeredis import TcpFakeServer

from cert.core.errors import ConfigurationError, DependencyMissingError, StoreError
from cert.core.redis_scripts import RedisScripts, Script

COUNT = Script("return {redis.call('INCRBY', KEYS[1], ARGV[1])}")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
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
