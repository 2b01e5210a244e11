"""The monitor as a user holds it, on the reference model."""

import json
import math

import numpy as np
import pytest

pytest.importorskip("torch")

from cert.backends.local import LocalBackend
from cert.core.errors import (
    ConfigurationError,
    InputError,
    ModelNotFoundError,
    PromptTooLongError,
)
from cert.trajectory import HamiltonianMonitor, Message, TrajectoryConfig


@pytest.fixture(scope="module")
def backend():
    return LocalBackend.load("reference")


@pytest.fixture
def monitor(backend):
    return HamiltonianMonitor(backend=backend)


def test_the_documented_program_runs():
    """The first program in the README."""
    with HamiltonianMonitor(model_name="reference", preload=True) as monitor:
        result = monitor.analyze("Explain quantum computing")
        assert isinstance(result.passed_quality_check, bool)
        assert float(f"{result.avg_perplexity:.2f}") >= 1.0
        assert float(f"{result.avg_entropy:.2f}") >= 0.0
        assert result.generation_steps == len(result.metrics)


@pytest.mark.parametrize("prompt", ["", "   \n\t", []])
def test_an_empty_prompt_is_refused(monitor, prompt):
    """There is nothing to continue, so there would be nothing to judge."""
    with pytest.raises(InputError, match="empty"):
        monitor.analyze(prompt)


@pytest.mark.parametrize("prompt", [None, 42, b"bytes", {"role": "user"}, object()])
def test_a_prompt_that_is_not_text_is_refused_by_its_type(monitor, prompt):
    """The message names what came, since the caller's variable held something else than thought."""
    with pytest.raises(InputError, match=type(prompt).__name__):
        monitor.analyze(prompt)


@pytest.mark.parametrize("messages", [[{"role": "user"}], [{"role": 1, "content": "x"}], ["text"], [None]])
def test_malformed_messages_are_refused(monitor, messages):
    """Half a message must not reach the template."""
    with pytest.raises(InputError, match="role and a content"):
        monitor.analyze(messages)


def test_the_limit_of_the_prompt_is_exact(monitor, backend):
    """10,000 characters are allowed (the context window may still say no), 10,001 are not."""
    with pytest.raises(PromptTooLongError, match="10,001 characters"):
        monitor.analyze("x" * 10_001)
    with pytest.raises(PromptTooLongError, match="context window"):
        monitor.analyze("x " * 5_000)


def test_a_lone_surrogate_is_refused(monitor):
    """Text from a broken decoder must not become a traceback of the tokenizer."""
    with pytest.raises(InputError, match="surrogate at character 1"):
        monitor.analyze("a\ud800b")


def test_temperature_zero_is_greedy_and_not_the_default(backend):
    """0 means 0: the same answer each time, whatever the config's default is."""
    monitor = HamiltonianMonitor(backend=backend, config=TrajectoryConfig(temperature=1.5))
    answers = {
        monitor.analyze("The birth city of", temperature=0.0, max_new_tokens=8).generated_text
        for _ in range(3)
    }
    assert len(answers) == 1
    sampling = monitor.analyze("The", temperature=0.0, max_new_tokens=1).generation.sampling
    assert sampling is not None
    assert sampling.greedy


def test_zero_new_tokens_are_not_measured(monitor):
    """No tokens, no numbers, no pass, and no division by zero."""
    result = monitor.analyze("The birth city of", max_new_tokens=0)
    assert (result.verdict, result.passed_quality_check) == ("not_measured", False)
    assert math.isnan(result.avg_perplexity)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["signals"]["perplexity"] is None


def test_a_threshold_beyond_the_vocabulary_is_refused_when_the_monitor_is_made(backend):
    """Told before any generation, and for a named model before any weight is read."""
    config = TrajectoryConfig(entropy_threshold=50.0)
    with pytest.raises(ConfigurationError, match="can never fail"):
        HamiltonianMonitor("reference", config=config)
    with pytest.raises(ConfigurationError, match="can never fail"):
        HamiltonianMonitor(backend=backend, config=config)


def test_a_missing_directory_is_told_when_the_monitor_is_made(tmp_path):
    """And not at the first request in production."""
    with pytest.raises(ModelNotFoundError):
        HamiltonianMonitor(str(tmp_path / "nope"))


def test_unload_frees_and_the_next_analysis_loads_again():
    """A service that unloads an idle model must come back by itself."""
    monitor = HamiltonianMonitor("reference")
    first = monitor.analyze("The birth city of", max_new_tokens=3).generated_text
    monitor.unload()
    assert monitor.analyze("The birth city of", max_new_tokens=3).generated_text == first


def test_messages_and_plain_text_are_different_questions(monitor):
    """A chat goes through the template; plain text is continued as it is."""
    chat = monitor.analyze([Message("user", "Where?")], max_new_tokens=2)
    as_mapping = monitor.analyze([{"role": "user", "content": "Where?"}], max_new_tokens=2)
    plain = monitor.analyze("Where?", max_new_tokens=2)
    assert (
        chat.generation.prompt_tokens == as_mapping.generation.prompt_tokens > plain.generation.prompt_tokens
    )
    np.testing.assert_array_equal(chat.step.surprisal, as_mapping.step.surprisal)


def test_a_repeated_analysis_has_the_same_bits(monitor):
    """Two auditors who repeat a greedy analysis on one machine must agree."""
    a, b = (monitor.analyze("The birth city of", max_new_tokens=10) for _ in range(2))
    assert a.generation.steps.logprob.tobytes() == b.generation.steps.logprob.tobytes()
    assert a.signals == b.signals
