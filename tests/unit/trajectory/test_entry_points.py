"""Bad input at every way into the monitor: the same refusal everywhere, before any work is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("torch")

from cert.backends.local import LocalBackend
from cert.core.errors import BatchError, CertError, ConfigurationError, InputError, PromptTooLongError
from cert.trajectory import HamiltonianMonitor, TrajectoryAnalysis

Way = Callable[..., Any]


@pytest.fixture(scope="module")
def monitor() -> Iterator[HamiltonianMonitor]:
    backend = LocalBackend.load("reference")
    yield HamiltonianMonitor(backend=backend)
    backend.close()


def batch(monitor: HamiltonianMonitor, prompt: Any, **options: Any) -> Any:
    return one_of(monitor.analyze_batch([prompt], return_exceptions=True, **options))


def batch_async(monitor: HamiltonianMonitor, prompt: Any, **options: Any) -> Any:
    return one_of(asyncio.run(monitor.analyze_batch_async([prompt], return_exceptions=True, **options)))


def one_of(outcomes: Any) -> Any:
    (outcome,) = outcomes
    if isinstance(outcome, CertError):
        raise outcome
    return outcome


def stream(monitor: HamiltonianMonitor, prompt: Any, **options: Any) -> Any:
    with monitor.stream(prompt, **options) as tokens:
        list(tokens)
    return tokens.analysis


def stream_async(monitor: HamiltonianMonitor, prompt: Any, **options: Any) -> Any:
    async def read() -> Any:
        async with monitor.stream_async(prompt, **options) as tokens:
            async for _ in tokens:
                pass
        return tokens.analysis

    return asyncio.run(read())


def samples(monitor: HamiltonianMonitor, prompt: Any, **options: Any) -> Any:
    try:
        return monitor.analyze_samples(prompt, 2, **options)
    except BatchError as error:  # of several samples that fail, each by itself, for the same reason
        first, second = error.results
        assert type(first) is type(second)
        raise first from None


GENERATING: dict[str, Way] = {
    "analyze": lambda monitor, prompt, **options: monitor.analyze(prompt, **options),
    "analyze_async": lambda monitor, prompt, **options: asyncio.run(monitor.analyze_async(prompt, **options)),
    "analyze_batch": batch,
    "analyze_batch_async": batch_async,
    "stream": stream,
    "stream_async": stream_async,
    "analyze_samples": samples,
}
SCORING: dict[str, Way] = {
    "score": lambda monitor, prompt, **options: monitor.score(prompt, " b", **options),
    "score_async": lambda monitor, prompt, **options: asyncio.run(
        monitor.score_async(prompt, " b", **options)
    ),
}
WAYS = GENERATING | SCORING
by_name = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
generating = pytest.mark.parametrize("way", GENERATING.values(), ids=GENERATING)

PROMPTS: list[tuple[Any, type[CertError]]] = [
    (None, InputError),
    (42, InputError),
    (b"bytes", InputError),
    ("", InputError),
    (" \n\t", InputError),
    ([], InputError),
    ({"role": "user", "content": "x"}, InputError),
    ([{"role": "user"}], InputError),
    ([{"role": "user", "content": None}], InputError),
    ([{"role": "user", "content": "  "}], InputError),
    (["text"], InputError),
    ("a\ud800", InputError),
    ([{"role": "user\ud800", "content": "x"}], InputError),
    ("x" * 10_001, PromptTooLongError),
    ("x " * 4_000, PromptTooLongError),
]


@by_name
@pytest.mark.parametrize(("prompt", "kind"), PROMPTS, ids=range(len(PROMPTS)))
def test_a_prompt_that_cannot_be_worked_on_is_refused_alike(monitor, way, prompt, kind):
    """Whoever moves a program from one call to another would meet other errors, or none."""
    with pytest.raises(kind):
        way(monitor, prompt)


@by_name
@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_timeout_that_is_none_is_refused_alike(monitor, way, seconds):
    """A limit that never ends the work, or ends it before it begins, is a slip."""
    with pytest.raises(ConfigurationError):
        way(monitor, "The", timeout=seconds)


@by_name
@pytest.mark.parametrize("seconds", [1e300, float("inf")])
def test_a_timeout_beyond_all_clocks_is_no_limit(monitor, way, seconds):
    """Whoever computes a limit, and gets a huge one, wants an answer and no OverflowError."""
    options = {} if way in SCORING.values() else {"max_new_tokens": 2}
    assert way(monitor, "The", timeout=seconds, **options) is not None


OPTIONS: list[dict[str, Any]] = [
    {"temperature": float("nan")},
    {"temperature": float("inf")},
    {"temperature": -0.5},
    {"top_p": 0.0},
    {"top_p": float("nan")},
    {"sampling_top_k": -1},
    {"max_new_tokens": -1},
    {"seed": -1},
    {"seed": 2**63},
]


@generating
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, *options.items())))
def test_settings_that_cannot_be_right_are_refused_alike(monitor, way, options):
    """A NaN that comes from a broken configuration must not become an answer."""
    with pytest.raises(ConfigurationError):
        way(monitor, "The", **options)


@pytest.mark.parametrize(
    "prompt", ["\u202eabc\u2066", "\ufeffabc", "a\0b", "🙂" * 20, "ا" * 20, "\x1b[31mred"]
)
@by_name
def test_unusual_text_is_worked_on_alike(monitor, way, prompt):
    """Text in any script, with marks, zero bytes or escapes, is a prompt like any other."""
    options = {} if way in SCORING.values() else {"max_new_tokens": 2}
    result = way(monitor, prompt, **options)
    for analysis in getattr(result, "analyses", (result,)):
        assert isinstance(analysis, TrajectoryAnalysis)
        assert analysis.generation.prompt == prompt


def test_one_bad_prompt_of_a_batch_is_named_after_the_others_are_done(monitor):
    """By default too, no answer that was paid for is lost to another's slip."""
    with pytest.raises(BatchError) as raised:
        monitor.analyze_batch(["The", "", "At"], max_new_tokens=2)
    first, second, third = raised.value.results
    assert isinstance(second, InputError)
    assert isinstance(first, TrajectoryAnalysis)
    assert isinstance(third, TrajectoryAnalysis)
