"""The pipe of the logs: one line a record, from everybody, with the correlation id, never raising."""

from __future__ import annotations

import asyncio
import contextvars
import io
import json
import logging
import re
import resource
import subprocess
import sys
import threading
import warnings

import pytest
import structlog

from cert.core.config import Settings
from cert.core.correlation import correlated
from cert.core.errors import ConfigurationError
from cert.core.events import (
    BudgetBegun,
    BudgetRefused,
    CallFinished,
    CircuitChanged,
    ComponentDegraded,
    Event,
    EventHub,
    GenerationFinished,
    HealthChanged,
    RetryScheduled,
)
from cert.observability.log_events import log_observer
from cert.observability.log_file import FileLines
from cert.observability.logging import configure_logging, get_logger
from cert.observability.losses import lost_lines


def test_a_line_is_one_json_object_with_the_usual_fields(configure, tmp_path, lines):
    """A log collector finds time, level, logger, event and id where it looks for them."""
    configure("info", "json", "file", tmp_path / "log")
    with correlated("req-1"):
        get_logger("cert.x").info("started", count=3)
    [line] = lines(tmp_path / "log")
    assert {key: line[key] for key in ("level", "logger", "event", "correlation_id", "count")} == {
        "level": "info", "logger": "cert.x", "event": "started", "correlation_id": "req-1", "count": 3,
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])


@pytest.mark.parametrize("output", ["stderr", "stdout"])
def test_lines_go_to_the_stream_that_is_named(configure, capsys, output):
    """A program whose results are on stdout must be able to keep its logs off it."""
    configure(output=output)
    get_logger().info("here")
    out, err = capsys.readouterr()
    said, silent = (out, err) if output == "stdout" else (err, out)
    assert "here" in said
    assert said.count("\n") == 1
    assert silent == ""


def test_libraries_and_warnings_go_through_the_same_pipe(configure, tmp_path, lines):
    """A library's line without id, level or redaction would be lost for the search, or a leak."""
    configure("info", "json", "file", tmp_path / "log")
    with correlated("req-2"):
        logging.getLogger("some.library").warning("refused %s", "Bearer abcdefgh1234", extra={"a": 1})
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old\nforged", UserWarning, stacklevel=1)
        structlog.get_logger("theirs").info("from structlog", prompt="secret plan")
    said = lines(tmp_path / "log")
    assert [line["correlation_id"] for line in said] == ["req-2"] * len(said)
    assert said[0]["event"] == "refused Bearer [redacted]"
    assert said[1]["logger"] == "py.warnings"
    assert "secret plan" not in json.dumps(said)


def test_libraries_speak_from_warning_on_and_bodies_of_requests_never(configure, tmp_path, lines):
    """At debug level the vendors' clients write whole requests, prompts and keys included."""
    configure("debug", "json", "file", tmp_path / "log", library_level="debug")
    for name in ("anthropic._base_client", "openai", "httpx", "httpcore.http11"):
        logging.getLogger(name).debug("Request options: the whole prompt")
    logging.getLogger("other").debug("fine")
    assert [line["event"] for line in lines(tmp_path / "log")] == ["fine"]
    configure("debug", "json", "file", tmp_path / "log2")
    logging.getLogger("other").info("too quiet")
    get_logger("cert.x").debug("ours")
    assert [line["event"] for line in lines(tmp_path / "log2")] == ["ours"]


ATTACKS = [
    'ok\n{"level":"critical","event":"forged"}',
    "ok\r\n2026-01-01T00:00:00Z critical forged",
    "ok\u2028forged\u2029forged\x85forged\x0bforged\x0cforged",
    "\x1b[2K\x1b[1A\x1b]0;title\x07\x9b31m",
    "a\x00b\x08\x08\x7f",
    "\u202egnp.exe\u2066",
    "\ud800",
    '" level=critical event="forged',
    "x=1 level=critical",
]


@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_no_value_can_forge_a_line(configure, tmp_path, format, attack):
    """Text from users and models reaches logs; an attacker must not write history with it."""
    path = tmp_path / "log"
    configure("info", format, "file", path)
    log = get_logger("cert.x")
    log.info("value", note=attack)
    log.info(attack)
    log.info("key", **{attack: 1})
    log.info("deep", note=[{attack: attack}])
    logging.getLogger("lib").warning("arg %s", attack)
    text = path.read_bytes().decode("utf-8")
    assert len(text.splitlines()) == 5
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", text)
    for line in text.splitlines():
        if format == "json":
            assert json.loads(line)["level"] in ("info", "warning")
        else:
            assert re.match(r"\S+Z (info|warning) ", line)
            assert "level=critical" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", line)


PRIVATE_KEY = "\n-----BEGIN PRIVATE KEY-----\nbGludGVy\nbGludGVy\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize("format", ["json", "console"])
def test_an_exception_is_told_without_locals_and_cannot_forge(configure, tmp_path, format):
    """A traceback with the values of variables holds the prompt; one with raw breaks forges lines."""
    path = tmp_path / "log"
    configure("info", format, "file", path)

    def work(prompt: str) -> None:
        raise ValueError(
            "boom\n2026-01-01T00:00:00.000000Z critical forged\x1b[0m sk-ant-" + "a" * 20 + PRIVATE_KEY
        )

    for logger in (get_logger("cert.x"), logging.getLogger("lib")):
        try:
            work("the secret" + " plan")
        except ValueError:
            logger.exception("it failed")
    text = path.read_text("utf-8")
    assert "the secret plan" not in text
    assert "sk-ant-" + "a" * 20 not in text
    assert "bGludGVy" not in text
    assert "\x1b" not in text
    starts = [line for line in text.splitlines() if re.match(r"\{|\d{4}-", line)]
    assert len(starts) == 2
    assert "ValueError: boom" in text
    assert all(line.startswith(("    | ", "{", "2")) for line in text.splitlines())


def test_the_id_is_carried_into_tasks_and_threads(configure, tmp_path, lines):
    """What is done for one request is found together, wherever it ran."""
    configure("info", "json", "file", tmp_path / "log")
    log = get_logger("cert.x")

    async def both() -> None:
        with correlated("task"):
            await asyncio.gather(asyncio.to_thread(log.info, "to_thread"), asyncio.create_task(said("task")))

    async def said(word: str) -> None:
        log.info(word)

    asyncio.run(both())
    with correlated("thread"):
        thread = threading.Thread(target=contextvars.copy_context().run, args=(log.info, "thread"))
        thread.start()
        thread.join()
    assert {line["event"]: line.get("correlation_id") for line in lines(tmp_path / "log")} == {
        "to_thread": "task", "task": "task", "thread": "thread",
    }  # fmt: skip


def test_the_observer_tells_events_with_their_own_time_and_id(configure, tmp_path, lines):
    """A line written later by the observers' thread belongs to the request and the moment it is about."""
    configure("debug", "json", "file", tmp_path / "log")
    hub = EventHub()
    hub.observe(log_observer())
    with correlated("req-3"):
        hub.emit(CircuitChanged(circuit="judge", before="closed", after="open", at=0.5))
        hub.emit(CallFinished(operation="judge", outcome="ok", seconds=1.0, attempts=1))
        hub.emit(GenerationFinished(model="m", verdict="pass", tokens=3, seconds=0.1, stages=(("a", 0.1),)))
    assert hub.flush()
    opened, call, generation = lines(tmp_path / "log")
    assert opened["timestamp"] == "1970-01-01T00:00:00.500000Z"
    assert (opened["level"], call["level"], generation["level"]) == ("error", "debug", "info")
    assert {line["correlation_id"] for line in (opened, call, generation)} == {"req-3"}
    assert generation["stages"] == [["a", 0.1]]
    assert generation["tokens"] == 3
    assert hub.failures == 0


def test_the_observer_speaks_up_when_somebody_should_look(configure, tmp_path, lines):
    """An operator who reads warnings and errors only must see refusals and reduced ways of working."""
    configure("warning", "json", "file", tmp_path / "log")
    observe = log_observer()
    for event in (
        BudgetBegun(budget="b"),
        RetryScheduled(operation="judge", attempt=1, wait_seconds=0.5, error="upstream"),
        CircuitChanged(circuit="judge", before="closed", after="open"),
        CircuitChanged(circuit="judge", before="open", after="half_open"),
        HealthChanged(component="redis", before="healthy", after="degraded"),
        HealthChanged(component="redis", before="degraded", after="unhealthy"),
        BudgetRefused(budget="b", micro_dollars=1),
        CallFinished(operation="judge", outcome="upstream", seconds=1.0, attempts=6),
        ComponentDegraded(component="budget", mode="fail_closed", active=True),
        ComponentDegraded(component="budget", mode="fail_closed", active=False),
        CallFinished(operation="judge", outcome="ok", seconds=1.0, attempts=1),
    ):
        observe(event)
    assert [(line["event"], line["level"]) for line in lines(tmp_path / "log")] == [
        ("budget_begun", "warning"),
        ("retry_scheduled", "warning"),
        ("circuit_changed", "error"),
        ("health_changed", "warning"),
        ("health_changed", "error"),
        ("budget_refused", "warning"),
        ("call_finished", "warning"),
        ("component_degraded", "error"),
    ]


def test_an_event_whose_fields_are_named_like_the_lines_own_is_told(configure, tmp_path, lines):
    """A later event class with a field `level` or `event` must not make the observer raise."""
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Odd(Event):
        event: str = "x"
        level: str = "critical"
        prompt: str = "the secret plan"

    configure("info", "json", "file", tmp_path / "log")
    log_observer()(Odd())
    [line] = lines(tmp_path / "log")
    assert (line["event"], line["level"], line["event_"], line["level_"]) == (
        "event",
        "info",
        "x",
        "critical",
    )
    assert "secret plan" not in json.dumps(line)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"level": "loud"}, "loud"),
        ({"format": "xml"}, "xml"),
        ({"output": "syslog"}, "syslog"),
        ({"library_level": "INFO"}, "INFO"),
        ({"output": "file"}, "none is named"),
        ({"output": "file", "file": " "}, "none is named"),
        ({"max_bytes": 0}, "0"),
        ({"backups": -1}, "-1"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(options, named):
    """A typing error in the environment is told at start, with what would be right."""
    with pytest.raises(ConfigurationError, match=named):
        configure_logging(**options)


def test_a_file_that_cannot_be_written_is_refused_at_start(tmp_path):
    """A service that starts and then has no logs is found out when they are needed."""
    (tmp_path / "file").write_text("")
    (tmp_path / ".__locked.lock").mkdir()
    fifo = tmp_path / "fifo"
    subprocess.run(["mkfifo", str(fifo)], check=True)
    before = logging.getLogger().handlers[:]
    for path in (
        tmp_path,
        tmp_path / "missing" / "log",
        tmp_path / "file" / "log",
        tmp_path / "locked.log",
        tmp_path / ("x" * 300),
        fifo,
        "/proc/log",
        "/dev/null",
        "a\0b",
    ):
        with pytest.raises(ConfigurationError, match="log file"):
            configure_logging(output="file", file=path)
    assert logging.getLogger().handlers == before


def test_a_full_disk_is_counted_and_breaks_nothing(configure, tmp_path, lines, capsys):
    """When the disk is full the work goes on, the loss is counted, and no half line stays."""
    configure("info", "json", "file", tmp_path / "log")
    before = lost_lines()
    get_logger().info("before")
    room = (tmp_path / "log").stat().st_size + 100
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, usual[1]))
    try:
        for _ in range(3):
            get_logger().info("lost", note="x" * 500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    get_logger().info("after")
    assert lost_lines() - before == 3
    assert capsys.readouterr().err.count("log lines are being lost") <= 1
    assert [line["event"] for line in lines(tmp_path / "log")] == ["before", "after"]


def test_a_stream_of_few_characters_takes_every_line(configure, monkeypatch):
    """Under the C locale a name with an accent must not lose the line."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    configure("info", "console", "stdout")
    get_logger().info("Grüße", name="日本")
    assert raw.getvalue().decode("ascii").count("\n") == 1
    assert rb"Gr\xfc\xdfe" in raw.getvalue()


def test_a_message_whose_arguments_do_not_fit_is_told(configure, tmp_path, lines):
    """A library's broken log call still says that it happened."""
    configure("info", "json", "file", tmp_path / "log")
    record = logging.makeLogRecord({"msg": "%d items", "args": ("three",), "name": "lib"})
    logging.getLogger().handlers[-1].handle(record)  # by itself: pytest's own handler raises on it
    [line] = lines(tmp_path / "log")
    assert line["event"] == "%d items (TypeError)"


def test_configuring_again_replaces_and_undoing_restores(capsys):
    """A program that configures twice must not write each line twice; undoing leaves no trace."""
    root = logging.getLogger()
    plain = logging.StreamHandler(sys.stderr)
    root.addHandler(plain)
    try:
        before = root.handlers[:], root.level, logging.getLogger("httpx").level
        configure_logging("debug")
        undo = configure_logging("info")
        assert plain not in root.handlers
        logging.getLogger("lib").warning("once")
        assert capsys.readouterr().err.count("once") == 1
        undo()
        undo()
        assert (root.handlers, root.level, logging.getLogger("httpx").level) == (
            sorted(before[0], key=root.handlers.index), *before[1:],
        )  # fmt: skip
        assert not structlog.is_configured()
    finally:
        root.removeHandler(plain)


def test_importing_configures_nothing():
    """A library that takes over its user's logging is a nuisance."""
    program = (
        "import logging, structlog, cert.observability.logging as l, cert.observability.log_events as e;"
        "e.log_observer(); l.get_logger().info('hi', prompt='the secret plan');"
        "l.get_logger().warning('unconfigured', prompt='the secret plan');"
        "assert not logging.getLogger().handlers and not structlog.is_configured()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "unconfigured" in done.stderr
    assert "secret plan" not in done.stderr
    assert done.stdout == ""


def test_a_log_file_is_rotated_at_a_hundred_megabytes_ten_times(configure, tmp_path):
    """Without these bounds it fills the disk; with smaller ones the night of a fault is gone by morning."""
    configure("info", "json", "file", tmp_path / "log")
    handlers = logging.getLogger().handlers
    [file] = [handler for handler in handlers if isinstance(handler, FileLines)]
    assert (file.maxBytes, file.backupCount) == (100_000_000, 10)
    settings = Settings().logging
    assert (settings.max_bytes, settings.backups) == (100_000_000, 10)
