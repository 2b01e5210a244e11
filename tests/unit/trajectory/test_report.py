"""The HTML report: self-contained, inert whatever a model writes, and honest about what is missing."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser

import numpy as np
import pytest

from cert.backends.base import FinishReason, Generation, Message, ModelIdentity, Prompt, Sampling
from cert.core.visible import label
from cert.reporting.numbers import interval, number, probability
from cert.signals import TokenSteps, reduce_logits
from cert.trajectory import TrajectoryAnalysis, TrajectoryConfig, Verdict
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.report import render_report

HOSTILE = [
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "<!--<script>",
    "-->",
    "<img src=x onerror=window.pwned=1>",
    "' onmouseover='window.pwned=1",
    '"><svg onload=window.pwned=1>',
    "</span></div></main>",
    "&lt;script&gt;",
    "{{ 7 * 7 }}{% raw %}",
    "]]>\u2028\u2029",
    "javascript:window.pwned=1",
    "<style>*{display:none}</style>",
    "\u202egnp.exe\u202c",
    "\x00\x07\x1b[2J\r",
    "\ud800",
    "A" * 5000,
]
FILLER = [" one", " two", " three", " four", " five", " six", " seven", " eight", " nine", " ten", "<end>"]


class Words:
    """A vocabulary of the given texts."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words

    def text(self, token_id: int) -> str:
        """The text of one token."""
        return self.words[token_id]


def make_analysis(
    tokens: Sequence[str],
    *,
    prompt: Prompt = "What is this?",
    steps: TokenSteps | None = None,
    finish_reason: FinishReason = "stop",
    doubt: float = 0.0,
) -> TrajectoryAnalysis:
    """An analysis of these tokens: probabilities from a fixed random law, flatter with more doubt."""
    words = [*dict.fromkeys(tokens), *FILLER]
    ids = np.array([words.index(token) for token in tokens], dtype=np.int64)
    logits = np.random.default_rng(0).normal(size=(len(tokens), len(words)))
    logits[np.arange(len(tokens)), ids] += 9.0 * (1.0 - doubt)
    ends = np.cumsum([len(token) for token in tokens], dtype=np.int64)
    starts = ends - np.array([len(token) for token in tokens], dtype=np.int64)
    stop = TokenSteps.build(
        token_ids=[len(words) - 1], logprob=[-0.25], top_ids=[[len(words) - 1]], top_logprobs=[[-0.25]]
    )
    generation = Generation(
        prompt=prompt,
        text="".join(tokens),
        steps=steps or reduce_logits(logits, ids, 10),
        offsets=np.stack([starts, ends], axis=1),
        finish_reason=finish_reason,
        stop_step=stop if finish_reason == "stop" else None,
        prompt_tokens=4,
        sampling=Sampling(0.7, 0.9, None, 7),
        model=ModelIdentity("some/model", "abc123", "transformers", len(words), 512, "cpu", "float32"),
        logprobs_mode="raw",
        vocabulary=Words(words),
        duration_s=1.5,
    )
    return analyze_generation(generation, TrajectoryConfig(entropy_threshold=2.0))


def truncated(count: int, vocab_size: int | None = 1000, kept: int = 3) -> TokenSteps:
    """What a backend that gives the top K alone records, with room for the threshold between the bounds."""
    top = np.log(np.tile([0.5, 0.2, 0.1][:kept], (count, 1)))
    ids = np.tile(np.arange(kept), (count, 1))
    return TokenSteps.build(
        token_ids=np.zeros(count), logprob=top[:, 0], top_ids=ids, top_logprobs=top, vocab_size=vocab_size
    )


def unmeasured(count: int) -> TokenSteps:
    """What a backend without log-probabilities records."""
    none = np.empty((count, 0))
    return TokenSteps.build(
        token_ids=np.zeros(count), logprob=np.full(count, np.nan), top_ids=none, top_logprobs=none
    )


class Page(HTMLParser):
    """What a browser's parser sees: the elements with their attributes, and the text of each."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "circle", "path"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[list[str]] = []
        self.comments: list[str] = []
        self._open: list[int] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.texts.append([])
        if tag not in self.VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        opened = self.elements[self._open.pop()][0]
        assert opened == tag, f"<{opened}> is closed by </{tag}>"

    def handle_data(self, data: str) -> None:
        for index in self._open:
            self.texts[index].append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def all(self, tag: str, class_name: str = "") -> list[int]:
        """The elements with this tag and class."""
        return [
            index
            for index, (name, attributes) in enumerate(self.elements)
            if name == tag and (not class_name or class_name in attributes.get("class", "").split())
        ]

    def text(self, index: int) -> str:
        """All text within an element."""
        return "".join(self.texts[index])

    def text_of(self, tag: str, class_name: str = "") -> list[str]:
        """The text of each such element."""
        return [self.text(index) for index in self.all(tag, class_name)]

    @property
    def body(self) -> str:
        """The text a person can read: everything but scripts and styles."""
        return self.text_of("header")[0] + self.text_of("main")[0] + self.text_of("footer")[0]

    @property
    def data(self) -> list[dict[str, object]]:
        """What the script reads."""
        index = next(i for i in self.all("script") if self.elements[i][1].get("type") == "application/json")
        loaded: list[dict[str, object]] = json.loads(self.text(index))
        return loaded


@pytest.mark.parametrize("verdict", ["pass", "fail", "undecided", "not_measured"])
def test_verdict_and_reasons_are_on_the_page(verdict: Verdict) -> None:
    """A reader sees first what the gate says and why, in words."""
    tokens = [" Paris", " is", " it"]
    analysis = {
        "pass": lambda: make_analysis(tokens),
        "fail": lambda: make_analysis(tokens, doubt=1.0),
        "undecided": lambda: make_analysis(tokens, steps=truncated(3)),
        "not_measured": lambda: make_analysis(tokens, steps=unmeasured(3)),
    }[verdict]()
    assert analysis.verdict == verdict
    page = Page(render_report(analysis))
    words = {"pass": "Pass", "fail": "Fail", "undecided": "Undecided", "not_measured": "Not measured"}
    assert page.text_of("h2") == [words[verdict]]
    assert page.text_of("ul", "reasons")[0].split("\n")[1:-1] == list(analysis.decision.reasons)
    assert "uncalibrated: no error rate belongs to these thresholds" in page.body


def test_every_check_is_listed_with_value_threshold_and_outcome() -> None:
    """A reader can see how near a value came to its threshold, also for the rules that held."""
    analysis = make_analysis([" Paris", " is"], doubt=1.0)
    page = Page(render_report(analysis))
    for check in analysis.decision.checks:
        assert number(check.lower) in page.text_of("div", "rules")[0]
        assert number(check.threshold) in page.text_of("div", "rules")[0]
    assert page.text_of("span", "where")


def test_the_text_is_on_the_page_character_for_character() -> None:
    """Copying the coloured text gives the generated text."""
    analysis = make_analysis([" Paris", ",", "\n", "\t", "then", " äöü 漢字 مرحبا 👩\u200d🔬"])
    page = Page(render_report(analysis))
    assert page.text_of("span", "tokens") == [analysis.generated_text]


def test_tokens_that_share_a_character_show_it_once() -> None:
    """An emoji made of several tokens is not shown several times."""
    analysis = make_analysis(["é", "x"])
    offsets = np.array([[0, 1], [0, 1]])
    generation = dataclasses.replace(analysis.generation, text="é", offsets=offsets)
    page = Page(render_report(analyze_generation(generation, analysis.config)))
    assert page.text_of("span", "tokens") == ["é"]
    assert len(page.all("span", "t")) == 2


def test_text_that_no_token_covers_is_not_lost() -> None:
    """A gap between the tokens' spans is shown without a colour."""
    analysis = make_analysis(["ab", "cd"])
    generation = dataclasses.replace(analysis.generation, offsets=np.array([[0, 1], [2, 3]]))
    page = Page(render_report(analyze_generation(generation, analysis.config)))
    assert page.text_of("span", "tokens") == ["abcd"]
    assert page.text_of("span", "t") == ["a", "c"]


def test_colour_follows_surprisal() -> None:
    """A surprising token has a later step of the scale than an expected one."""
    analysis = make_analysis([" sure", " doubt"])
    steps = dataclasses.replace(analysis.generation.steps, logprob=np.array([-0.1, -3.6]))
    generation = dataclasses.replace(analysis.generation, steps=steps)
    page = Page(render_report(analyze_generation(generation, analysis.config)))
    classes = [page.elements[i][1]["class"].split()[1] for i in page.all("span", "t")]
    assert classes == ["s1", "s10"]


@pytest.mark.parametrize("payload", HOSTILE)
def test_hostile_text_stays_text(payload: str) -> None:
    """Neither the model nor the prompt can add an element, an attribute or a script to the page."""
    innocent = Page(render_report(make_analysis([" a", "b"], prompt=(Message("user", "c"),))))
    tokens = [" a", payload]
    page = Page(render_report(make_analysis(tokens, prompt=(Message(payload, payload),))))
    allowed = {"i"}  # marks of line ends and hidden characters
    structure = [(tag, sorted(attributes)) for tag, attributes in page.elements if tag not in allowed]
    expected = [(tag, sorted(attributes)) for tag, attributes in innocent.elements if tag not in allowed]
    assert structure == expected
    assert page.comments == []
    assert page.data[0]["labels"] == [label(" a"), label(payload)]


@pytest.mark.parametrize(
    "char", ["\u202e", "\u2066", "\u200b", "\ufeff", "\x00", "\x1b", "\U000e0041", "\u2028"]
)
def test_invisible_and_direction_changing_characters_are_named(char: str) -> None:
    """Text cannot be turned around or hide a message: the reader sees the code point, not its effect."""
    html = render_report(make_analysis([f" a{char}b"], prompt=f"c{char}d"))
    assert char not in html
    marks = [Page(html).elements[i][1]["data-c"] for i in Page(html).all("i", "hidden-char")]
    assert set(marks) == {f"U+{ord(char):04X}"}
    assert f"⟨U+{ord(char):04X}⟩" in label(char)


def test_piled_up_marks_do_not_climb_over_the_lines_above() -> None:
    """A letter with fifty accents is shown with a few of them and the rest named."""
    assert label("e" + "\u0301" * 50, 1000).count("\u0301") == 8


def test_nothing_is_loaded_from_anywhere() -> None:
    """The page opens without a network, and tells nobody that it was opened."""
    html = render_report([make_analysis([" Paris", " is"]), make_analysis([" it"])])
    assert re.findall(r"https?:|//|@import|url\(|\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon", html) == []
    page = Page(html)
    for tag, attributes in page.elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not attributes.keys() & {"src", "srcset", "action", "style", "data", "formaction", "ping"}
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("href", "#").startswith("#")
    assert ("meta", {"name": "referrer", "content": "no-referrer"}) in page.elements


def test_policy_names_exactly_the_inline_content() -> None:
    """A browser runs the report's own script and style, and nothing that was slipped in."""
    page = Page(render_report(make_analysis([" Paris"])))
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    scripts = [page.text(i) for i in page.all("script") if "type" not in page.elements[i][1]]

    def hashes(contents: list[str]) -> str:
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in contents]
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == hashes(scripts)
    assert rules["style-src"] == hashes(page.text_of("style"))
    assert rules["base-uri"] == rules["form-action"] == "'none'"


def test_chart_library_comes_with_its_licence() -> None:
    """Whoever passes a report on passes the licence of what is in it on too."""
    html = render_report(make_analysis([" Paris"]))
    assert "uPlot 1.6.32, MIT licence" in html
    assert "Permission is hereby granted, free of charge" in html


def test_zero_tokens_are_said_and_nothing_is_drawn() -> None:
    """An empty answer gives a page that says so, without empty curves."""
    page = Page(render_report(make_analysis([])))
    assert "The model generated no token" in page.body
    assert page.all("figure") == []
    assert "not measured" in page.text_of("table")[0]
    assert "end" in page.text_of("span", "stop")[0]


def test_what_was_not_measured_is_said() -> None:
    """A backend without log-probabilities gives words, never a zero or a made-up colour."""
    page = Page(render_report(make_analysis([" a", " b"], steps=unmeasured(2))))
    assert "No probability was measured" in page.body
    assert [text.count("Not measured") for text in page.text_of("figure")] == [1, 1, 1, 1]
    assert page.all("div", "plot") == []
    assert {page.elements[i][1]["class"] for i in page.all("span", "t")} == {"t sx"}
    assert page.data[0]["surprisal"] == [None, None]
    values = [t.strip() for t in page.text_of("td", "n") if "." in t]
    assert set(values) <= {"2.5"}


def test_bounds_are_shown_as_bounds() -> None:
    """A truncated backend's entropy is an interval in the rules, the table and the curve's data."""
    analysis = make_analysis([" a", " b"], steps=truncated(2))
    page = Page(render_report(analysis))
    bounds = interval(analysis.signals.max_entropy_lower, analysis.signals.max_entropy_upper)
    assert " to " in bounds
    assert bounds in page.text_of("div", "rules")[0]
    assert page.body.count(bounds) >= 3
    assert page.data[0]["entropy_upper"] != page.data[0]["entropy"]
    assert "bounds of the entropy" in page.body


def test_lower_bound_alone_is_no_value() -> None:
    """Without the vocabulary's size there is no upper bound, and the page says 'at least'."""
    page = Page(render_report(make_analysis([" a"], steps=truncated(1, vocab_size=None))))
    assert "at least" in page.text_of("div", "rules")[0]
    assert page.data[0]["entropy_upper"] == [None]


def test_no_candidate_recorded_is_no_error() -> None:
    """K = 0 leaves the alternatives out and keeps the rest."""
    none = np.empty((1, 0))
    steps = TokenSteps.build(token_ids=[0], logprob=[-0.5], top_ids=none, top_logprobs=none)
    page = Page(render_report(make_analysis([" a"], steps=steps)))
    assert page.data[0]["top"] == [[]]


def test_same_analysis_gives_the_same_bytes() -> None:
    """A report can be compared and signed."""
    analysis = make_analysis([" Paris", " is", " it"])
    assert render_report(analysis) == render_report((analysis,)) == render_report([analysis])


def test_several_analyses_share_a_page_with_an_overview() -> None:
    """The demo's generations are compared in one table, each linked to its own section."""
    analyses = [make_analysis([" Paris"]), make_analysis([" Rome", "?"], doubt=1.0), make_analysis([])]
    page = Page(render_report(analyses))
    assert len(page.all("section")) == len(page.data) == 3
    links = [page.elements[i][1]["href"] for i in page.all("a") if "data-token" not in page.elements[i][1]]
    assert links == ["#g1", "#g2", "#g3"]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not Page(render_report(analyses[0])).all("table", "overview")


def test_no_analysis_is_refused() -> None:
    """An empty list is a caller's mistake, not an empty page."""
    with pytest.raises(ValueError, match="at least one"):
        render_report([])


@pytest.mark.parametrize(("count", "most"), [(150, 300_000), (2000, 1_500_000)])
def test_report_stays_small(count: int, most: int) -> None:
    """A report can be mailed."""
    html = render_report(make_analysis([f" word{i % 97}" for i in range(count)], finish_reason="length"))
    assert len(html.encode()) < most
    assert len(Page(html).all("span", "t")) == count


def test_without_script_the_numbers_are_there() -> None:
    """A reader whose browser runs no script has every token's numbers in a table."""
    analysis = make_analysis([" Paris", " is"])
    table = Page(render_report(analysis)).text_of("table", "rows")[0]
    for m in analysis.metrics:
        for value in (m.surprisal, m.entropy, m.logit_gap, m.energy):
            assert number(value) in table
        assert probability(m.probability) in table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not measured"),
        (float("nan"), "not measured"),
        (float("inf"), "beyond 10³⁰⁸"),
        (0.0, "0"),
        (2.61234, "2.612"),
        (-79.157, "−79.16"),
        (79459.0, "79,459"),
        (0.00012345, "1.2 × 10⁻⁴"),
        (3.2e9, "3.2 × 10⁹"),
    ],
)
def test_numbers_are_written_for_people(value: float | None, text: str) -> None:
    """Very small and very large numbers stay readable, and a missing one is a word."""
    assert number(value) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (1.0, "> 99.9 %"),
        (0.25, "25.0 %"),
        (0.0123, "1.2 %"),
        (1.3e-5, "1.3 × 10⁻⁵"),
        (0.0, "0"),
        (None, "not measured"),
    ],
)
def test_probabilities_are_written_for_people(p: float | None, text: str) -> None:
    """A probability is a percentage as long as that says something."""
    assert probability(p) == text
