"""What is measured of an answer on its way, and what is said of it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from cert.backends.api_records import ApiRecord, ReadOptions, RecordBuilder
from cert.backends.api_schema import decode_exact
from cert.backends.base import Generation, ModelIdentity
from cert.backends.openai_server.dialects import GENERIC
from cert.backends.openai_server.probe import Profile
from cert.core.errors import CertError, UpstreamProtocolError
from cert.core.events import EventHub, GenerationFinished, default_hub
from cert.services.hamiltonian.options import HamiltonianOptions, Mode, UpstreamOptions
from cert.services.hamiltonian.passthrough.asking import Asked
from cert.services.hamiltonian.recent import Entry, RecentAnalyses
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.calibration.watch import GateWatch
from cert.trajectory.gate import Verdict, json_number
from cert.trajectory.types import TrajectoryAnalysis, TrajectoryConfig

__all__ = ["Choice", "Outcome", "Watcher", "headers_of", "kept_back"]

_PRECEDENCE: tuple[Verdict, ...] = ("fail", "not_measured", "undecided", "pass")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """What is said of one choice.

    Attributes:
        index: of the choice.
        entry: its analysis among the recent ones; ``None`` where nothing was measured.
        problem: why nothing was; a code.
    """

    index: int
    entry: Entry | None
    problem: str | None = None

    @property
    def verdict(self) -> Verdict:
        """Of this choice."""
        return "not_measured" if self.entry is None else self.entry.analysis.verdict

    def to_dict(self) -> dict[str, Any]:
        """As the field ``cert`` has it."""
        if self.entry is None:
            return {
                "index": self.index,
                "analysis_id": None,
                "verdict": "not_measured",
                "calibrated": False,
                "reasons": ["nothing was measured"],
                "problem": self.problem,
                "perplexity": None,
                "tokens": None,
            }
        analysis = self.entry.analysis
        return {
            "index": self.index,
            "analysis_id": self.entry.id,
            "verdict": analysis.verdict,
            "calibrated": analysis.decision.calibrated,
            "reasons": list(analysis.decision.reasons),
            "problem": None,
            "perplexity": json_number(analysis.avg_perplexity),
            "tokens": analysis.generation_steps,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is said of a whole answer: the worst of its choices decides."""

    choices: tuple[Choice, ...]
    mode: Mode

    @property
    def verdict(self) -> Verdict:
        """Of all choices together."""
        found = {choice.verdict for choice in self.choices}
        return next((verdict for verdict in _PRECEDENCE if verdict in found), "not_measured")

    def to_dict(self, action: str = "forwarded") -> dict[str, Any]:
        """Return the field ``cert``; ``action`` is ``forwarded``, ``replaced`` or ``withheld``."""
        return {
            "schema_version": 1,
            "verdict": self.verdict,
            "mode": self.mode,
            "action": action,
            "choices": [choice.to_dict() for choice in self.choices],
        }


def headers_of(outcome: Outcome, action: str = "forwarded") -> dict[str, str]:
    """Return what headers say of an answer."""
    ids = [choice.entry.id for choice in outcome.choices if choice.entry is not None]
    calibrated = bool(ids) and all(
        choice.entry is not None and choice.entry.analysis.decision.calibrated for choice in outcome.choices
    )
    headers = {
        "X-CERT-Verdict": outcome.verdict,
        "X-CERT-Calibrated": "true" if calibrated else "false",
        "X-CERT-Action": action,
    }
    return headers | ({"X-CERT-Analysis-Id": ", ".join(ids)} if ids else {})


def kept_back(verdict: Verdict, options: HamiltonianOptions) -> bool:
    """Say whether an answer of this verdict is kept from its caller.

    Failing closed, nothing but a pass goes through.
    """
    if options.mode != "hold":
        return False
    return verdict != "pass" if options.fail_closed else verdict == "fail"


class Watcher:
    """Measures one answer of the engine: chunk by chunk, or whole.

    Whatever goes wrong in here leaves the answer alone: it is then not measured.

    Args:
        asked: the request.
        upstream: what is known of the engine.
        recent: where analyses are kept.
        tenant: whose.
        mode: that the operator chose.
        gate_watch: hears the scores of answers of a gate.
        profile: what was found out of the engine; without one its kind is unknown.
        hub: hears of the analyses.
    """

    def __init__(
        self,
        asked: Asked,
        upstream: UpstreamOptions,
        recent: RecentAnalyses,
        tenant: str,
        *,
        mode: Mode,
        gate_watch: GateWatch | None = None,
        profile: Profile | None = None,
        hub: EventHub | None = None,
    ) -> None:
        self._asked, self._upstream, self._recent, self._tenant = asked, upstream, recent, tenant
        self._mode = mode
        self._gate = upstream.gates.get(asked.model)
        self._gate_watch = gate_watch
        self._profile = profile
        self._vocab_size = upstream.vocab_size or (None if profile is None else profile.vocab_size)
        self._hub = hub or default_hub()
        self._config = upstream.config or TrajectoryConfig()
        self._begun = time.perf_counter()
        self._builders: dict[int, RecordBuilder] = {}
        self._problem: str | None = None

    def feed(self, data: bytes) -> None:
        """Take one chunk of a stream, or a whole answer."""
        if self._problem is not None:
            return
        try:
            response = decode_exact(data)
            for choice in response.choices:
                builder = self._builders.setdefault(choice.index, self._builder())
                builder.add_choice(choice)
            for builder in self._builders.values():
                builder.note(response, counts=len(self._builders) == 1)
        except Exception as error:  # whatever it is, the answer goes on
            self._failed(error)

    async def finish(self) -> Outcome:
        """Return what is said of the answer, once it has come to its end."""
        choices = []
        for index, builder in sorted(self._builders.items()):
            problem, entry = self._problem, None
            if problem is None:
                try:
                    entry = await self._entry(builder)
                except Exception as error:  # the same
                    problem = self._failed(error, lasting=False)
            choices.append(Choice(index, entry, problem))
        if not choices:
            choices.append(Choice(0, None, self._problem or "no_choices"))
        return Outcome(tuple(choices), self._mode)

    def _builder(self) -> RecordBuilder:
        options = ReadOptions(
            vocab_size=self._vocab_size,
            chosen_takes_a_place=self._profile is None or self._profile.dialect.chosen_takes_a_place,
        )
        return RecordBuilder(options, gives_blocks=False)

    async def _entry(self, builder: RecordBuilder) -> Entry:
        record = builder.finish()[1]
        if not len(record.steps) and record.text.strip():
            raise UpstreamProtocolError("there are no log-probabilities")
        analysis = analyze_generation(
            self._generation(record), self._config, self._gate, max_new_tokens=self._asked.most_tokens
        )
        if self._gate is not None and self._gate_watch is not None:
            self._gate_watch.observe(self._gate.score.of(analysis.signals))
        await self._hub.deliver_async(_finished(analysis, time.perf_counter() - self._begun))
        return await self._recent.keep(self._tenant, analysis, model=self._asked.model, source="chat")

    def _generation(self, record: ApiRecord) -> Generation:
        identity = ModelIdentity(
            name=f"openai:{self._asked.model}@{self._upstream.base_url}",
            revision=None,
            backend=GENERIC.name if self._profile is None else self._profile.dialect.name,
            vocab_size=self._vocab_size,
            context_window=None if self._profile is None else self._profile.context_window,
        )
        return Generation(
            prompt=self._asked.prompt(),
            text=record.text,
            steps=record.steps,
            offsets=record.offsets,
            finish_reason=record.finish_reason,
            stop_step=record.stop_step,
            prompt_tokens=record.prompt_tokens,
            sampling=self._asked.sampling(),
            model=identity,
            logprobs_mode="unknown" if self._profile is None else self._profile.mode,
            vocabulary=record.vocabulary,
            duration_s=time.perf_counter() - self._begun,
            token_ids_known=record.token_ids_known,
        )

    def _failed(self, error: Exception, *, lasting: bool = True) -> str:
        problem = error.code if isinstance(error, CertError) else "internal"
        if not isinstance(error, CertError):
            # The class alone: its message may quote the answer.
            logger.error("an answer could not be measured: %s", type(error).__name__)
        if lasting:
            self._problem = problem
        return problem


def _finished(analysis: TrajectoryAnalysis, seconds: float) -> GenerationFinished:
    return GenerationFinished(
        model=analysis.model_name,
        verdict=analysis.verdict,
        tokens=analysis.generation_steps,
        seconds=seconds,
        stages=analysis.stages,
        cached=False,
        calibrated=analysis.decision.calibrated,
    )
