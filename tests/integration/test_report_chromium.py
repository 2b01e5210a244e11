"""The HTML report in a real browser: it works, it keeps to itself, and hostile text does nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cert.backends.base import Generation, Message, ModelIdentity, Prompt, Sampling
from cert.signals import TokenSteps, reduce_logits
from cert.trajectory import TrajectoryAnalysis, TrajectoryConfig
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.report import render_report

pytestmark = pytest.mark.system

HOSTILE = [
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    '"><svg onload=window.pwned=1>',
    "<!--<script>",
    "' onmouseover='window.pwned=1",
    "\u202egnp.exe",
    "\u2028\x00\r",
    "\ud800",
    " " + "A" * 3000,
]


# --- a browser, driven through a pipe with its own debugging protocol -----------------------------


class Chromium:
    """One headless Chromium with one page. No port is opened and no driver is needed."""

    def __init__(self, program: str, profile: str) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The protocol wants file descriptors 3 and 4, which the shell arranges.
        script = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        options = [
            "--headless",
            "--no-sandbox",  # tests may run as root in a container, where there is no sandbox to have
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            ["bash", "-c", script, program, *options],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._count = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; what happens meanwhile is kept in `events`."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._count:
            self.events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], 60)
            chunk = os.read(self._read, 1 << 20) if ready else b""
            assert chunk, "Chromium ended or does not answer"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def show(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a file as a page of this size and wait until it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[scheme, motion])
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + 30
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < deadline, "the page did not load"
            self.call("Page.getLayoutMetrics")
            time.sleep(0.02)
        self.settle()

    def settle(self) -> None:
        """Let two frames pass, so that what was asked for is drawn."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def run(self, expression: str) -> Any:
        """Evaluate an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def centre(self, selector: str, index: int = 0) -> tuple[float, float]:
        """The middle of an element, scrolled into view."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelectorAll({selector!r})[{index}];"
            "e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        self.settle()
        return x, y

    def point(self, selector: str, index: int = 0) -> None:
        """Move the mouse over an element."""
        x, y = self.centre(selector, index)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.settle()

    def press(self, key: str) -> None:
        """Press and release a key."""
        codes = {
            "Tab": 9,
            "Escape": 27,
            "End": 35,
            "Home": 36,
            "ArrowLeft": 37,
            "ArrowRight": 39,
            "ArrowDown": 40,
        }
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key]
            )
        self.settle()

    def colours(self) -> int:
        """How many different byte values a screenshot of the window has: one or two for a blank page."""
        image = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        packed, position = b"", 8
        while position < len(image):
            size = int.from_bytes(image[position : position + 4], "big")
            if image[position + 4 : position + 8] == b"IDAT":
                packed += image[position + 8 : position + 8 + size]
            position += 12 + size
        return len(set(zlib.decompress(packed)))

    def complaints(self) -> list[str]:
        """Errors, warnings and security violations since the page was opened."""
        told = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in told]

    def requests(self) -> list[str]:
        """The addresses asked for since the page was opened."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def close(self) -> None:
        """End the browser."""
        self._session = None
        self.call("Browser.close")
        self._process.wait(30)
        os.close(self._write)
        os.close(self._read)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    """A browser for all tests of this file."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed; make test-system installs it")
    profile = tempfile.mkdtemp(prefix="cert-chromium-")
    browser = Chromium(program, profile)
    yield browser
    browser.close()
    shutil.rmtree(profile, ignore_errors=True)


# --- analyses to show -----------------------------------------------------------------------------


class Words:
    """A vocabulary of the given texts."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words

    def text(self, token_id: int) -> str:
        """The text of one token."""
        return self.words[token_id]


def make_analysis(
    tokens: Sequence[str], *, prompt: Prompt = "What is this?", kind: str = "full"
) -> TrajectoryAnalysis:
    """An analysis of these tokens from a fixed random law; every seventh token is a surprise."""
    words = [*dict.fromkeys(tokens), *(f" other{i}" for i in range(12))]
    ids = np.array([words.index(token) for token in tokens], dtype=np.int64)
    logits = np.random.default_rng(1).normal(size=(len(tokens), len(words)))
    logits[np.arange(len(tokens)), ids] += np.where(np.arange(len(tokens)) % 7 == 3, -1.0, 8.0)
    steps = reduce_logits(logits, ids, 10)
    if kind == "truncated":
        steps = TokenSteps.build(
            token_ids=ids,
            logprob=steps.logprob,
            top_ids=steps.top_ids[:, :4],
            top_logprobs=steps.top_logprobs[:, :4],
            vocab_size=len(words),
        )
    elif kind == "unmeasured":
        none = np.empty((len(tokens), 0))
        steps = TokenSteps.build(
            token_ids=ids, logprob=np.full(len(tokens), np.nan), top_ids=none, top_logprobs=none
        )
    lengths = np.array([len(token) for token in tokens], dtype=np.int64)
    ends = np.cumsum(lengths, dtype=np.int64)
    generation = Generation(
        prompt=prompt,
        text="".join(tokens),
        steps=steps,
        offsets=np.stack([ends - lengths, ends], axis=1),
        finish_reason="length",
        stop_step=None,
        prompt_tokens=4,
        sampling=Sampling(0.0),
        model=ModelIdentity("some/model", None, "transformers", len(words), 512, "cpu", "float32"),
        logprobs_mode="raw",
        vocabulary=Words(words),
        duration_s=1.5,
    )
    return analyze_generation(generation, TrajectoryConfig(entropy_threshold=2.0))


def sentence(count: int) -> list[str]:
    """Tokens that read like words and break over lines."""
    return [f" word{i % 31}" for i in range(count)]


def write(folder: Path, *analyses: TrajectoryAnalysis) -> Path:
    """The report of these analyses as a file."""
    path = folder / "report.html"
    path.write_text(render_report(analyses), encoding="utf-8")
    return path


@pytest.fixture
def opened(chromium: Chromium, tmp_path: Path) -> Chromium:
    """A browser that shows the report of sixty tokens."""
    chromium.show(write(tmp_path, make_analysis(sentence(60))))
    return chromium


TIP = "(() => { const t = document.getElementById('tip'); return t.hidden ? null : t.innerText; })()"
MARKED = "[...document.querySelectorAll('.t')].findIndex(t => t.classList.contains('on'))"
FOCUSED = "[...document.querySelectorAll('.t')].indexOf(document.activeElement)"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280, 1600])
def test_report_opens_complete_and_alone(chromium: Chromium, tmp_path: Path, width: int, dark: bool) -> None:
    """A reader sees text and curves at every width, light and dark; nothing is loaded, nothing goes wrong."""
    path = write(tmp_path, make_analysis(sentence(60)), make_analysis([" yes"]))
    chromium.show(path, width=width, dark=dark)
    assert chromium.complaints() == []
    assert chromium.requests() == [path.as_uri()]
    assert chromium.run("document.querySelectorAll('.plot canvas').length") == 8
    assert chromium.colours() > 50
    assert chromium.run("document.documentElement.scrollWidth") <= width
    background = chromium.run("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == dark


@pytest.mark.parametrize("kind", ["full", "truncated", "unmeasured"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_few_tokens_and_missing_numbers_break_nothing(
    chromium: Chromium, tmp_path: Path, kind: str, count: int
) -> None:
    """An empty, tiny or unmeasured generation opens without an error, and its tokens can be pointed at."""
    chromium.show(write(tmp_path, make_analysis(sentence(count), kind=kind)))
    if count:
        chromium.point(".t", count - 1)
        assert "surprisal" in chromium.run(TIP)
    assert chromium.complaints() == []


def test_curves_are_drawn(opened: Chromium) -> None:
    """Each of the four curves has ink in its canvas."""
    inked = opened.run(
        "[...document.querySelectorAll('.plot canvas')].map(c =>"
        "new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size)"
    )
    assert len(inked) == 4
    assert all(colours > 20 for colours in inked)


def test_pointing_at_a_token_shows_its_numbers_and_moves_the_curves(opened: Chromium) -> None:
    """Hovering a word gives probability, entropy and alternatives, and its place in every curve."""
    opened.point(".t", 10)
    shown = opened.run(TIP)
    for word in ("token 10", "probability", "surprisal", "margin", "entropy", "energy", "other"):
        assert word in shown
    assert "▸" in shown
    assert opened.run("[...document.querySelectorAll('.now')].every(n => n.textContent)") is True
    places = "[...document.querySelectorAll('.u-cursor-x')].map(c => c.style.transform)"
    before = opened.run(places)
    opened.point(".t", 40)
    after = opened.run(places)
    assert len(before) == 4
    assert all(old != new for old, new in zip(before, after, strict=True))
    opened.point("h2")
    assert opened.run(TIP) is None
    assert opened.run(MARKED) == -1


def test_pointing_at_a_curve_marks_the_token(opened: Chromium) -> None:
    """From a peak in a curve a reader finds the word that made it."""
    for chart in range(4):
        opened.point(".u-over", chart)
        assert opened.run(MARKED) in {29, 30}


def test_keyboard_reaches_every_token(opened: Chromium) -> None:
    """Without a mouse: one tab stop, arrows from token to token, Escape closes the card."""
    assert opened.run("document.querySelectorAll('.t[tabindex=\"0\"]').length") == 1
    for _ in range(20):
        if opened.run(FOCUSED) == 0:
            break
        opened.press("Tab")
    assert opened.run(FOCUSED) == 0
    assert "token 0" in opened.run(TIP)
    opened.press("ArrowRight")
    assert opened.run(FOCUSED) == 1
    opened.press("ArrowDown")
    below = opened.run(FOCUSED)
    assert below > 3
    assert opened.run(
        f"(t => t[{below}].getBoundingClientRect().top > t[1].getBoundingClientRect().top)"
        "(document.querySelectorAll('.t'))"
    )
    opened.press("End")
    assert opened.run(FOCUSED) == 59
    opened.press("ArrowRight")
    assert opened.run(FOCUSED) == 59
    assert opened.run("document.activeElement.getAttribute('aria-label')").startswith("␣word28, probability")
    opened.press("Escape")
    assert opened.run(TIP) is None
    opened.press("Tab")
    assert opened.run(FOCUSED) == -1
    assert opened.run("document.querySelectorAll('.t[tabindex=\"0\"]').length") == 1


def test_touch_shows_the_card(chromium: Chromium, tmp_path: Path) -> None:
    """On a phone a tap opens the card without covering the token, and a tap elsewhere closes it."""
    chromium.show(write(tmp_path, make_analysis(sentence(60))), width=390, height=844)
    x, y = chromium.centre(".t", 30)
    chromium.call("Emulation.setTouchEmulationEnabled", enabled=True)
    for kind, points in (("touchStart", [{"x": x, "y": y}]), ("touchEnd", [])):
        chromium.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    time.sleep(0.5)
    assert "token 30" in chromium.run(TIP)
    assert chromium.run(
        "document.querySelectorAll('.t')[30].getBoundingClientRect().bottom"
        " <= document.getElementById('tip').getBoundingClientRect().top"
    )
    chromium.run("document.activeElement.blur()")
    assert chromium.run(TIP) is None
    chromium.call("Emulation.setTouchEmulationEnabled", enabled=False)


def test_link_of_a_rule_leads_to_its_token(opened: Chromium) -> None:
    """From the rule that failed a reader gets to the word where it did."""
    opened.run("document.querySelector('a[data-token]').click()")
    opened.settle()
    target = int(opened.run("document.querySelector('a[data-token]').dataset.token"))
    assert opened.run(FOCUSED) == target
    assert f"token {target}" in opened.run(TIP)


def test_hostile_text_does_nothing(chromium: Chromium, tmp_path: Path) -> None:
    """Markup in a prompt or an answer is shown, not run, also after every token was pointed at."""
    chat = tuple(Message(payload, payload) for payload in HOSTILE)
    path = write(tmp_path, make_analysis(HOSTILE, prompt=chat), make_analysis(HOSTILE, prompt=HOSTILE[1]))
    chromium.show(path)
    chromium.run("document.querySelectorAll('.t').forEach(t => t.focus())")
    chromium.settle()
    assert chromium.run("typeof window.pwned") == "undefined"
    assert chromium.run("document.querySelectorAll('script').length") == 3
    assert chromium.run("document.querySelectorAll('main img, main script, main iframe').length") == 0
    assert chromium.complaints() == []
    assert chromium.requests() == [path.as_uri()]


def test_policy_stops_what_would_slip_in(opened: Chromium) -> None:
    """Even if an escape were missed: the browser refuses scripts, styles and addresses not of the report."""
    opened.run(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.pwned = 1';"
        "document.body.append(s);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"https://example.invalid/x\">');"
        "document.body.insertAdjacentHTML('beforeend', '<b style=\"color:red\" onclick=\"1\"></b>'); })()"
    )
    opened.settle()
    assert opened.run("typeof window.pwned") == "undefined"
    complaints = " ".join(opened.complaints())
    for directive in ("script-src", "style-src", "default-src"):
        assert directive in complaints


def test_without_script_the_report_is_readable(chromium: Chromium, tmp_path: Path) -> None:
    """Where scripts are off: verdict, reasons, coloured text and the table of tokens."""
    analysis = make_analysis(sentence(20))
    path = write(tmp_path, analysis)
    chromium.call("Emulation.setScriptExecutionDisabled", value=True)
    chromium.call("Page.navigate", url=path.as_uri())
    time.sleep(0.5)
    tree = chromium.call("DOMSnapshot.captureSnapshot", computedStyles=["background-color"])
    shown = " ".join(tree["strings"][i] for d in tree["documents"] for i in d["layout"]["text"] if i >= 0)
    colours = {tree["strings"][s[0]] for d in tree["documents"] for s in d["layout"]["styles"] if s}
    chromium.call("Emulation.setScriptExecutionDisabled", value=False)
    for text in ("Fail", analysis.decision.reasons[0], "word3", "need JavaScript", "All 20 tokens"):
        assert text in shown
    assert "Hover, tap" not in shown
    assert len(colours) > 2


def test_two_thousand_tokens_stay_responsive(chromium: Chromium, tmp_path: Path) -> None:
    """A long answer opens within seconds, and pointing from word to word does not lag."""
    began = time.monotonic()
    chromium.show(write(tmp_path, make_analysis(sentence(2000))))
    assert time.monotonic() - began < 20
    spent = chromium.run(
        "(() => { const t = document.querySelectorAll('.t'); const began = performance.now();"
        "for (let i = 0; i < 50; i++) t[i * 40].dispatchEvent(new MouseEvent('mouseover', {bubbles: true}));"
        "return (performance.now() - began) / 50; })()"
    )
    assert spent < 100
    assert chromium.complaints() == []


def test_report_prints(opened: Chromium) -> None:
    """On paper there are pages with the text and the curves, and the screen is as before afterwards."""
    printed = base64.b64decode(opened.call("Page.printToPDF", printBackground=True)["data"])
    assert printed.startswith(b"%PDF")
    assert len(printed) > 20_000
    assert opened.run("document.documentElement.classList.contains('printing')") is False
    assert opened.complaints() == []


# --- the report of teams, which has no script at all ----------------------------------------------


def teams(folder: Path) -> Path:
    """The report of a suite in which every answer is hostile."""
    pytest.importorskip("scipy")
    from cert.coordination.baseline import BaselineMeasurer
    from cert.coordination.evaluators import numeric
    from cert.coordination.orchestrator import CoordinationOrchestrator
    from cert.coordination.report import render
    from cert.coordination.scripted import ScriptedChat
    from cert.coordination.types import Task

    def says(request: Any) -> str:
        return " ".join(HOSTILE) + f" It is {41 + len(request.draw) % 2}"

    client, evaluator = ScriptedChat(otherwise=says), numeric()
    orchestrator = CoordinationOrchestrator(client, BaselineMeasurer(client, evaluator), evaluator)
    tasks = [Task(f"{payload} What is 6 × 7?", references=("42",)) for payload in HOSTILE[:4]]
    report = asyncio.run(orchestrator.measure_suite(tasks, ["vote", "parallel"], replicates=2))
    path = folder / "teams.html"
    path.write_text(render(report), encoding="utf-8")
    return path


def test_the_report_of_teams_opens_complete_and_alone(chromium: Chromium, tmp_path: Path) -> None:
    """At every width, light and dark, on paper: nothing is loaded, nothing runs, nothing sticks out."""
    path = teams(tmp_path)
    for width, dark in ((360, False), (800, True), (1400, False)):
        chromium.show(path, width=width, dark=dark)
        assert chromium.complaints() == []
        assert chromium.requests() == [path.as_uri()]
        assert chromium.run("document.documentElement.scrollWidth") <= width
        assert chromium.run("document.querySelectorAll('.forest .track').length") >= 4
        tracks = chromium.run(
            "[...document.querySelectorAll('.forest .track')].map(t => t.getBoundingClientRect().width)"
        )
        assert min(tracks) > 100
        assert chromium.colours() > 50
        chromium.run("[...document.querySelectorAll('details')].slice(0, 4).forEach(d => { d.open = true; })")
        chromium.settle()
        assert chromium.run("document.documentElement.scrollWidth") <= width
        assert chromium.run("typeof window.pwned") == "undefined"
    assert chromium.run("document.querySelectorAll('script, img, iframe').length") == 0


def test_the_report_of_teams_is_reached_by_keyboard(chromium: Chromium, tmp_path: Path) -> None:
    """What can be opened can be opened without a mouse."""
    chromium.show(teams(tmp_path))
    focused = "document.activeElement.tagName"
    seen = set()
    for _ in range(12):
        chromium.press("Tab")
        seen.add(chromium.run(focused))
    assert "SUMMARY" in seen
