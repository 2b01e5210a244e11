"""The suite's own guards: no test leaves this machine, and nothing is left out in silence."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["pytester"]

OUTSIDE = "192.0.2.1"  # TEST-NET-1 of RFC 5737: never anybody's server
CONFTEST = Path(__file__).parents[2] / "conftest.py"


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A suite of its own that has this suite's conftest, and the plugin that it loads from beside it."""
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    plugin = CONFTEST.with_name("core_error_paths.py")
    (pytester.path / plugin.name).write_text(plugin.read_text(encoding="utf-8"), encoding="utf-8")
    return pytester


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_connecting_outside_is_refused(method: str, network_guard: Any) -> None:
    """Without this a test could pass only where a server happens to answer."""
    with socket.socket() as client, pytest.raises(RuntimeError, match="loopback"):
        getattr(client, method)((OUTSIDE, 80))
    network_guard.attempts.clear()


def test_sending_a_datagram_outside_is_refused(network_guard: Any) -> None:
    """UDP needs no connection, so it is guarded by itself."""
    with socket.socket(type=socket.SOCK_DGRAM) as client, pytest.raises(RuntimeError, match="loopback"):
        client.sendto(b"x", (OUTSIDE, 53))
    network_guard.attempts.clear()


def test_looking_up_a_name_is_refused(network_guard: Any) -> None:
    """A look-up already tells a stranger what the code under test wanted."""
    with pytest.raises(RuntimeError, match="loopback"):
        socket.getaddrinfo("example.invalid", 443)
    network_guard.attempts.clear()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_stays_open(host: str) -> None:
    """Servers that tests start on this machine stay reachable."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection((host, server.getsockname()[1]), timeout=5).close()
        server.accept()[0].close()


def test_a_swallowed_attempt_still_fails_the_test(suite: pytest.Pytester) -> None:
    """Libraries catch every error of a connection; the attempt must surface all the same."""
    suite.makepyfile(
        f"""
        import contextlib, socket

        def test_swallows():
            with contextlib.suppress(Exception), socket.socket() as client:
                client.connect(("{OUTSIDE}", 80))
        """
    )
    result = suite.runpytest_subprocess("-p", "no:cacheprovider", "-o", "markers=system")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([f"*tried to reach {OUTSIDE}*"])


def test_a_skipped_system_test_fails_where_nothing_may_be_missing(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make test-system` must not go green because a tool was missing."""
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.system
        def test_needs_a_tool(system_tool):
            system_tool("no-such-tool")
        """
    )
    arguments = ("-p", "no:cacheprovider", "-o", "markers=system")
    suite.runpytest_subprocess(*arguments).assert_outcomes(skipped=1)
    monkeypatch.setenv("CERT_REQUIRE_SYSTEM", "1")
    result = suite.runpytest_subprocess(*arguments)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_what_a_marker_leaves_out_is_named(suite: pytest.Pytester) -> None:
    """A developer sees which modules `make test` did not run, and what would run them."""
    suite.makepyfile(
        test_some="""
        import pytest

        def test_runs(): pass

        @pytest.mark.system
        def test_left_out(): pass
        """
    )
    result = suite.runpytest_subprocess("-p", "no:cacheprovider", "-o", "markers=system", "-m", "not system")
    result.stdout.fnmatch_lines(["*deselected: 1 need Debian packages*", "test_some.py: 1"])
