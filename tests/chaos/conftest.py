"""Servers that the chaos tests start, stop, kill and fill."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis


class RedisServer:
    """A Redis of this test's own, which keeps every write it has acknowledged, or (not durable) none."""

    def __init__(self, program: str, folder: Path, *, durable: bool) -> None:
        self.program, self.folder, self.durable = program, folder, durable
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Start it, with what it has kept."""
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "save": "",
            "appendonly": "yes" if self.durable else "no",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
        }
        self.process = subprocess.Popen(
            [self.program, *(str(part) for name, value in options.items() for part in (f"--{name}", value))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with self.client() as client:
            for _ in range(200):
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    time.sleep(0.05)
        raise RuntimeError("redis-server did not start")

    def client(self) -> redis.Redis:
        """A plain client, for looking."""
        return redis.Redis(port=self.port)

    def stop(self) -> None:
        """Let it hang: connections stay, answers do not come."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again, what was asked meanwhile included."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it without warning."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()


def _running(program: str, folder: Path, *, durable: bool) -> Iterator[RedisServer]:
    server = RedisServer(program, folder, durable=durable)
    yield server
    server.kill()


@pytest.fixture
def durable_redis(system_tool: Callable[[str], str], tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis as the documentation asks for it."""
    yield from _running(system_tool("redis-server"), tmp_path, durable=True)


@pytest.fixture
def forgetful_redis(system_tool: Callable[[str], str], tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis without persistence: what was in it is gone when it restarts."""
    yield from _running(system_tool("redis-server"), tmp_path, durable=False)
