"""The four panels: what is drawn, what is a gap, and what a figure must never touch."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.collections import PolyCollection

from cert.backends.base import Generation, ModelIdentity, Sampling
from cert.core.errors import OutputError
from cert.signals import TokenSteps, reduce_logits
from cert.trajectory import TrajectoryAnalysis, TrajectoryConfig
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.plots import Panel, draw_panels, plot_trajectory, trajectory_panels

PNG = b"\x89PNG\r\n\x1a\n"
VOCABULARY = 50


class Letters:
    """A vocabulary whose every token is one letter."""

    def text(self, token_id: int) -> str:
        """The text of one token."""
        return chr(97 + token_id % 26)


def analysis_of(steps: TokenSteps, name: str = "some/model", **config: object) -> TrajectoryAnalysis:
    """The analysis of given steps."""
    count = len(steps)
    span = np.arange(count, dtype=np.int64)
    generation = Generation(
        prompt="What is this?",
        text="x" * count,
        steps=steps,
        offsets=np.stack([span, span + 1], axis=1),
        finish_reason="stop",
        stop_step=None,
        prompt_tokens=4,
        sampling=Sampling(),
        model=ModelIdentity(name, None, "transformers", VOCABULARY, 512),
        logprobs_mode="raw",
        vocabulary=Letters(),
        duration_s=0.1,
    )
    return analyze_generation(generation, TrajectoryConfig(**config))  # type: ignore[arg-type]


def random_steps(count: int) -> TokenSteps:
    """Steps of a fixed random law."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3.0, size=(count, VOCABULARY))
    return reduce_logits(logits, rng.integers(0, VOCABULARY, count), 10)


def top_only(count: int, vocab_size: int | None = VOCABULARY) -> TokenSteps:
    """Steps of a server that shows three candidates."""
    top = np.log(np.tile([0.5, 0.2, 0.1], (count, 1)))
    return TokenSteps.build(
        token_ids=np.zeros(count), logprob=top[:, 0], top_ids=np.tile(np.arange(3), (count, 1)),
        top_logprobs=top, vocab_size=vocab_size,
    )  # fmt: skip


def unseen(count: int) -> TokenSteps:
    """Steps of a server that shows no probability."""
    nothing = np.full(count, np.nan)
    return TokenSteps.build(
        token_ids=np.zeros(count), logprob=nothing, top_ids=np.empty((count, 0)),
        top_logprobs=np.empty((count, 0)),
    )  # fmt: skip


def words(figure) -> str:
    """All text that a figure shows."""
    parts = [text.get_text() for text in figure.texts] + [figure.get_suptitle()]
    for axes in figure.axes:
        parts += [axes.get_title("left"), caption(axes), axes.get_ylabel()]
        parts += [text.get_text() for text in axes.texts]
        parts += [text.get_text() for text in axes.get_legend().get_texts()] if axes.get_legend() else []
    return "\n".join(parts)


def caption(axes) -> str:
    """What stands below a panel, in one line."""
    return axes.get_xlabel().replace("\n", " ")


def line(axes, index: int = 0) -> np.ndarray:
    """The values of a line of a panel: the curve, the dots of tokens that stand alone, then the guides."""
    return np.asarray(axes.lines[index].get_ydata(), dtype=float)


def test_the_four_panels_draw_the_signals_and_their_thresholds():
    """What a user reads off the plot are the numbers of the analysis, beside the thresholds in force."""
    analysis = analysis_of(
        random_steps(12), perplexity_threshold=40.0, entropy_threshold=2.25, surprise_threshold=7.0
    )
    figure = plot_trajectory(analysis)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["Uncertainty", "Spread", "Energy", "Cumulative surprise"]
    drawn = [line(axes) for axes in figure.axes]
    step, running = analysis.step, analysis.running
    expected = [step.perplexity, step.entropy_lower, analysis.energy, running.cumulative_surprise]
    for ours, theirs in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    levels = [{line(axes, i)[0] for i in range(2, len(axes.lines))} for axes in figure.axes]
    assert levels == [{40.0, analysis.avg_perplexity}, {2.25}, {1.0, 2.0}, {7.0}]


@pytest.mark.parametrize("count", [0, 1, 2, 5_000])
@pytest.mark.parametrize("kind", [random_steps, top_only, unseen])
def test_any_length_is_drawn_without_a_warning(tmp_path, kind, count):
    """No answer is too short or too long to be looked at."""
    path = tmp_path / "plot.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_trajectory(analysis_of(kind(count)), path)
    assert path.read_bytes().startswith(PNG)


def test_what_is_not_measured_is_a_gap_with_a_note():
    """A line through a gap, or a zero in it, would be a measurement that nobody made."""
    values = np.array([1.0, np.nan, 3.0, np.inf, 2.0, 2.5])
    figure = draw_panels([Panel("P", "u", values)], "t")
    (axes, _) = figure.axes
    np.testing.assert_array_equal(line(axes), [1.0, np.nan, 3.0, np.nan, 2.0, 2.5])
    assert "Not measured: 1 of 6 tokens. Beyond the scale: 1 of 6 tokens." in words(figure)
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), [0, 2])  # alone between gaps: dots


def test_one_token_is_visible():
    """A line of one point has no length."""
    figure = plot_trajectory(analysis_of(random_steps(1)))
    for axes in figure.axes:
        assert axes.lines[1].get_marker() == "o"
        assert len(line(axes, 1)) == 1


@pytest.mark.parametrize(("steps", "said"), [(random_steps(0), "no token was generated"), (unseen(3), "")])
def test_nothing_measured_is_said_in_every_panel(steps, said):
    """An empty panel could be taken for a broken plot, or for a flat line at zero."""
    figure = plot_trajectory(analysis_of(steps))
    assert "not measured" in figure.get_suptitle()
    for axes in figure.axes:
        assert axes.texts[0].get_text().startswith("not measured")
        assert said in axes.texts[0].get_text()


def test_bounds_are_drawn_as_a_band():
    """One line would claim an entropy that a server with its top candidates does not tell."""
    analysis = analysis_of(top_only(5))
    spread = plot_trajectory(analysis).axes[1]
    (band,) = [c for c in spread.collections if isinstance(c, PolyCollection)]
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    assert heights.min() == pytest.approx(analysis.step.entropy_lower[0])
    assert heights.max() == pytest.approx(analysis.step.entropy_upper[0])
    assert "these are bounds" in caption(spread)


def test_an_upper_bound_that_is_not_known_is_said():
    """Without the size of the vocabulary the entropy has no upper bound."""
    spread = plot_trajectory(analysis_of(top_only(4, None))).axes[1]
    assert "Upper bound not known: 4 of 4 tokens." in caption(spread)


def test_a_rule_that_is_left_out_has_no_line():
    """A threshold that is not in force must not be drawn."""
    panels = trajectory_panels(
        analysis_of(
            random_steps(3), perplexity_threshold=None, entropy_threshold=None, surprise_threshold=None
        )
    )
    assert [len(panel.guides) for panel in panels] == [1, 0, 2, 0]
    assert np.isnan(panels[2].values).all()


@pytest.mark.parametrize("name", ["$\\frac{$", "名前\u202e", "a\nb", "<script>"])
def test_a_model_s_name_is_data(tmp_path, name):
    """A name with dollar signs or foreign letters must neither break a plot nor act as markup."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_trajectory(analysis_of(random_steps(3), name), tmp_path / "plot.svg")
    assert b"<script>" not in (tmp_path / "plot.svg").read_bytes()


def test_the_same_analysis_gives_the_same_file(tmp_path):
    """A committed figure must not change by being drawn again."""
    analysis = analysis_of(random_steps(5))
    for ending in ("png", "svg", "pdf"):
        files = [tmp_path / f"{i}.{ending}" for i in range(2)]
        for file in files:
            plot_trajectory(analysis, file)
        assert files[0].read_bytes() == files[1].read_bytes()


def test_an_unknown_format_is_refused_by_name(tmp_path):
    """And nothing is written."""
    with pytest.raises(OutputError, match="'xyz'"):
        plot_trajectory(analysis_of(random_steps(2)), tmp_path / "plot.xyz")
    with pytest.raises(OutputError, match="could not be written"):
        plot_trajectory(analysis_of(random_steps(2)), tmp_path / "no" / "plot.png")
    assert list(tmp_path.iterdir()) == []


def test_the_caller_s_backend_and_settings_stay_as_they_are(tmp_path):
    """A notebook that draws its own figures must not find them in another backend afterwards."""
    program = f"""
import sys
sys.path[:0] = {sys.path!r}
import matplotlib
def settings():
    # Asking for the backend would choose one.
    return {{name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}}
before = settings()
from test_plots import *
plot_trajectory(analysis_of(random_steps(3)), {str(tmp_path / "plot.svg")!r})
assert "matplotlib.pyplot" not in sys.modules
assert matplotlib.get_backend(auto_select=False) is None
assert settings() == before
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
