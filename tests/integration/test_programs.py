"""The programs that the project promised before it was written, as they stand, with their model there.

Each runs in a process of its own, in a folder that has a small model with random weights under the name
that the program uses.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

NAME = "Qwen/Qwen2.5-7B"

ONE = f"""
from cert.trajectory import HamiltonianMonitor

with HamiltonianMonitor(model_name="{NAME}", preload=True) as monitor:
    result = monitor.analyze("Explain quantum computing")
    if result.passed_quality_check:
        print(f"{{result.avg_perplexity:.2f}} {{result.avg_entropy:.2f}}")
"""

BATCH = """
from cert.trajectory import HamiltonianMonitor

monitor = HamiltonianMonitor(preload=True)
results = monitor.analyze_batch(["Explain AI", "What is machine learning?"], timeout=60.0)
"""

VERSION_3 = f"""
from cert.trajectory import ReasoningTrajectoryMonitor, load_model_for_monitoring    # v3
model, tokenizer = load_model_for_monitoring("{NAME}")
result = ReasoningTrajectoryMonitor(model, tokenizer).monitor_generation("Explain AI")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder in which the name of the hub's model is that of a small one."""
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    from cert.reference import weights

    tokenizer = AutoTokenizer.from_pretrained(weights.path())
    torch.manual_seed(5)
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 13,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    found = tmp_path_factory.mktemp("programs")
    Qwen2ForCausalLM(config).save_pretrained(found / NAME)
    tokenizer.save_pretrained(found / NAME)
    return found


@pytest.fixture
def run(folder, warm_python) -> Callable[[str, str], str]:
    """Run a program, and a line after it that tells of its results; gives what is printed."""

    def run(program: str, told: str) -> str:
        done = warm_python.run(f"{program}\n{told}", cwd=folder)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return str(done.stdout)

    return run


def test_one_analysis(folder):
    """The first program that anybody copies; it prints two numbers if the answer passed, else nothing."""
    told = "print(result.verdict, result.generation_steps, result.model_name)"
    command = [sys.executable, "-c", f"{ONE}\n{told}"]  # in a Python of its own, as a user has it
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *numbers, last = done.stdout.splitlines()
    verdict, steps, name = last.split()
    assert (verdict, name) != ("not_measured", "")
    assert 0 < int(steps) <= 150
    assert name == NAME
    assert len(numbers) == (1 if verdict == "pass" else 0)
    assert all(re.fullmatch(r"\d+\.\d\d \d+\.\d\d", line) for line in numbers)


def test_a_batch_without_a_name(run):
    """Without a name it is the model that comes with the package, offline, within the time."""
    told = run(BATCH, "print(monitor.model_name, [type(r).__name__ for r in results])")
    assert told.split(maxsplit=1) == ["reference", "['TrajectoryAnalysis', 'TrajectoryAnalysis']\n"]


def test_version_3(run):
    """A program of version 3 gets its fields, and a warning in place of a break."""
    names = ("avg_perplexity", "max_perplexity", "avg_entropy", "max_entropy", "final_surprise")
    fields = ", ".join(f"result.{name}" for name in (*names, "passed_quality_check"))
    told = run(VERSION_3, f"print({fields})")
    *numbers, passed = told.split()
    assert all(float(number) >= 0.0 for number in numbers)
    assert passed in ("True", "False")


def test_a_name_that_is_not_there_says_what_to_do(tmp_path, warm_python):
    """Whoever copies the program to a machine without a network has no such model yet."""
    done = warm_python.run(ONE, cwd=tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("cert.core.errors.ModelNotFoundError: ")
    assert NAME in last
