"""What holds for every test: no network, fixed randomness, few threads, and no silent gaps in the run."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import shutil
import socket
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

# Before anything imports torch or transformers.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Where several processes share the tests, each has a core of its own.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

# Programs that tests start find the package too, installed or not; pytest's `pythonpath` is for this process.
_sources = str(Path(__file__).parents[1] / "src")
os.environ["PYTHONPATH"] = os.pathsep.join([_sources, *filter(None, [os.environ.get("PYTHONPATH")])])

REQUIRE_SYSTEM = os.environ.get("CERT_REQUIRE_SYSTEM") == "1"
for _name in [name for name in os.environ if name.startswith("CERT_") and name != "CERT_REQUIRE_SYSTEM"]:
    del os.environ[_name]  # a developer's own settings must not decide a test

import hypothesis  # noqa: E402  (the environment comes first)
import pytest  # noqa: E402

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


# --- the network is off ---------------------------------------------------------------------------


class NetworkAccessError(RuntimeError):
    """A test tried to leave this machine.

    Not an OSError: code that tolerates a failing network must not hide it.
    """


class NetworkGuard:
    """Refuses what would leave loopback, and remembers that it was tried."""

    def __init__(self) -> None:
        self.attempts: list[str] = []
        self.open = False
        self._lookup = socket.getaddrinfo

    def check(self, host: object) -> None:
        """Raise if `host` is another machine."""
        if not self.open and not _is_this_machine(host):
            self.attempts.append(str(host))
            raise NetworkAccessError(f"a test tried to reach {host!r}; tests stay on loopback")

    def wrap(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A socket's method whose last argument is an address, guarded."""

        def guarded(connection: socket.socket, *arguments: Any) -> Any:
            address = arguments[-1] if arguments else None
            if connection.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple):
                self.check(address[0])
            return method(connection, *arguments)

        return guarded

    def look_up(self, host: Any, *arguments: Any, **options: Any) -> Any:
        """`socket.getaddrinfo`, guarded: a look-up already tells a stranger a name."""
        self.check(host)
        return self._lookup(host, *arguments, **options)


def _is_this_machine(host: object) -> bool:
    if host in (None, "", "localhost", b"localhost"):
        return True
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback


_guard = NetworkGuard()


def pytest_configure(config: pytest.Config) -> None:
    """Put the guard in before any test module is imported; measure the core's error paths."""
    for method in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, method, _guard.wrap(getattr(socket.socket, method)))
    socket.getaddrinfo = _guard.look_up
    config.pluginmanager.register(_core_error_paths().CoreErrorPaths(), "core_error_paths")


def _sendable(text: str) -> str:
    """Return a text without lone surrogates: hostile texts hold some, and no worker can send them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _core_error_paths() -> Any:
    # Tests are no package, so that there is no name to import it by.
    name = "core_error_paths"
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert specification is not None
        assert specification.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(autouse=True)
def network_guard(request: pytest.FixtureRequest) -> Iterator[NetworkGuard]:
    """Fail a test that tried to leave the machine even if the code under test swallowed the error."""
    _guard.attempts.clear()
    _guard.open = request.node.get_closest_marker("network") is not None
    yield _guard
    _guard.open = False
    if _guard.attempts:
        pytest.fail(f"the test tried to reach {', '.join(sorted(set(_guard.attempts)))}")


# --- nothing is left out in silence ---------------------------------------------------------------

REASONS = {
    "system": "need Debian packages: make test-system",
    "deployments": "need the tools that deploy: make verify-deployments",
    "network": "leave loopback: pytest -m network",
}
_deselected: list[pytest.Item] = []


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Remember what a marker expression leaves out."""
    _deselected.extend(items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was left out, and why."""
    for marker, reason in REASONS.items():
        modules = Counter(
            item.nodeid.partition("::")[0] for item in _deselected if item.get_closest_marker(marker)
        )
        if modules:
            terminalreporter.section(f"deselected: {modules.total()} {reason}", sep="-")
            for module, count in sorted(modules.items()):
                terminalreporter.line(f"{module}: {count}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make reports that workers can send. Under `make test-system`, where every tool was installed, a system
    test that skips has failed.
    """
    report = yield
    report.sections = [(name, _sendable(text)) for name, text in report.sections]
    if report.failed and _sendable(told := str(report.longrepr)) != told:
        report.longrepr = _sendable(told)
    if (
        REQUIRE_SYSTEM
        and report.skipped
        and not hasattr(report, "wasxfail")
        and item.get_closest_marker("system")
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped, but nothing may be missing here: {report.longrepr}"
    return report


@pytest.fixture
def system_tool() -> Callable[[str], str]:
    """Find a program by name: its path; skips where it is missing (which fails under `make test-system`)."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{name} is not installed; make test-system installs it")
        return path

    return find
