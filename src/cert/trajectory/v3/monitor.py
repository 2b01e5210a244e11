"""Version 3's monitor of one model."""

from __future__ import annotations

import copy
from typing import Any

from cert.backends.base import Backend
from cert.core.errors import ConfigurationError, ResourceError
from cert.trajectory.api import HamiltonianMonitor
from cert.trajectory.types import ReasoningMetrics
from cert.trajectory.types import TrajectoryConfig as CurrentConfig
from cert.trajectory.v3.deprecation import deprecated, warn_of_rules
from cert.trajectory.v3.loading import origin_of
from cert.trajectory.v3.rules import Rules
from cert.trajectory.v3.types import TrajectoryAnalysis, TrajectoryConfig, rules_of

__all__ = ["ReasoningTrajectoryMonitor", "Watcher", "analyze_trajectory"]


class Watcher:
    """Watches one model by version 3's settings and rules, on version 4's monitor.

    Raises:
        ConfigurationError: the model is on another device than ``device`` says.
        DependencyMissingError: torch or transformers is not installed.
    """

    def __init__(self, model: Any, tokenizer: Any, rules: Rules, device: str | None = None) -> None:
        self.model = model
        self.rules = rules
        _check_device(model, device)
        backend = _backend(model, tokenizer)
        self.vocab_size = backend.identity.vocab_size
        self._monitor = HamiltonianMonitor(backend=backend, config=rules.current_config(self.vocab_size))

    def generate(
        self, prompt: str, max_new_tokens: int | None, temperature: float | None, seed: int | None
    ) -> TrajectoryAnalysis:
        """Generate and analyse; see `ReasoningTrajectoryMonitor.monitor_generation`."""
        if self.model.device.type == "meta":
            raise ResourceError("the model was unloaded", hint="load it again with load_model_for_monitoring")
        heat = self.rules.config.temperature if temperature is None else temperature
        analysis = self._monitor.analyze(
            prompt,
            max_new_tokens=max_new_tokens,
            temperature=heat,
            seed=_seed() if seed is None and heat else seed,
        )
        return TrajectoryAnalysis(analysis, self.rules)


class ReasoningTrajectoryMonitor:
    """Watches generations of a model that the caller holds. Use `cert.trajectory.HamiltonianMonitor`.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer.
        config: version 3's settings by default. A config of version 4 is taken as it stands: greedy and
            K = 20 unless it says otherwise.
        device: checked against the model's; the model runs where it is.

    Raises:
        ConfigurationError: the model is on another device than ``device`` says.
        DependencyMissingError: torch or transformers is not installed.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: TrajectoryConfig | CurrentConfig | None = None,
        device: str | None = None,
    ) -> None:
        deprecated("ReasoningTrajectoryMonitor", "HamiltonianMonitor")
        self.model = model
        self.tokenizer = tokenizer
        self.config = TrajectoryConfig() if config is None else config
        self.metrics_history: list[ReasoningMetrics] = []
        self._watcher = Watcher(model, tokenizer, rules_of(config), device)
        warn_of_rules(self._watcher.rules, self._watcher.vocab_size)

    def monitor_generation(
        self,
        prompt: str,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        *,
        seed: int | None = None,
    ) -> TrajectoryAnalysis:
        """Generate from a prompt and analyse the generation.

        Args:
            prompt: text to continue.
            max_new_tokens: ``None`` takes the config's value; 0 generates none.
            temperature: ``None`` takes the config's value; 0 is greedy.
            seed: of the sample. ``None`` draws one from torch's global generator, as version 3 did, so
                that ``torch.manual_seed`` makes a program repeatable.

        Raises:
            InputError: the prompt is no text, empty, over the limit or cannot be encoded.
            ConfigurationError: an option outside its range.
            ResourceError: the model was unloaded.
            GenerationError: the generation failed.
        """
        result = self._watcher.generate(prompt, max_new_tokens, temperature, seed)
        self.metrics_history = result.metrics
        return result


def analyze_trajectory(
    model: Any, tokenizer: Any, prompt: str, config: TrajectoryConfig | CurrentConfig | None = None
) -> TrajectoryAnalysis:
    """Generate from one prompt and analyse it. Use `cert.trajectory.HamiltonianMonitor`.

    Raises:
        CertError: as `ReasoningTrajectoryMonitor` and its ``monitor_generation``.
    """
    deprecated("analyze_trajectory", "HamiltonianMonitor.analyze")
    watcher = Watcher(model, tokenizer, rules_of(config))
    warn_of_rules(watcher.rules, watcher.vocab_size)
    return watcher.generate(prompt, None, None, None)


def _backend(model: Any, tokenizer: Any) -> Backend:
    from cert.backends.loading import require_libraries

    require_libraries()
    from cert.backends.local import LocalBackend

    origin = origin_of(model)
    stops = model.generation_config.stop_strings or ()
    if stops:
        # The backend looks for these texts itself. The caller's model keeps its own: a copy shares weights.
        model = copy.copy(model)
        model.generation_config = copy.deepcopy(model.generation_config)
        model.generation_config.stop_strings = None
    return LocalBackend(
        model,
        tokenizer,
        name=origin.name,
        revision=origin.revision,
        stop_strings=[stops] if isinstance(stops, str) else stops,
    )


def _check_device(model: Any, device: str | None) -> None:
    wanted = None if device is None else device.partition(":")[0]
    if wanted not in (None, "auto", model.device.type):
        raise ConfigurationError(
            f"the model is on '{model.device.type}' and device says '{wanted}'",
            hint="load it there, or leave device out",
        )


def _seed() -> int:
    import torch

    return int(torch.randint(2**63 - 1, ()).item())
