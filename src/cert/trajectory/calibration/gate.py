"""The gate of a certificate: one score, one threshold, and a verdict that comes with a promise."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cert.backends.base import Backend, FinishReason, Generation
from cert.core.errors import ConfigurationError
from cert.core.visible import label
from cert.signals import GenerationSignals, RunningSignals, StepSignals
from cert.trajectory.calibration.answers import whole_or_reason
from cert.trajectory.calibration.certificate import Certificate
from cert.trajectory.calibration.labelled import Conditions
from cert.trajectory.calibration.matching import Made, Match
from cert.trajectory.calibration.promises import promise_of
from cert.trajectory.calibration.score_json import score_of
from cert.trajectory.calibration.scores import GateScore, RunningPath, needs_full_vocabulary
from cert.trajectory.gate import CertifiedBy, Check, GateDecision, Verdict
from cert.trajectory.gate_columns import VERDICTS

__all__ = ["CalibratedGate", "GateLike", "gate_of"]

_FAIL, _NOT_MEASURED, _PASS = (VERDICTS.index(name) for name in ("fail", "not_measured", "pass"))


class CalibratedGate:
    """Decides as its certificate says: an answer passes if and only if its score is at most the threshold.

    A score that was not measured, an answer that did not come to its own end, and an answer of a group that
    the certificate does not know are never passed.

    Args:
        certificate: what decides.
        stated: conditions that neither answers nor the monitor tell, such as the hash of the template.
        waive: names of conditions that may differ from the certificate's. Each verdict says so.

    Attributes:
        certificate: the certificate.
        profile: its id, as verdicts name it.
        promise: in words.
        score: what is compared with the threshold.
        unchecked: conditions that the certificate does not know, so that nobody compares them.
        waived: conditions that are known and not compared.

    Raises:
        ConfigurationError: as `Match`, or a score that this version does not have.
    """

    def __init__(
        self, certificate: Certificate, *, stated: Conditions | None = None, waive: Collection[str] = ()
    ) -> None:
        self.certificate = certificate
        self.profile = certificate.id
        self.promise = promise_of(certificate.goal, certificate.alpha, certificate.delta)
        self.score: GateScore = score_of(certificate.score, certificate.combiner)
        self._match = Match(certificate.conditions, stated, waive)
        self.unchecked, self.waived = self._match.unchecked, self._match.waived
        self._one = None if certificate.threshold is None else certificate.threshold.value
        self._groups = {name: t.value for name, t in (certificate.groups or {}).items()}
        path = getattr(self.score, "path", None)
        self._path = path if isinstance(path, RunningPath) else None
        self._by = CertifiedBy(
            id=self.profile,
            goal=certificate.goal,
            alpha=certificate.alpha,
            delta=certificate.delta,
            promise=self.promise,
            signed_by=None if certificate.signature is None else certificate.signature.public_key.hex(),
            unchecked=self.unchecked,
            waived=self.waived,
        )
        self._stated = stated or Conditions()

    def __repr__(self) -> str:
        return f"<CalibratedGate {self.profile[:12]}: {self.promise}>"

    @property
    def key(self) -> Hashable:
        """What tells two gates apart that decide or report differently."""
        c = self.certificate
        signature = None if c.signature is None else (c.signature.public_key, c.signature.value)
        return (self.profile, c.created_at, signature, self.waived, repr(self._stated))

    # --- verdicts ---

    def threshold_of(self, group: str | None = None) -> float | None:
        """Return λ for a group; ``None`` where the certificate has none for it."""
        return self._one if self._one is not None else self._groups.get(group or "")

    def decide(
        self,
        step: StepSignals,
        running: RunningSignals,
        signals: GenerationSignals,
        tokens: Sequence[str],
        group: str | None = None,
        *,
        finish_reason: FinishReason = "stop",
    ) -> GateDecision:
        """Return the verdict on one generation, with its reason.

        Args:
            step: the signals of its tokens.
            running: those that depend on the tokens before.
            signals: of the whole.
            tokens: the texts of its tokens.
            group: its group, for a certificate with groups.
            finish_reason: how it ended. Of a part of an answer, a score that only rises on the way can say
                that the whole would have failed, and nothing else is said.
        """
        value = self.score.of(signals)
        threshold = self.threshold_of(group)
        alarm = self._alarm(step, running, threshold)
        if alarm is not None:
            token, reached = alarm
            why = f"{self.score.name} {reached:.6g} above {threshold:.6g}, first"
            # What was not measured after it takes no alarm back.
            shown = value if not math.isnan(value) else reached
            return self._decision("fail", shown, threshold, token, f"{why}{_at(token, tokens)}")
        cut = whole_or_reason(finish_reason)
        outcome, why = self._outcome(value, threshold, group, cut)
        place = self._token(step, running) if outcome != "not_measured" else None
        return self._decision(outcome, value, threshold, place, f"{why}{_at(place, tokens)}")

    def judge(
        self,
        generation: Generation,
        step: StepSignals,
        running: RunningSignals,
        signals: GenerationSignals,
        *,
        surprise_probability: float,
        max_new_tokens: int | None = None,
        group: str | None = None,
    ) -> GateDecision:
        """Return the verdict on a generation, once it is made sure that the certificate covers it.

        Args:
            generation: live or stored.
            step: the signals of its tokens.
            running: those that depend on the tokens before.
            signals: of the whole.
            surprise_probability: of the signals.
            max_new_tokens: the limit that it was generated with, where that is known.
            group: its group, for a certificate with groups.

        Raises:
            ConfigurationError: it was made in another way than the certificate says. A part of an answer is
                not refused: it is not measured.
        """
        finish_reason = generation.finish_reason
        try:
            self._match.refuse_answer(Made.of(generation, max_new_tokens), surprise_probability)
        except ConfigurationError as error:
            if whole_or_reason(finish_reason) is None:
                raise
            return self._decision("not_measured", self.score.of(signals), None, None, error.message)
        return self.decide(step, running, signals, generation.tokens, group, finish_reason=finish_reason)

    def verdicts(
        self,
        columns: Mapping[str, NDArray[Any]],
        groups: Sequence[str | None] | None = None,
        *,
        whole: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int8]:
        """Return the verdict of each of B generations as its place in `VERDICTS`, as `decide` gives them.

        Args:
            columns: of shape (B,), as `cert.signals.signal_columns` gives them.
            groups: the group of each; ``None`` without groups.
            whole: (B,) whether each came to its own end; ``None`` for all of them.
        """
        scores = self.score.column_of(columns)
        if self._one is not None:
            thresholds = np.full(len(scores), self._one)
        else:
            named = groups if groups is not None else [None] * len(scores)
            found = (self.threshold_of(group) for group in named)
            thresholds = np.array([math.nan if t is None else t for t in found], dtype=np.float64)
        verdicts = np.full(len(scores), _NOT_MEASURED, dtype=np.int8)
        passed, failed = scores <= thresholds, scores > thresholds
        if whole is not None:
            passed &= whole
            failed &= whole | (self._path is not None)
        verdicts[passed] = _PASS
        verdicts[failed] = _FAIL
        return verdicts

    # --- what it covers ---

    @property
    def match(self) -> Match:
        """Compares how answers are made with the certificate's conditions."""
        return self._match

    def refuse_mismatch(self, conditions: Conditions, *, final: bool = False) -> None:
        """Refuse conditions that differ from the certificate's.

        Args:
            conditions: how answers are made; ``None`` is not known.
            final: nothing more will be known: what is not known is refused too.

        Raises:
            ConfigurationError: with the condition and both of its values.
        """
        self._match.refuse(conditions, final=final)

    def refuse_backend(self, backend: Backend) -> None:
        """Refuse a backend that is not the certificate's, or that cannot give its score.

        Raises:
            ConfigurationError: with what differs; or it shows the top K alone, and the score needs all of the
                vocabulary.
        """
        shown, name = backend.capabilities, backend.identity.name
        self._match.refuse_model(backend.identity, shown.logprobs_mode)
        if shown.logprobs != "full" and needs_full_vocabulary(self.score):
            raise ConfigurationError(
                f"the certificate decides by '{self.score.name}', which needs the full vocabulary, and "
                f"'{name}' shows the likeliest candidates alone",
                hint="calibrate on a score that the likeliest candidates give, such as 'msp'",
                context={"model": name, "score": self.score.name},
            )

    # --- inside ---

    def _outcome(
        self, value: float, threshold: float | None, group: str | None, cut: str | None
    ) -> tuple[Verdict, str]:
        name = self.score.name
        if threshold is None:
            which = "no group is given" if group is None else f"the group '{label(group)}' has no threshold"
            return "not_measured", f"{which}: the certificate has one for each group that it knows"
        if math.isnan(value):
            return "not_measured", f"{name} not measured"
        if value > threshold and (cut is None or self._path is not None):
            return "fail", f"{name} {value:.6g} above {threshold:.6g}"
        if cut is not None:
            return "not_measured", f"{cut}, and the promise is about whole answers"
        return "pass", f"{name} {value:.6g} within {threshold:.6g}"

    def _decision(
        self, outcome: Verdict, value: float, threshold: float | None, token: int | None, why: str
    ) -> GateDecision:
        check = Check(
            signal=self.score.name,
            statistic="score",
            threshold=math.nan if threshold is None else threshold,
            lower=value,
            upper=value,
            outcome=outcome,
            token=token,
            reason=f"{why} ({self._by.words})",
        )
        return GateDecision(outcome, (check,), self.profile, calibrated=True, certificate=self._by)

    def _alarm(
        self, step: StepSignals, running: RunningSignals, threshold: float | None
    ) -> tuple[int, float] | None:
        """Return the first token at which a streaming gate raises its alarm, and the score there."""
        if self.certificate.goal != "streaming" or self._path is None or threshold is None:
            return None
        score = self._path.running(step, running)
        above = np.flatnonzero(score > threshold)
        return (int(above[0]), float(score[above[0]])) if len(above) else None

    def _token(self, step: StepSignals, running: RunningSignals) -> int | None:
        """Return where the score is highest, for one that is the largest of the tokens' values."""
        if self._path is None or self._path.accumulate != "max":
            return None
        source: Any = step if hasattr(step, self._path.column) else running
        column = self._path.sign * getattr(source, self._path.column)
        place = int(np.argmax(column)) if len(column) else None
        return None if place is None or math.isnan(column[place]) else place


GateLike: TypeAlias = CalibratedGate | Certificate | str | os.PathLike[str]


def gate_of(gate: GateLike | None) -> CalibratedGate | None:
    """Return the gate of a certificate or of its file.

    Raises:
        InputError: the file cannot be read, is no certificate, or was changed.
        ConfigurationError: as `CalibratedGate`.
    """
    if gate is None or isinstance(gate, CalibratedGate):
        return gate
    if isinstance(gate, Certificate):
        return CalibratedGate(gate)
    if isinstance(gate, str | os.PathLike):
        return CalibratedGate(Certificate.load(gate))
    raise ConfigurationError(
        f"a gate is a certificate, its file or a CalibratedGate, not {type(gate).__name__}"
    )


def _at(token: int | None, tokens: Sequence[str]) -> str:
    if token is None or token >= len(tokens):
        return ""
    return f" at token {token} ‘{label(tokens[token].strip() or tokens[token])}’"
