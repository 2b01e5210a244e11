"""Version 3's names: they work, they say what replaces them, and they say what was never true of them."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import subprocess
import sys
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from cert.backends.base import Sampling
from cert.backends.loading import LoadOptions
from cert.core.errors import ConfigurationError, InputError, OutputError, ResourceError, UnsafeModelError
from cert.trajectory import TrajectoryConfig as CurrentConfig
from cert.trajectory import v3
from cert.trajectory.v3 import loading as v3_loading

pytestmark = pytest.mark.filterwarnings("ignore:.* is version 3's:DeprecationWarning")
quiet_rule = pytest.mark.filterwarnings("ignore:version 3's entropy rule cannot fail")

PROMPT = "The birth city of"
Pair = tuple[Any, Any]  # a model and its tokenizer


@pytest.fixture(scope="module")
def loaded():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return v3.load_model_for_monitoring("reference", device="cpu")


@pytest.fixture
def monitor(loaded):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return v3.ReasoningTrajectoryMonitor(*loaded)


@pytest.fixture
def analyzer():
    return v3.CERTTrajectoryAnalyzer(v3.TrajectoryConfig(max_new_tokens=6, entropy_threshold=1.0))


def failing() -> v3.TrajectoryConfig:
    """Settings whose entropy rule can fail, so that nothing but deprecations is warned of."""
    return v3.TrajectoryConfig(entropy_threshold=1.0, max_new_tokens=3)


# --- warnings ---

USES = {
    "load_model_for_monitoring": lambda model, tok: v3.load_model_for_monitoring("reference", device="cpu"),
    "ReasoningTrajectoryMonitor": lambda model, tok: v3.ReasoningTrajectoryMonitor(model, tok, failing()),
    "analyze_trajectory": lambda model, tok: v3.analyze_trajectory(model, tok, PROMPT, failing()),
    "CERTTrajectoryAnalyzer": lambda model, tok: v3.CERTTrajectoryAnalyzer(failing()),
}


@pytest.mark.parametrize("name", USES)
def test_a_name_warns_once_at_the_line_that_uses_it(loaded: Pair, name):
    """The warning must lead to the user's own line and name what to write there instead."""
    use = USES[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        use(*loaded)
    (warning,) = [w for w in caught if w.category is DeprecationWarning]
    assert (warning.filename, warning.lineno) == (__file__, use.__code__.co_firstlineno)
    assert str(warning.message).startswith(f"{name} is version 3's: use HamiltonianMonitor")
    assert Path(__file__).parents[3].joinpath(str(warning.message).rpartition("see ")[2]).is_file()


@quiet_rule
def test_the_visualizer_and_unload_warn_at_the_user_s_line(monitor):
    """As for the other names."""
    pytest.importorskip("matplotlib")
    result = monitor.monitor_generation(PROMPT, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        here = sys._getframe().f_lineno
        v3.HamiltonianVisualizer.plot_trajectory(result)
        v3.HamiltonianVisualizer.generate_report(result)
        v3.HamiltonianVisualizer.generate_compliance_report(result)
        v3.unload_model(torch.nn.Linear(1, 1), None)
    assert [(w.category, w.filename, w.lineno - here) for w in caught] == [
        (DeprecationWarning, __file__, line) for line in (1, 2, 3, 4)
    ]


def test_the_entropy_rule_that_cannot_fail_is_warned_of_at_the_user_s_line(loaded: Pair):
    """A gate with a rule that passes everything is weaker than its user believes: ln 10 = 2.303 < 2.5."""
    for use in (
        lambda: v3.ReasoningTrajectoryMonitor(*loaded),
        lambda: v3.CERTTrajectoryAnalyzer(),  # noqa: PLW0108  # the line is what is tested
        lambda: v3.analyze_trajectory(*loaded, PROMPT, v3.TrajectoryConfig(max_new_tokens=1)),
    ):
        with pytest.warns(v3.RuleCannotFailWarning, match=r"never exceeds 2\.303 .* 2\.5") as caught:
            use()
        (warning,) = [w for w in caught if w.category is v3.RuleCannotFailWarning]
        assert (warning.filename, warning.lineno) == (__file__, use.__code__.co_firstlineno)


def test_a_rule_that_can_fail_is_not_warned_of(loaded: Pair):
    """A warning that is always there is not read."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", v3.RuleCannotFailWarning)
        v3.ReasoningTrajectoryMonitor(*loaded, v3.TrajectoryConfig(entropy_threshold=2.3))
        v3.ReasoningTrajectoryMonitor(*loaded, v3.TrajectoryConfig(top_k=13))
        v3.ReasoningTrajectoryMonitor(*loaded, v3.TrajectoryConfig(entropy_threshold=None))


def test_importing_the_names_loads_no_heavy_library():
    """A program that only imports must not wait seconds for torch, nor need matplotlib."""
    program = "import sys; import cert.trajectory.v3; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "matplotlib", "numba", "scipy"} & set(done.stdout.split())


# --- the rules ---


@quiet_rule
def test_a_result_says_that_its_entropy_rule_could_not_fail(monitor):
    """The pass of such a rule must not read like a check that was made."""
    result = monitor.monitor_generation(PROMPT, 3, 0.0)
    assert not result.entropy_rule_could_fail
    (reason,) = [c.reason for c in result.decision.checks if c.signal == "top_k_entropy"]
    assert "this rule could not fail: at most 2.303 is reachable" in reason
    assert result.to_dict()["entropy_rule_could_fail"] is False
    assert "could not fail" in v3.HamiltonianVisualizer.generate_report(result)


def test_the_entropy_rule_is_on_the_top_k_entropy(loaded: Pair):
    """The full entropy is larger: version 3's threshold on it would fail what version 3 passed."""
    probe = v3.analyze_trajectory(*loaded, PROMPT, v3.TrajectoryConfig(temperature=0, entropy_threshold=1))
    top, full = probe.max_entropy, probe.analysis.max_entropy
    assert top < full
    between = v3.TrajectoryConfig(temperature=0, entropy_threshold=(top + min(full, 2.3)) / 2)
    result = v3.analyze_trajectory(*loaded, PROMPT, between)
    assert (result.verdict, result.analysis.verdict) == ("pass", "fail")
    below = v3.TrajectoryConfig(temperature=0, entropy_threshold=top * 0.99)
    assert v3.analyze_trajectory(*loaded, PROMPT, below).verdict == "fail"


def test_the_other_rules_decide_too(loaded: Pair):
    """Each of the three thresholds can fail a generation by itself."""
    for perplexity, surprise in ((1.0001, None), (None, 1e-9)):
        config = v3.TrajectoryConfig(perplexity, None, surprise, temperature=2.0)
        result = v3.ReasoningTrajectoryMonitor(*loaded, config).monitor_generation(PROMPT, seed=4)
        assert result.verdict == "fail"


def test_a_threshold_above_the_full_entropy_is_no_obstacle(loaded: Pair):
    """Version 3 took any threshold, so a program with a large one still runs; energy is then not measured."""
    with pytest.warns(v3.RuleCannotFailWarning):
        monitor = v3.ReasoningTrajectoryMonitor(*loaded, v3.TrajectoryConfig(entropy_threshold=99.0))
    result = monitor.monitor_generation(PROMPT, 3)
    assert result.verdict == "pass"
    assert np.isnan(result.analysis.energy).all()


@pytest.mark.parametrize(
    "change",
    [{"perplexity_threshold": 1.0}, {"entropy_threshold": math.nan}, {"temperature": -1}, {"top_k": 0}],
)
def test_settings_that_cannot_be_right_are_refused(change):
    """A threshold of NaN would fail nothing at all."""
    with pytest.raises(ConfigurationError):
        v3.TrajectoryConfig(**change)


def test_a_config_of_version_4_is_taken_as_it_stands(loaded: Pair):
    """Its greedy default and its K are the user's own settings, not to be replaced in silence."""
    monitor = v3.ReasoningTrajectoryMonitor(*loaded, CurrentConfig(max_new_tokens=2))
    result = monitor.monitor_generation(PROMPT)
    assert result.analysis.generation.sampling == Sampling()
    assert result.analysis.generation.steps.top_k == 20
    assert result.entropy_rule_could_fail


# --- the monitor ---


@quiet_rule
def test_zero_is_zero(monitor):
    """0 tokens and temperature 0 mean that; version 3 took its defaults instead."""
    nothing = monitor.monitor_generation(PROMPT, max_new_tokens=0)
    assert (nothing.generation_steps, nothing.verdict, nothing.passed_quality_check) == (
        0,
        "not_measured",
        False,
    )
    assert math.isnan(nothing.avg_perplexity)
    assert nothing.to_dict()["summary"]["avg_perplexity"] is None
    greedy = {monitor.monitor_generation(PROMPT, 8, temperature=0).generated_text for _ in range(3)}
    assert len(greedy) == 1


@quiet_rule
def test_torch_s_own_seed_makes_a_program_repeatable(monitor):
    """Programs of version 3 called torch.manual_seed; without it, samples differ."""

    def sample(seed: int) -> str:
        torch.manual_seed(seed)
        return str(monitor.monitor_generation(PROMPT, 20, temperature=1.5).generated_text)

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(5)}) > 1
    torch.manual_seed(1)
    assert len({monitor.monitor_generation(PROMPT, 20, temperature=1.5).generated_text for _ in range(5)}) > 1


@quiet_rule
def test_the_last_metrics_are_kept(monitor):
    """Version 3's ``metrics_history`` is that of the last generation."""
    assert monitor.metrics_history == []
    result = monitor.monitor_generation(PROMPT, 4)
    assert monitor.metrics_history == result.metrics
    assert len(result.metrics) == 4


@quiet_rule
@pytest.mark.parametrize("prompt", ["", None, 3, "a\ud800"])
def test_a_prompt_that_is_no_text_is_refused(monitor, prompt):
    """With our own error, not a traceback of the tokenizer."""
    with pytest.raises(InputError):
        monitor.monitor_generation(prompt)


@quiet_rule
def test_a_long_prompt_is_limited_by_the_model_alone(loaded: Pair):
    """Version 3 had no limit of 10,000 characters; the context window still holds."""
    monitor = v3.ReasoningTrajectoryMonitor(*loaded)
    with pytest.raises(InputError, match="context window"):
        monitor.monitor_generation("x " * 6_000)


@quiet_rule
def test_the_wrong_device_is_told(loaded: Pair):
    """Version 3 failed within torch when model and inputs were apart."""
    v3.ReasoningTrajectoryMonitor(*loaded, device="cpu")
    with pytest.raises(ConfigurationError, match="on 'cpu' and device says 'cuda'"):
        v3.ReasoningTrajectoryMonitor(*loaded, device="cuda:0")


@quiet_rule
def test_stop_strings_of_the_caller_s_model_are_kept(loaded: Pair):
    """They end an answer, and the model in the caller's hands stays as it was."""
    import copy

    model, tokenizer = loaded
    model = copy.copy(model)
    model.generation_config = copy.deepcopy(model.generation_config)
    prompt = "The birth city of Daphne Klara Penworth is"
    whole = v3.ReasoningTrajectoryMonitor(model, tokenizer).monitor_generation(prompt, 20, 0)
    stop = whole.metrics[2].token
    model.generation_config.stop_strings = [stop]
    cut = v3.ReasoningTrajectoryMonitor(model, tokenizer).monitor_generation(prompt, 20, 0)
    assert cut.generated_text == whole.generated_text[: whole.generated_text.index(stop) + len(stop)]
    assert model.generation_config.stop_strings == [stop]


# --- loading ---


@quiet_rule
def test_a_result_names_the_model_as_it_was_asked_for(loaded: Pair, monitor):
    """And not the directory of some machine."""
    assert monitor.monitor_generation(PROMPT, 1).model_name == "reference"
    model = loaded[0]
    bare = type("Bare", (), {"config": model.config})()
    assert v3_loading.origin_of(bare).name == str(model.config._name_or_path)


def tensors_of(module):
    """The weights of a module, and the numbers that bitsandbytes keeps beside them."""
    holders = [*module._parameters.values(), getattr(module, "state", None)]
    beside = [value for holder in holders if holder is not None for value in vars(holder).values()]
    return [tensor for tensor in (*holders, *beside) if isinstance(tensor, torch.Tensor)]


@pytest.mark.parametrize("use_8bit", [False, True])
def test_an_unloaded_model_says_so(use_8bit):
    """Its memory is given back even while variables still hold the model, and using it is our error."""
    if use_8bit:
        pytest.importorskip("bitsandbytes")
    model, tokenizer = v3.load_model_for_monitoring("reference", use_8bit, device="cpu")
    monitor = v3.ReasoningTrajectoryMonitor(model, tokenizer, failing())
    assert monitor.monitor_generation(PROMPT).generation_steps == 3
    weights = [weakref.ref(tensor) for module in model.modules() for tensor in tensors_of(module)]
    assert len(weights) > (80 if use_8bit else 40)
    v3.unload_model(model, tokenizer)
    assert [weight() for weight in weights if weight() is not None] == []
    with pytest.raises(ResourceError, match="unloaded"):
        monitor.monitor_generation(PROMPT)


def test_code_of_a_repository_is_not_run(tmp_path):
    """Version 3 trusted remote code; a directory that brings some is refused now."""
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModelForCausalLM": "evil.Model"}}')
    with pytest.raises(UnsafeModelError):
        v3.load_model_for_monitoring(tmp_path)


def options_of(monkeypatch, *arguments, cuda, library=True, **named):
    """The options that a call leads to, on a machine with or without CUDA and bitsandbytes."""
    seen = []

    class Loaded:
        name, revision, model, tokenizer = "m", None, torch.nn.Linear(1, 1), None

    def load(_, options):
        seen.append(options)
        return Loaded

    monkeypatch.setattr(v3_loading, "load_model", load)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object() if library else None)
    v3.load_model_for_monitoring("m", *arguments, **named)
    return seen[0]


def test_8_bit_weights_as_version_3_chose_them(monkeypatch):
    """By default on CUDA alone, where memory is short; what is asked for is done anywhere."""
    for arguments, named, cuda, expected in (
        ((), {}, True, "8bit"),
        ((), {}, False, None),
        ((), {"device": "cpu"}, True, None),
        ((False,), {}, True, None),
        ((), {"load_in_8bit": False}, True, None),
        ((True,), {"device": "cpu"}, False, "8bit"),
        ((), {"load_in_8bit": True}, False, "8bit"),
        ((True, "cuda"), {}, True, "8bit"),
        ((), {"options": LoadOptions()}, True, None),
    ):
        options = options_of(monkeypatch, *arguments, cuda=cuda, **named)
        assert options.quantization == expected, (arguments, named, cuda)


def test_without_the_extra_the_weights_stay_and_it_is_said(monkeypatch):
    """A program of version 3 still runs where bitsandbytes is missing, and its user hears of the memory."""
    with pytest.warns(UserWarning, match="quantization") as caught:
        options = options_of(monkeypatch, cuda=True, library=False)
    assert options.quantization is None
    assert Path(caught[-1].filename).name == Path(__file__).name


def test_contradicting_options_are_refused():
    """Two spellings of one option with two values have no right answer."""
    with pytest.raises(ConfigurationError, match="contradict"):
        v3.load_model_for_monitoring("reference", True, load_in_8bit=False)


# --- the analyzer ---


def test_several_prompts_and_their_statistics(loaded: Pair, analyzer):
    """The counts add up, and the averages are those of the results."""
    results = analyzer.analyze_model(*loaded, [PROMPT, "The major of", PROMPT])
    assert list(results) == [PROMPT, "The major of"]
    summary = analyzer.get_summary_statistics(results)
    assert summary["total_tests"] == 2
    assert summary["passed_tests"] + summary["failed_tests"] + summary["not_measured_tests"] == 2
    assert summary["pass_rate"] == summary["passed_tests"] / 2
    for name, field in (
        ("avg_perplexity", "avg_perplexity"),
        ("avg_entropy", "avg_entropy"),
        ("avg_surprise", "final_surprise"),
    ):
        assert summary[name] == pytest.approx(np.mean([getattr(r, field) for r in results.values()]))
    assert analyzer.results == {"reference": results}


def test_what_was_not_measured_is_counted_apart(loaded: Pair):
    """An empty answer is neither passed nor failed, and must not pull an average to zero."""
    empty = v3.CERTTrajectoryAnalyzer(v3.TrajectoryConfig(max_new_tokens=0, entropy_threshold=1.0))
    nothing = empty.analyze_model(*loaded, ["a", "b"])
    summary = empty.get_summary_statistics(nothing)
    assert (summary["failed_tests"], summary["not_measured_tests"], summary["pass_rate"]) == (0, 2, 0.0)
    assert math.isnan(summary["avg_perplexity"])
    some = v3.analyze_trajectory(*loaded, PROMPT, failing())
    assert empty.get_summary_statistics({"c": some, **nothing})["avg_perplexity"] == some.avg_perplexity
    assert math.isnan(empty.get_summary_statistics({})["pass_rate"])


def test_a_failing_prompt_leaves_the_finished_ones(loaded: Pair, analyzer):
    """An error in the hundredth prompt must not cost the ninety-nine before it."""
    with pytest.raises(InputError):
        analyzer.analyze_model(*loaded, [PROMPT, ""])
    assert list(analyzer.results["reference"]) == [PROMPT]


def test_one_text_is_not_a_list_of_letters(loaded: Pair, analyzer):
    """A string is a sequence too: each letter would be generated from."""
    with pytest.raises(InputError, match="list"):
        analyzer.analyze_model(*loaded, PROMPT)


def test_two_models_of_one_name_are_two(loaded: Pair, analyzer):
    """Version 3 kept the first model's monitor for every model of that name."""
    other, tokenizer = v3.load_model_for_monitoring("reference", device="cpu")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    greedy = v3.CERTTrajectoryAnalyzer(v3.TrajectoryConfig(temperature=0, entropy_threshold=1.0))
    first = greedy.analyze_model(*loaded, [PROMPT])[PROMPT]
    second = greedy.analyze_model(other, tokenizer, [PROMPT])[PROMPT]
    assert first.avg_perplexity != second.avg_perplexity


def strict(path: Path):
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{path.name} holds {name}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_everything_is_exported_to_one_file(loaded: Pair, analyzer, tmp_path):
    """Any JSON parser reads it, whatever was not measured."""
    results = analyzer.analyze_model(*loaded, [PROMPT])
    (path,) = analyzer.export_results(tmp_path / "results.json")
    data = strict(path)
    assert data["schema_version"] == 3
    assert data["models"]["reference"]["results"][PROMPT] == json.loads(json.dumps(results[PROMPT].to_dict()))
    assert data["models"]["reference"]["summary"]["total_tests"] == 1


def test_version_3_s_two_files_are_written_within_the_folder(loaded: Pair, analyzer, tmp_path):
    """A model's name with slashes or dots must not lead a file out of the folder."""
    results = analyzer.analyze_model(*loaded, [PROMPT])
    for name in ("Qwen/Qwen2.5-7B", "../../etc/passwd", "x" * 500, "a\0b"):
        folder = tmp_path / "out" / str(len(name))
        files = analyzer.export_results(results, folder, name)
        assert sorted(folder.iterdir()) == sorted(files)
        assert [file.name.split("_")[:2] for file in files] == [
            ["trajectory", "analysis"],
            ["trajectory", "summary"],
        ]
        assert list(strict(files[0])) == [PROMPT]
        assert strict(files[1])["total_tests"] == 1


def test_an_export_that_cannot_be_is_our_error(analyzer, tmp_path):
    """The folder is a file, the path a folder, or half of the arguments are missing."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        analyzer.export_results({}, tmp_path / "file", "m")
    with pytest.raises(OutputError):
        analyzer.export_results(tmp_path)
    with pytest.raises(InputError):
        analyzer.export_results({})


# --- the report and the plot ---


@quiet_rule
def test_the_report_claims_nothing_that_was_not_measured(monitor, tmp_path):
    """Version 3 wrote "approved for automated deployment" over uncalibrated thresholds."""
    result = monitor.monitor_generation(PROMPT, 3, 0)
    path = tmp_path / "report.txt"
    text = v3.HamiltonianVisualizer.generate_compliance_report(result, path)
    assert path.read_text(encoding="utf-8") == text
    assert "Verdict  passed an uncalibrated gate" in text
    assert "no error rate belongs to them" in text
    assert "They do not say whether the text is true." in text
    assert "no evidence of compliance" in text
    assert not re.search(r"reliab|guarant|approved|trustworth|safe|low risk|article", text, re.IGNORECASE)


@quiet_rule
def test_the_report_says_what_is_not_measured(monitor):
    """In words, for each number: an empty cell could be taken for zero."""
    text = v3.HamiltonianVisualizer.generate_report(monitor.monitor_generation(PROMPT, 0))
    assert "Verdict  not measured" in text
    measured = text.partition("Measured\n")[2].partition("\n\n")[0].splitlines()
    assert len(measured) == 7
    assert all(line.endswith("not measured") for line in measured)


@quiet_rule
def test_the_report_names_what_would_act_on_a_terminal(monitor):
    """A prompt with an escape sequence must not clear the screen of whoever reads the report."""
    text = v3.HamiltonianVisualizer.generate_report(monitor.monitor_generation("a\x1b[2J\u202eb\nc", 1))
    assert "⟨U+001B⟩[2J⟨U+202E⟩b\n  c" in text
    assert "\x1b" not in text


def test_the_report_and_the_plot_take_results_of_version_4(loaded: Pair):
    """Programs move over one call at a time."""
    pytest.importorskip("matplotlib")
    result = v3.analyze_trajectory(*loaded, PROMPT, failing()).analysis
    assert "Verdict" in v3.HamiltonianVisualizer.generate_report(result)
    spread = v3.HamiltonianVisualizer.plot_trajectory(result).axes[1]
    np.testing.assert_array_equal(spread.lines[0].get_ydata(), result.step.entropy_lower)


@quiet_rule
def test_the_plot_shows_version_3_s_entropy_and_what_it_can_reach(monitor, tmp_path):
    """The threshold that cannot be exceeded is drawn beside the largest value that is possible."""
    pytest.importorskip("matplotlib")
    result = monitor.monitor_generation(PROMPT, 5)
    path = tmp_path / "plot.png"
    figure = v3.HamiltonianVisualizer.plot_trajectory(result, save_path=path)
    assert path.stat().st_size > 1000
    spread = figure.axes[1]
    np.testing.assert_array_equal(spread.lines[0].get_ydata(), [m.top_k_entropy for m in result.metrics])
    assert [np.asarray(line.get_ydata())[0] for line in spread.lines[2:]] == [
        2.5,
        pytest.approx(math.log(10)),
    ]
    assert "could not fail" in spread.get_xlabel()
    assert figure.get_suptitle() == "reference: passed an uncalibrated gate"
