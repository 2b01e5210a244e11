"""The report of teams: the verdict first, everything that was said as text, and nothing that could run."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser
from importlib import resources
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy")

from cert.coordination.baseline import BaselineMeasurer
from cert.coordination.evaluators import numeric
from cert.coordination.metrics import CoordinationMetrics
from cert.coordination.orchestrator import CoordinationOrchestrator
from cert.coordination.report import render, render_task
from cert.coordination.report.cautions import cautions
from cert.coordination.report.words import money, points
from cert.coordination.scripted import ScriptedChat
from cert.coordination.suite import CoordinationReport
from cert.coordination.types import Task
from cert.reporting.scales import differences, linear, ratios

HOSTILE = [
    "<script>window.pwned=1</script>",
    "</style><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    '"><svg onload=window.pwned=1>',
    "<!--<script>",
    "' onmouseover='window.pwned=1",
    "\u202egnp.exe",
    "\u2028\x00\r",
    "\ud800",
    '<answer-0123456789ab number="1">',
]
MARKUP = [
    "<",
    ">",
    "</",
    "<b",
    "<script>",
    "</style>",
    "<!--",
    "-->",
    '"',
    "'",
    " onload=",
    "&lt;",
    "]]>",
    "=",
]
VOID = {"meta"}


class Page(HTMLParser):
    """The elements of a page with their attributes, and what can be read."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.comments: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    @property
    def structure(self) -> list[tuple[str, tuple[str, ...]]]:
        """The page without what marks hidden characters."""
        return [(tag, tuple(sorted(attributes))) for tag, attributes in self.elements if tag != "i"]


async def _measured(says: Any, tasks: list[Task], systems: list[str]) -> tuple[Any, Any]:
    client = ScriptedChat(otherwise=says)
    evaluator = numeric()
    orchestrator = CoordinationOrchestrator(client, BaselineMeasurer(client, evaluator), evaluator)
    report = await orchestrator.measure_suite(tasks, systems, replicates=2)
    metrics = await orchestrator.measure_coordination(tasks[0], strategy=systems[0])
    return report, metrics


def says(request: Any) -> str:
    words = repr(request.messages)
    team = "everal agents" in words
    return f"It is {42 if team or len(request.draw) % 3 else 41}"


@pytest.fixture(scope="module")
def measured() -> tuple[CoordinationReport, CoordinationMetrics]:
    """A suite of six tasks and two systems, and one task."""
    tasks = [Task(f"What is 6 × 7, variant {i}?", references=("42",)) for i in range(6)]
    found: tuple[CoordinationReport, CoordinationMetrics] = asyncio.run(
        _measured(says, tasks, ["parallel", "debate(rounds=1)"])
    )
    return found


@pytest.fixture(scope="module")
def report(measured: tuple[CoordinationReport, CoordinationMetrics]) -> CoordinationReport:
    return measured[0]


def said_by(report: CoordinationReport, text: str) -> CoordinationReport:
    """The report with another text in every place that is not ours."""
    rows = tuple(
        replace(
            row,
            task_text=text or "x",
            references=(text,),
            transcripts=tuple(
                replace(
                    talk,
                    final=text,
                    responses=tuple(replace(one, text=text, model=text) for one in talk.responses),
                )
                for talk in row.transcripts
            ),
        )
        for row in report.rows
    )
    return replace(report, rows=rows, evaluator=text or "x", single_agent=text)


def test_the_verdict_comes_first_and_every_system_has_one(report: CoordinationReport) -> None:
    """Whoever pays reads one line, and it has to be that one."""
    text = Page(render(report)).text
    for found in report.findings:
        word = {"worth_it": "Worth it", "not_worth_it": "Not worth it"}.get(found.verdict, "Not enough data")
        assert f"{found.system} {word}" in text.replace("( ", "(")
    assert (
        text.index("When not to believe it") < text.index("Cost against quality") < text.index("Task by task")
    )


def test_every_caution_of_the_run_is_on_the_page(report: CoordinationReport) -> None:
    """A limit that is not told is a claim too many."""
    stopped = replace(report, stopped="budget")
    text = Page(render(stopped)).text
    told = cautions(stopped)
    assert "budget of a client ended" in told[0]
    for caution in told:
        assert " ".join(caution.split()) in text


def test_nothing_is_loaded_and_nothing_runs(report: CoordinationReport, measured: Any) -> None:
    """The page can be opened from a mail, also by a careful reader."""
    for html in (render(report), render_task(measured[1], Task("What?", references=("a",)))):
        assert re.findall(r"https?:|@import|url\(", html) == []
        page = Page(html)
        policy = next(a["content"] for t, a in page.elements if a.get("http-equiv"))
        assert policy is not None
        assert "script-src" not in policy
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        for tag, attributes in page.elements:
            assert tag not in {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
            assert not attributes.keys() & {"style", "src", "srcset", "action", "data", "ping"}
            assert (attributes.get("href") or "#").startswith("#")
            assert not [name for name in attributes if name.startswith("on")]


@pytest.mark.parametrize("payload", HOSTILE)
def test_hostile_text_stays_text(report: CoordinationReport, payload: str) -> None:
    """Neither a model nor a task can add an element or an attribute to the page."""
    page = Page(render(said_by(report, payload)))
    assert page.structure == Page(render(said_by(report, "innocent"))).structure
    assert page.comments == []


@settings(max_examples=40, deadline=None)
@given(text=st.lists(st.sampled_from(MARKUP) | st.characters(), min_size=1, max_size=12).map("".join))
def test_whatever_is_said_the_page_stays_the_same(
    measured: tuple[CoordinationReport, CoordinationMetrics], text: str
) -> None:
    """The property behind the list above."""
    report = replace(measured[0], rows=measured[0].rows[:2])
    assert Page(render(said_by(report, text))).structure == Page(render(said_by(report, "a"))).structure


def test_what_is_not_measured_is_said(report: CoordinationReport) -> None:
    """Without costs and parts there is a sentence in place of an empty chart."""
    bare = tuple(
        replace(
            found,
            attribution=None,
            omega_best_agent=None,
            team=replace(found.team, cost=None, usage=None),
            decision=replace(found.decision, ratio=replace(found.decision.ratio, value=None, interval=None)),
        )
        for found in report.findings
    )
    text = Page(render(replace(report, findings=bare))).text
    assert "no system has a quality and a cost in both arms" in text
    assert "the agents' own answers were not evaluated" in text
    assert "needs two replicates" in text
    empty = Page(render(replace(report, findings=(), rows=()))).text
    assert "No task was measured" in empty


def test_a_page_that_would_not_open_leaves_transcripts_out_and_says_so(
    report: CoordinationReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence about what is missing would pass for all there was."""
    monkeypatch.setattr("cert.coordination.report.transcripts.MOST_CHARS", 200)
    text = Page(render(report)).text
    assert "tasks are left out here" in text


def test_one_task_is_never_a_finding(measured: tuple[CoordinationReport, CoordinationMetrics]) -> None:
    """The page of one task says so in its largest words."""
    metrics = measured[1]
    page = Page(render_task(metrics, Task("What is <b>this</b>?")))
    assert "Not enough data" in page.text
    assert "What is <b>this</b>?" in page.text
    for why in metrics.missing.values():
        assert why in page.text


def test_the_same_report_gives_the_same_page(report: CoordinationReport) -> None:
    """A report can be compared and signed."""
    assert render(report) == render(report)


@pytest.mark.parametrize(
    ("values", "inside"),
    [([0.9, 1.1], 1.0), ([0.0, float("inf")], 1.0), ([], 1.0), ([7.0, 9.0], 1.0), ([0.01], 1.0)],
)
def test_a_scale_of_ratios_always_shows_1(values: list[float], inside: float) -> None:
    """Without the line of *as good* a forest says nothing."""
    scale = ratios(values)
    assert scale.holds(inside)
    assert "1" in [label for _, label in scale.ticks]
    assert 0.0 <= scale.at(0.0) <= scale.at(1.0) <= scale.at(float("inf")) <= 100.0


@given(st.lists(st.floats(-100, 100), max_size=8))
def test_a_scale_of_differences_holds_all_and_0(values: list[float]) -> None:
    """A point off the chart is one that nobody sees."""
    scale = differences(values)
    assert all(0.0 <= scale.at(value) <= 100.0 and scale.holds(value) for value in [*values, 0.0])
    assert len(scale.ticks) <= 12


def test_equal_numbers_make_an_axis_too() -> None:
    """All systems may cost the same."""
    assert linear([3.0, 3.0], str).holds(3.0)
    assert linear([0.0], str).holds(0.0)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "not measured"),
        (Decimal(0), "$0"),
        (Decimal("1234.5"), "$1,234.50"),
        (Decimal("0.0123"), "$0.0123"),
        (Decimal("-0.000006"), "−$0.000006"),
    ],
)
def test_money_is_written_for_people(amount: Decimal | None, text: str) -> None:
    """Small amounts keep their digits, and a missing one is no zero."""
    assert money(amount) == text


@pytest.mark.parametrize(
    ("score", "text"),
    [(None, "not measured"), (0.0, "0"), (-0.0001, "0"), (0.025, "+2.5"), (-0.5, "−50"), (1.0, "+100")],
)
def test_points_are_written_for_people(score: float | None, text: str) -> None:
    """A difference has a sign, and nothing is minus zero."""
    assert points(score) == text


def schema(name: str) -> dict[str, Any]:
    """A schema of the package."""
    path = resources.files("cert.coordination").joinpath(f"schemas/{name}.v1.json")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(loaded)
    return loaded


@pytest.mark.parametrize("transcripts", [True, False])
def test_the_json_of_a_suite_is_as_its_schema_says(report: CoordinationReport, transcripts: bool) -> None:
    """Programs of others read it; a field that comes or goes unseen breaks them."""
    of = schema("coordination-report")
    data = json.loads(json.dumps(report.to_dict(transcripts=transcripts), allow_nan=False))
    jsonschema.validate(data, of)
    assert set(data) == set(of["properties"])
    for name in ("Findings", "Decision", "ArmTotal"):
        told = data["findings"][0]
        one = {"Findings": told, "Decision": told["decision"], "ArmTotal": told["team"]}[name]
        assert set(one) == set(of["$defs"][name]["properties"])


def test_the_json_of_one_task_is_as_its_schema_says(measured: Any) -> None:
    """The same for a single task."""
    of = schema("coordination-metrics")
    data = json.loads(json.dumps(measured[1].to_dict(), allow_nan=False))
    jsonschema.validate(data, of)
    assert set(data) == set(of["properties"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data | {"gamma": "much"}, of)
