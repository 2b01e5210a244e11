"""The page of both services in a real browser: ask and watch, stop, open, sign in, measure, cancel."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from tests.services.conftest import Running, running

from cert.backends.local import LocalBackend
from cert.coordination.drift import DriftMonitor
from cert.coordination.scripted import ScriptedChat
from cert.core import visible
from cert.core.config import ServiceSettings, Settings
from cert.services.common.keys import KeyFile, new_key
from cert.services.coordination.app import create_app as create_coordination
from cert.services.coordination.options import CoordinationOptions
from cert.services.hamiltonian.app import create_app as create_hamiltonian
from cert.trajectory.api import HamiltonianMonitor
from cert.trajectory.calibration.calibrate import calibrate
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.labelled import LabelledData

pytestmark = pytest.mark.system

AXE, AXE_SHA256 = "axe-core@4.14.1", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
SIZES = {"wide": (1280, 900, "light"), "dark": (1280, 900, "dark"), "phone": (360, 740, "light")}
HOSTILE = "<img src=x onerror=window.pwned=1>\u202egnp.exe <script>window.pwned=1</script>"


def missing(what: str) -> None:
    """Skip; where `make test-system` runs, what is missing is a failure."""
    if os.environ.get("CERT_REQUIRE_SYSTEM"):
        pytest.fail(what)
    pytest.skip(what)


# --- what the tests need ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checker of accessibility: of CERT_AXE (a file), or from npm, by its hash."""
    given = os.environ.get("CERT_AXE")
    if given is None:
        folder = tmp_path_factory.mktemp("axe")
        npm = shutil.which("npm")
        if npm is None:
            missing("npm is not installed, and CERT_AXE names no axe.min.js")
        done = subprocess.run(
            [str(npm), "pack", AXE, "--silent"], cwd=folder, capture_output=True, timeout=120, check=False
        )
        if done.returncode != 0:
            missing(f"npm pack {AXE} did not work, and CERT_AXE names no axe.min.js")
        with tarfile.open(next(folder.glob("*.tgz"))) as packed:
            member = packed.extractfile("package/axe.min.js")
            assert member is not None
            content = member.read()
    else:
        content = Path(given).read_bytes()
    assert hashlib.sha256(content).hexdigest() == AXE_SHA256, "this is another axe-core"
    return content.decode()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium."""
    api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium")
    if program is None:
        missing("chromium is not installed")
    with api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield made
        made.close()


def until(page: Any, holds: str) -> None:
    """Wait until an expression holds. The policy of the page forbids `wait_for_function`, which evaluates."""
    deadline = time.monotonic() + 30.0
    while not page.evaluate(holds):
        assert time.monotonic() < deadline, holds
        page.wait_for_timeout(50)


class Visit:
    """A page of the browser, and whatever the browser complained about."""

    def __init__(self, browser: Any, url: str, size: str = "wide") -> None:
        width, height, scheme = SIZES[size]
        self.url = url
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, base_url=url
        )
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def clean(self) -> None:
        """Nothing went wrong, nothing was loaded from elsewhere, nothing sticks out to the side."""
        assert self.complaints == []
        assert all(url.startswith((self.url, "data:")) for url in self.asked)
        page = self.page
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("typeof window.pwned") == "undefined"

    def barriers(self, axe: str) -> list[str]:
        """What axe-core finds in the page as it is."""
        found: list[str] = self.page.evaluate(
            "(async () => {" + axe + "; return (await axe.run()).violations.map("
            "v => v.id + ': ' + v.nodes.map(n => n.target).join(', ')) })()"
        )
        return found


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Open pages; all are closed at the end."""
    made: list[Visit] = []

    def begin(url: str, size: str = "wide") -> Visit:
        made.append(Visit(browser, url, size))
        return made[-1]

    yield begin
    for each in made:
        each.context.close()


class Paced:
    """The reference model, which takes its time for each step where a test wants that."""

    def __init__(self) -> None:
        self.backend = LocalBackend.load("reference")
        self.pause, self.steps = 0.0, 0
        forward = self.backend.model.forward

        def paced(*arguments: Any, **options: Any) -> Any:
            self.steps += 1
            time.sleep(self.pause)
            return forward(*arguments, **options)

        self.backend.model.forward = paced


@pytest.fixture(scope="module")
def paced() -> Iterator[Paced]:
    made = Paced()
    yield made
    made.backend.close()


@pytest.fixture(scope="module")
def hamiltonian(paced: Paced) -> Iterator[Running]:
    """The service on the reference model, without keys."""
    monitor = HamiltonianMonitor(backend=paced.backend)
    with running(create_hamiltonian(monitors={"reference": monitor})) as service:
        yield service


@pytest.fixture(scope="module")
def coordination() -> Iterator[Running]:
    """The service on a model that says hostile things and takes its time."""

    def says(request: Any) -> str:
        return f"{HOSTILE} It is {41 + len(request.draw) % 2}"

    clients = {name: ScriptedChat(otherwise=says, latency=0.15) for name in ("scripted", "judge")}
    with running(create_coordination(Settings(), clients=clients)) as service:
        yield service


# --- the Hamiltonian service -----------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_ask_and_see_the_answer_come(
    hamiltonian: Running, visit: Callable[..., Visit], axe: str, size: str
) -> None:
    """Whoever opens the page asks, sees coloured tokens and a verdict, and gets to every number."""
    seen = visit(hamiltonian.url, size)
    page = seen.page
    page.goto("/ui")
    assert seen.barriers(axe) == []
    page.locator(".example").first.click()
    page.wait_for_selector("#more:not([hidden])")
    assert page.locator("#tokens-seen .t").count() >= 1
    classes = page.locator("#tokens-seen .t").first.get_attribute("class")
    assert any(name[0] == "s" and name[1:].isdecimal() for name in classes.split())
    assert page.locator("#verdict .big svg").count() == 1
    assert page.locator("#said").inner_text() != ""
    page.wait_for_selector("table.list tbody tr")
    assert seen.barriers(axe) == []
    page.click("#open")
    page.wait_for_selector(".plot canvas")
    page.locator(".t").first.focus()
    assert "probability" in page.locator("#tip").inner_text()
    assert seen.barriers(axe) == []
    seen.clean()


def test_colours_while_it_comes_are_those_of_the_report(
    hamiltonian: Running, visit: Callable[..., Visit]
) -> None:
    """A token does not change its colour between the stream and the report."""
    page = visit(hamiltonian.url).page
    page.goto("/ui")
    page.fill("#temperature", "3")
    page.fill("#tokens", "40")
    page.select_option("#as", "text")
    page.fill("#prompt", "Somebody was")
    for _ in range(20):  # the page sends no seed, and an answer may be short
        page.click("#go")
        page.wait_for_selector("#more:not([hidden])")
        if page.locator("#tokens-seen .t").count() > 10:
            break
    heat = "e => e.map(t => [...t.classList].find(c => /^s(x|[0-9]+)$/.test(c)))"
    live = page.locator("#tokens-seen .t").evaluate_all(heat)
    page.click("#open")
    page.wait_for_selector(".plot canvas")
    report = page.locator("section.run .t").evaluate_all(heat)
    assert len(report) > 10
    assert live[: len(report)] == report


def test_stop_ends_the_generation(hamiltonian: Running, paced: Paced, visit: Callable[..., Visit]) -> None:
    """Stop, or Escape, ends the answer here and in the model, and says that it is not judged."""
    seen = visit(hamiltonian.url)
    page = seen.page
    page.goto("/ui")
    paced.pause = 0.05
    try:
        for end in (lambda: page.click("#stop"), lambda: page.keyboard.press("Escape")):
            page.fill("#temperature", "5")
            page.fill("#tokens", "400")
            page.fill("#prompt", "Tell me all.")
            # A sample may end by itself after a word or two; then another one is asked for.
            for _ in range(20):
                page.focus("#prompt")
                page.keyboard.press("Enter")
                page.wait_for_selector("#go:visible", state="hidden")
                many = "document.querySelectorAll('#tokens-seen .t').length > 3"
                until(page, f"{many} || document.querySelector('#go').offsetParent !== null")
                if page.is_hidden("#go"):
                    break
            assert page.is_hidden("#go")
            end()
            page.wait_for_selector("#go:visible")
            assert "Stopped" in page.locator("#verdict").inner_text()
            page.wait_for_timeout(600)
            before = paced.steps
            page.wait_for_timeout(400)
            assert paced.steps == before
    finally:
        paced.pause = 0.0
    assert page.is_hidden("#more")
    seen.clean()


def test_the_alarm_is_shown(paced: Paced, visit: Callable[..., Visit]) -> None:
    """Where a gate watches the stream, its alarm stands beside the words, and the token is marked."""
    data = LabelledData(
        ids=tuple(map(str, range(60))),
        correct=np.ones(60, dtype=np.bool_),
        columns={"max_surprisal": np.full(60, 1e-9)},
        units=np.arange(60),
        groups=None,
    )
    gate = CalibratedGate(calibrate(data, goal="streaming", alpha=0.05, score="max_surprisal"))
    monitor = HamiltonianMonitor(backend=paced.backend, gate=gate)
    with running(create_hamiltonian(monitors={"reference": monitor})) as service:
        seen = visit(service.url)
        seen.page.goto("/ui")
        seen.page.locator(".example").first.click()
        seen.page.wait_for_selector("#alarm:visible")
        assert "alarm at token" in seen.page.locator("#alarm").inner_text()
        seen.page.wait_for_selector("#tokens-seen .t.flagged")
        seen.page.goto("/ui/certificates")
        assert gate.profile in seen.page.content()
        seen.clean()


def test_the_list_is_live(hamiltonian: Running, visit: Callable[..., Visit]) -> None:
    """What somebody else analyses appears in the list by itself."""
    page = visit(hamiltonian.url).page
    page.goto("/ui")
    with hamiltonian.client() as http:
        asked = http.post("/v1/score", json={"prompt": "Who?", "completion": HOSTILE})
    identifier = asked.json()["id"]
    page.wait_for_selector(f'tr[data-id="{identifier}"]', timeout=15_000)
    assert page.evaluate("typeof window.pwned") == "undefined"


def test_a_refusal_is_told(hamiltonian: Running, visit: Callable[..., Visit]) -> None:
    """What the service refuses is said in its words, and the page stays usable."""
    page = visit(hamiltonian.url).page
    page.goto("/ui")
    page.select_option("#as", "text")
    page.fill("#prompt", "word " * 3000)
    page.click("#go")
    page.wait_for_selector("#trouble:visible")
    assert len(page.locator("#trouble p").inner_text()) > 10
    page.locator("#trouble button").click()
    assert page.is_hidden("#trouble")
    assert page.is_visible("#go")


def test_hidden_characters_are_named_as_python_names_them(
    hamiltonian: Running, visit: Callable[..., Visit]
) -> None:
    """The script that shows a stream and the template that shows a report hide nothing, and agree."""
    page = visit(hamiltonian.url).page
    page.goto("/ui")
    text = "a\u202eb\u200bc\u200dd\x00e\ufefff\u2028g\th\n" + "z" + "\u0301" * 12 + "\u0600\U000e0041é"
    shown = page.evaluate(
        "async text => {"
        " const first = document.querySelector('script[type=module]').src;"
        " const { visible } = await import(first.replace('page.js', 'dom.js'));"
        " const told = n => n.nodeType !== 3 ? n.dataset.c || n.className : n.data.trim();"
        " return [...visible(text).childNodes].map(told).filter(Boolean); }",
        text,
    )
    names = {"newline": "nl", "tab": "tab"}
    assert shown == [names.get(run.kind, run.text) for run in visible.runs(text)]


def test_sign_in_with_a_wrong_key_and_a_right_one(
    paced: Paced, visit: Callable[..., Visit], axe: str, tmp_path: Path
) -> None:
    """A wrong key is told; a right one opens the page, no script can read the cookie, and one signs out."""
    secret, key = new_key("acme", ("write",))
    file = KeyFile(tmp_path / "keys.json")
    file.write((key,))
    settings = Settings(service=ServiceSettings(api_keys_file=file.path))
    monitor = HamiltonianMonitor(backend=paced.backend)
    with running(create_hamiltonian(settings, monitors={"reference": monitor})) as service:
        seen = visit(service.url)
        page = seen.page
        page.goto("/ui/analyses")
        assert page.url.endswith("/ui/sign-in?next=/ui/analyses")
        assert seen.barriers(axe) == []
        page.fill("#key", "cert_" + "x" * 43)
        page.keyboard.press("Enter")
        page.wait_for_selector("#key[aria-invalid]")
        assert page.locator("#key-wrong").inner_text() == "This is no key of this service."
        seen.complaints.clear()  # the browser writes each 401 into its console
        page.fill("#key", secret)
        page.keyboard.press("Enter")
        page.wait_for_url("**/ui/analyses")
        assert "acme" in page.locator(".who").inner_text()
        assert page.evaluate("document.cookie") == ""
        assert secret not in page.content()
        page.goto("/ui")
        page.locator(".example").first.click()
        page.wait_for_selector("#more:not([hidden])")
        page.click("#open")
        page.locator("#label button").first.click()
        page.wait_for_selector("#label b")
        seen.clean()
        page.click("#sign-out")
        page.wait_for_url("**/ui/sign-in")
        page.goto("/ui")
        assert "/ui/sign-in" in page.url


def test_by_keyboard_alone(hamiltonian: Running, visit: Callable[..., Visit]) -> None:
    """Without a mouse: past the pages to the prompt, ask, and on to the answer."""
    page = visit(hamiltonian.url).page
    page.goto("/ui")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.keyboard.type("Where was somebody born?")
    page.keyboard.press("Enter")
    page.wait_for_selector("#more:not([hidden])")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "open":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/analyses/an_*")


def test_motion_rests_where_it_is_unwanted(hamiltonian: Running, browser: Any) -> None:
    """Whoever asked for less motion sees no blinking."""
    context = browser.new_context(reduced_motion="reduce", base_url=hamiltonian.url)
    page = context.new_page()
    page.goto("/ui")
    assert page.evaluate("getComputedStyle(document.getElementById('cursor')).animationName") == "none"
    context.close()


# --- the Coordination service ----------------------------------------------------------------------


def begin(page: Any, tasks: int) -> None:
    page.goto("/ui")
    if page.is_hidden("#tasks"):
        page.click(".begin summary")
    page.fill("#tasks", "\n".join(f"{time.monotonic_ns()} What is 6 × {n}? => 42" for n in range(tasks)))
    page.check('input[value="parallel"]')
    page.click("#start button.main")
    page.wait_for_url("**/ui/measurements/m_*")


@pytest.mark.parametrize("size", SIZES)
def test_measure_follow_and_read(
    coordination: Running, visit: Callable[..., Visit], axe: str, size: str
) -> None:
    """A measurement begins from the form, moves as it is followed, and ends as forest plot and talks."""
    seen = visit(coordination.url, size)
    page = seen.page
    begin(page, 12)
    until(page, "Number(document.getElementById('done').textContent) > 0")
    page.wait_for_selector(".found-all .forest", timeout=60_000)
    assert seen.barriers(axe) == []
    page.locator(".found-all details[id]").first.locator("summary").first.click()
    page.locator(".found-all details.talk summary").first.click()
    assert "U+202E" in page.locator(".found-all details.talk").first.inner_html()
    for path in ("/ui", "/ui/costs", "/ui/drift", "/ui/health"):
        page.goto(path)
        assert seen.barriers(axe) == []
        seen.clean()


def test_cancel_a_measurement(coordination: Running, visit: Callable[..., Visit]) -> None:
    """Cancel ends a measurement at work, and the page says so without being asked again."""
    seen = visit(coordination.url)
    page = seen.page
    begin(page, 200)
    page.click("#cancel")
    page.wait_for_selector("text=Cancelled", timeout=30_000)
    with coordination.client() as http:
        state = http.get("/v1/measurements/" + page.url.rpartition("/")[2]).json()["state"]
    assert state == "cancelled"
    seen.clean()


@pytest.mark.parametrize("size", SIZES)
def test_what_a_measurement_takes_can_be_said_in_the_form(
    coordination: Running, visit: Callable[..., Visit], axe: str, size: str
) -> None:
    """A judge, a selector, a strategy with parameters, drift: asked for as the service takes them."""
    seen = visit(coordination.url, size)
    page = seen.page
    page.goto("/ui")
    if page.is_hidden("#tasks"):
        page.click(".begin > summary")
    assert page.is_hidden("#repeats")
    page.fill("#tasks", 'What is 6 x 7? => 42 | forty-two\n{"text": "Why?", "id": "why", "family": "hard"}')
    assert page.locator("#counted").inner_text() == "2 tasks; 1 without a right answer"
    page.check('input[value="debate"]')
    page.fill('[data-of="debate"]', "1")
    page.check('input[value="best_of_n"]')
    page.select_option("#scorer", "judge:judge")
    assert page.locator("#counted").inner_text() == "2 tasks"
    page.fill("#repeats", "2")
    page.click("#start button.main")  # nobody picks yet: what is missing is shown, and nothing is sent
    page.wait_for_selector("#further[open]")
    assert page.evaluate("document.activeElement.id") == "selector"
    assert page.url.endswith("/ui")
    page.select_option("#selector", "scripted")
    page.fill("#systems-too", "debate(rounds=2)")
    page.fill("#margin", "5")
    page.fill("#temperature", "0.5")
    page.fill("#seed", "7")
    page.fill("#max-tokens", "64")
    page.fill("#family", "easy")
    page.check("#sequential")
    page.check("#fresh-answers")
    page.check("#watch-drift")
    assert seen.barriers(axe) == []
    seen.clean()
    with page.expect_request("**/v1/measurements") as sent:
        page.click("#start button.main")
    body = sent.value.post_data_json
    assert body == {
        "tasks": [
            {"text": "What is 6 x 7?", "references": ["42", "forty-two"], "family": "easy"},
            {"text": "Why?", "id": "why", "family": "hard"},
        ],
        "systems": ["debate(rounds=1)", "vote", "best_of_n", "debate(rounds=2)"],
        "model": "scripted",
        "judge": "judge",
        "judge_repeats": 2,
        "selector": "scripted",
        "agents": 3,
        "replicates": 1,
        "max_tokens": 64,
        "temperature": 0.5,
        "seed": 7,
        "margin": 0.05,
        "sequential": True,
        "concurrency": 4,
        "answer_tokens": 250,
        "fresh": True,
        "watch_drift": True,
    }
    page.wait_for_url("**/ui/measurements/m_*")


def test_the_form_by_keyboard_alone(coordination: Running, visit: Callable[..., Visit]) -> None:
    """Without a mouse: a strategy, its parameter, the settings that are folded away, and off it goes."""
    page = visit(coordination.url).page
    page.goto("/ui")
    if page.is_hidden("#tasks"):
        page.focus(".begin > summary")
        page.keyboard.press("Enter")
    page.focus("#tasks")
    page.keyboard.type(f"{time.monotonic_ns()} What is 6 x 7? => 42")

    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({selector!r})"):
                return
        raise AssertionError(selector)

    tab_to("[value=debate]")
    page.keyboard.press("Space")
    tab_to("[data-of=debate]")
    page.keyboard.type("1")
    tab_to("#further > summary")
    page.keyboard.press("Enter")
    tab_to("#watch-drift")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/measurements/m_*")


def test_delete_a_measurement(coordination: Running, visit: Callable[..., Visit]) -> None:
    """What has ended can be deleted from its page, by somebody who meant it."""
    seen = visit(coordination.url)
    page = seen.page
    begin(page, 1)
    page.wait_for_selector("#delete:not([disabled])", timeout=60_000)
    place = page.url.rpartition("/")[2]
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.click("#delete")
    with coordination.client() as http:
        assert http.get(f"/v1/measurements/{place}").status_code == 200
        page.once("dialog", lambda dialog: dialog.accept())
        page.click("#delete")
        page.wait_for_url("**/ui")
        assert http.get(f"/v1/measurements/{place}").status_code == 404
    seen.clean()


@pytest.mark.parametrize("size", SIZES)
def test_acknowledge_an_alarm(visit: Callable[..., Visit], axe: str, tmp_path: Path, size: str) -> None:
    """Whoever has looked at an alarm says so on the page, which then says that somebody has."""
    place, key = SecretStr(f"sqlite:///{tmp_path}/jobs.db"), SecretStr(base64.b64encode(b"k" * 32).decode())
    clients = {"scripted": ScriptedChat(otherwise="42")}
    options = CoordinationOptions(database_url=place, key=key)

    async def fall() -> None:
        async with DriftMonitor(tmp_path / "jobs-drift.db") as monitor:
            await monitor.observe_all(
                "anonymous/vote <script>window.pwned=1</script>", "refunds", [1.0, 0.9] * 100
            )
            await monitor.observe_all("anonymous/vote <script>window.pwned=1</script>", "refunds", [0.1] * 60)

    with running(create_coordination(Settings(), clients=clients, options=options)) as service:
        with service.client() as http:
            assert http.get("/v1/drift").json()["items"] == []
        fallen = threading.Thread(target=lambda: asyncio.run(fall()))  # the browser has this thread's loop
        fallen.start()
        fallen.join()
        seen = visit(service.url, size)
        page = seen.page
        page.goto("/ui/drift")
        page.wait_for_selector(".alarm button:not([disabled])")
        assert seen.barriers(axe) == []
        seen.clean()
        page.click(".alarm button")
        page.wait_for_selector("text=an alarm was acknowledged")
        assert page.locator(".alarm").count() == 0
        assert seen.barriers(axe) == []
        seen.clean()
