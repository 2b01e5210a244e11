"""A stream of tokens on a terminal, in a pipe, or for a program."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from cert.cli.result import as_json_line, show
from cert.cli.view import Painter, interval_text, legend, needs_marks, verdict_lines
from cert.core.visible import label
from cert.trajectory.gate import json_number

if TYPE_CHECKING:
    from cert.trajectory import TrajectoryAnalysis
    from cert.trajectory.streaming import StreamedToken

__all__ = ["View", "choose_view"]


class View(Protocol):
    """Shows the tokens of one generation as they come, and then the analysis of the whole."""

    def tokens(self) -> contextlib.AbstractContextManager[object]:
        """Return the block in which tokens come."""
        ...

    def token(self, token: StreamedToken) -> None:
        """Show the next token."""
        ...

    def end(self, analysis: TrajectoryAnalysis) -> None:
        """Show the whole."""
        ...


def choose_view(out: Console, *, as_json: bool) -> View:
    """Return the view for where standard output goes."""
    if as_json:
        return _JsonView(out)
    return _LiveView(out) if out.is_terminal and not out.is_dumb_terminal else _LineView(out)


class _JsonView:
    def __init__(self, out: Console) -> None:
        self._out = out

    def tokens(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def token(self, token: StreamedToken) -> None:
        measured = {} if token.metrics is None else token.metrics.to_dict()
        measured.pop("token", None)  # it is the text
        for bound in ("entropy_lower", "entropy_upper"):
            measured[bound] = json_number(getattr(token, bound))
        alarm = {} if token.alarm is None else {"alarm": token.alarm}
        self._line({"kind": "token", "token_id": token.token_id, "text": token.text, **alarm, **measured})

    def end(self, analysis: TrajectoryAnalysis) -> None:
        self._line(analysis.to_dict())

    def _line(self, data: dict[str, Any]) -> None:
        self._out.file.write(as_json_line(data) + "\n")
        self._out.file.flush()


class _LineView:
    """One line a token: its index, surprisal and entropy in nats, the text."""

    def __init__(self, out: Console) -> None:
        self._out = out

    def tokens(self) -> contextlib.AbstractContextManager[object]:
        self._line(f"{'token':>5}  {'surprisal':>9}  {'entropy':>15}  text")
        return contextlib.nullcontext()

    def token(self, token: StreamedToken) -> None:
        index, surprisal, entropy = "", "–", "–"
        if token.metrics is not None:
            index = str(token.metrics.step)
            surprisal = _short(token.metrics.surprisal)
            entropy = _entropy(token)
        self._line(f"{index:>5}  {surprisal:>9}  {entropy:>15}  {label(token.text, 200)}")

    def end(self, analysis: TrajectoryAnalysis) -> None:
        for line in verdict_lines(analysis):
            self._line(line.plain)

    def _line(self, text: str) -> None:
        # Not wrapped: one line stays one for whoever reads the pipe.
        self._out.print(text, markup=False, highlight=False, soft_wrap=True)
        self._out.file.flush()


class _LiveView:
    """The text as it grows, coloured, above a line with the running signals."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._painter = Painter(marked=needs_marks(out))
        self._parts: deque[tuple[str, str]] = deque()
        self._room = 4 * out.width * out.height  # more than the screen shows, also with wide line ends
        self._length = 0
        self._running = _Running()

    @contextlib.contextmanager
    def tokens(self) -> Iterator[None]:
        with Live(self, console=self._out, refresh_per_second=12, transient=True):
            yield

    def token(self, token: StreamedToken) -> None:
        surprisal = math.nan if token.metrics is None else token.metrics.surprisal
        for part in self._painter.paint(token.text, surprisal):
            self._parts.append(part)
            self._length += len(part[0])
        while self._length > self._room:
            self._length -= len(self._parts.popleft()[0])
        self._running.add(token)

    def end(self, analysis: TrajectoryAnalysis) -> None:
        show(analysis, self._out)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Another thread draws while tokens come: of a copy.
        text = Text().append_tokens(self._parts.copy())
        height = max(1, options.size.height - 4)
        lines = text.wrap(console, max(1, options.max_width - 4))[-height:]
        panel = Panel(
            Text("\n").join(lines),
            title="generating",
            title_align="left",
            subtitle=legend(marked=needs_marks(console)),
            padding=(0, 1),
        )
        yield Group(panel, Text(str(self._running), "dim", no_wrap=True, overflow="ellipsis"))


class _Running:
    """The signals so far, in one line."""

    def __init__(self) -> None:
        self._begun: float | None = None
        self._count = 0
        self._surprisal = 0.0
        self._entropy = ""

    def add(self, token: StreamedToken) -> None:
        if token.metrics is None:
            return
        self._begun = self._begun or time.perf_counter()
        self._count += 1
        self._surprisal += token.metrics.surprisal
        self._entropy = _entropy(token)

    def __str__(self) -> str:
        if self._begun is None:
            return "Ctrl-C stops · waiting for the first token"
        seconds = time.perf_counter() - self._begun
        # The first token takes as long as the prompt: the rate is of those after it.
        rate = f"{(self._count - 1) / seconds:.1f} tokens/s" if self._count > 1 and seconds > 0 else "…"
        return (
            f"{self._count} tokens · {rate} · mean surprisal {_short(self._surprisal / self._count)} nats · "
            f"entropy {self._entropy} nats"
        )


def _entropy(token: StreamedToken) -> str:
    if math.isnan(token.entropy_lower):
        return "–"
    if token.entropy_lower == token.entropy_upper:
        return _short(token.entropy_lower)
    return interval_text(token.entropy_lower, token.entropy_upper)


def _short(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
