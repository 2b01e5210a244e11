"""Version 3's analysis of several prompts: results by model, summary statistics, JSON files."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, overload

import numpy as np

from cert.core.errors import InputError, OutputError
from cert.core.files import write_whole
from cert.trajectory.gate import json_number
from cert.trajectory.types import TrajectoryConfig as CurrentConfig
from cert.trajectory.v3.deprecation import deprecated, warn_of_rules
from cert.trajectory.v3.loading import origin_of
from cert.trajectory.v3.monitor import Watcher
from cert.trajectory.v3.types import TrajectoryAnalysis, TrajectoryConfig, rules_of

__all__ = ["CERTTrajectoryAnalyzer"]

_SCHEMA_VERSION = 3
_UNSAFE = re.compile(r"[^\w.\-]+")


class CERTTrajectoryAnalyzer:
    """Analyses several prompts on one model or more. Use `cert.trajectory.HamiltonianMonitor.analyze_batch`.

    Args:
        config: as in `ReasoningTrajectoryMonitor`.

    Attributes:
        results: by model name, what `analyze_model` has finished, also when a later prompt failed.
    """

    def __init__(self, config: TrajectoryConfig | CurrentConfig | None = None) -> None:
        deprecated("CERTTrajectoryAnalyzer", "HamiltonianMonitor.analyze_batch")
        self.config = TrajectoryConfig() if config is None else config
        self.results: dict[str, dict[str, TrajectoryAnalysis]] = {}
        self._rules = rules_of(config)
        self._watchers: dict[str, Watcher] = {}
        warn_of_rules(self._rules, None)

    def analyze_model(
        self, model: Any, tokenizer: Any, test_prompts: Sequence[str], device: str | None = None
    ) -> dict[str, TrajectoryAnalysis]:
        """Analyse each prompt, and return the results by prompt; equal prompts have one result, the last.

        Raises:
            InputError: ``test_prompts`` is one text instead of several.
            CertError: a prompt failed; those before it are in ``results``.
        """
        if isinstance(test_prompts, str):
            raise InputError("test_prompts must be a list of texts, not one text")
        watcher = self._watcher(model, tokenizer, device)
        kept = self.results.setdefault(origin_of(model).name, {})
        found: dict[str, TrajectoryAnalysis] = {}
        for prompt in test_prompts:
            found[prompt] = kept[prompt] = watcher.generate(prompt, None, None, None)
        return found

    def get_summary_statistics(self, results: Mapping[str, TrajectoryAnalysis]) -> dict[str, float]:
        """Return version 3's statistics and ``not_measured_tests``.

        The averages are over the results that were measured, NaN where none was. ``pass_rate`` is the share
        of all, NaN where there is none; no error rate belongs to it, since the rules are uncalibrated.
        """
        return _summary(results.values())

    @overload
    def export_results(
        self, results: Mapping[str, TrajectoryAnalysis], output_dir: str | os.PathLike[str], model_name: str
    ) -> list[Path]: ...

    @overload
    def export_results(self, results: str | os.PathLike[str]) -> list[Path]: ...

    def export_results(
        self,
        results: Mapping[str, TrajectoryAnalysis] | str | os.PathLike[str],
        output_dir: str | os.PathLike[str] | None = None,
        model_name: str | None = None,
    ) -> list[Path]:
        """Write results as JSON, each file whole or not at all.

        ``export_results(path)`` writes all results of this analyzer, by model, with their summaries.
        ``export_results(results, output_dir, model_name)`` writes version 3's two files,
        ``trajectory_analysis_…`` and ``trajectory_summary_…``, into a folder that is made if need be.

        Returns:
            The files.

        Raises:
            InputError: results without a folder and a model name.
            OutputError: a file or the folder cannot be written.
        """
        if not isinstance(results, Mapping):
            return [_write(Path(results), self._everything())]
        if output_dir is None or model_name is None:
            raise InputError("export_results needs a path, or results, a folder and a model name")
        return _export_folder(results, Path(output_dir), model_name)

    def _watcher(self, model: Any, tokenizer: Any, device: str | None) -> Watcher:
        # Two models may have one name: the weights decide.
        name = origin_of(model).name
        known = self._watchers.get(name)
        if known is None or known.model is not model:
            known = self._watchers[name] = Watcher(model, tokenizer, self._rules, device)
        return known

    def _everything(self) -> dict[str, Any]:
        return {
            "schema_version": _SCHEMA_VERSION,
            "kind": "trajectory_results",
            "models": {
                name: {"summary": _plain(_summary(results.values())), "results": _data(results)}
                for name, results in self.results.items()
            },
        }


def _summary(analyses: Iterable[TrajectoryAnalysis]) -> dict[str, float]:
    every = list(analyses)
    verdicts = [analysis.verdict for analysis in every]
    passed, total = verdicts.count("pass"), len(every)
    return {
        "pass_rate": passed / total if total else math.nan,
        "avg_perplexity": _mean([analysis.avg_perplexity for analysis in every]),
        "avg_entropy": _mean([analysis.avg_entropy for analysis in every]),
        "avg_surprise": _mean([analysis.final_surprise for analysis in every]),
        "total_tests": total,
        "passed_tests": passed,
        "failed_tests": verdicts.count("fail"),
        "not_measured_tests": total - passed - verdicts.count("fail"),
    }


def _mean(values: Sequence[float]) -> float:
    measured = [value for value in values if not math.isnan(value)]
    return float(np.mean(measured)) if measured else math.nan


def _plain(summary: Mapping[str, float]) -> dict[str, Any]:
    return {name: json_number(value) for name, value in summary.items()}


def _data(results: Mapping[str, TrajectoryAnalysis]) -> dict[str, Any]:
    return {prompt: analysis.to_dict() for prompt, analysis in results.items()}


def _export_folder(results: Mapping[str, TrajectoryAnalysis], folder: Path, model_name: str) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"folder '{folder}' cannot be made: {error}") from error
    # A name is data: it must not lead out of the folder, nor be too long for a file.
    safe = _UNSAFE.sub("_", model_name)[:100]
    ending = f"{safe}_{datetime.now(UTC):%Y%m%d_%H%M%S_%f}.json"
    return [
        _write(folder / f"trajectory_analysis_{ending}", _data(results)),
        _write(folder / f"trajectory_summary_{ending}", _plain(_summary(results.values()))),
    ]


def _write(path: Path, data: Mapping[str, Any]) -> Path:
    return write_whole(path, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())
