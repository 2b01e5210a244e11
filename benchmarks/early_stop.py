"""What an early stop costs and saves: the same generations with and without an alarm, and curves over α.

    python benchmarks/early_stop.py [--repeats 41] [--splits 200] [--out benchmarks/results/early_stop.json]

*Overhead*: `HamiltonianMonitor.analyze` with and without ``early_stop``, side by side in one process: the two
take turns, which of them is first changes from pair to pair, and the ratio is taken pair by pair, by the wall
clock and by the processor's time, which feels less of what else runs on the machine; quartiles of the pairs.
The model is the reference model, whose steps are so short that nothing hides; it is kept from ending an
answer, and the threshold is infinite, so that both generate the same tokens.

*Curves*: a run is a biography of one person: sentence after sentence the fixed part is given and the model
writes the value, with the sentences so far, its own values among them, before it. Only facts that training
showed often enough are in it, and only people with enough of them. A run is correct if all of its facts are
right by the world file. For each α, people are divided at random into halves: the threshold comes from the
correct runs of the one half, and everything is measured on the other. *False alarms* are correct runs with an
alarm; the mean over the divisions is promised to be at most α. *Delay* is in tokens from the first token of
the first wrong value to the alarm, in the wrong runs in which it came then or later; alarms before that are
counted apart. *Saved* are the tokens after the alarm, as a share of all tokens of the wrong runs, and of all
runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from provenance import provenance

from cert.backends.base import GenerationRequest
from cert.backends.local import LocalBackend
from cert.core.errors import CertError, InfeasibleError
from cert.reference import weights
from cert.reference.world import Fact, load_world
from cert.signals import TokenSteps
from cert.trajectory import HamiltonianMonitor
from cert.trajectory.calibration.alarm import StreamingAlarm
from cert.trajectory.calibration.calibrate import calibrate
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.goals import find_threshold
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.scores import SCORES

ALPHAS: Final = (0.05, 0.1, 0.2, 0.3)
RISING: Final = tuple(name for name, score in SCORES.items() if score.path is not None)
TARGET: Final = 1.01
VALUE_TOKENS: Final = 16


# --- what it costs ---


def endless() -> LocalBackend:
    """Return the reference model without an end of answers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(weights.path()).eval()
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    return LocalBackend(model, AutoTokenizer.from_pretrained(weights.path()), name="reference")


def quiet_gate(score: str) -> CalibratedGate:
    """Return a streaming gate that never raises its alarm."""
    n = 40
    data = LabelledData(
        ids=tuple(map(str, range(n))),
        correct=np.ones(n, dtype=np.bool_),
        columns={SCORES[score].column: SCORES[score].sign * np.full(n, math.inf)},
        units=np.arange(n),
    )
    return CalibratedGate(calibrate(data, goal="streaming", alpha=0.05, score=score))


def overhead(backend: LocalBackend, score: str, repeats: int, tokens: int) -> dict[str, Any]:
    """Time both kinds in turns and check that their tokens are the same."""
    monitor = HamiltonianMonitor(backend=backend, gate=quiet_gate(score))

    def run(early_stop: bool) -> tuple[float, float, list[int]]:
        wall, processor = time.perf_counter(), time.process_time()
        done = monitor.analyze(
            "The birth city of", max_new_tokens=tokens, use_cache=False, early_stop=early_stop
        )
        spent = time.perf_counter() - wall, time.process_time() - processor
        return *spent, done.generation.steps.token_ids.tolist()

    same = run(False)[2] == run(True)[2]
    spent: dict[bool, list[tuple[float, float, list[int]]]] = {False: [], True: []}
    gc.collect()
    for repeat in range(repeats):
        for early_stop in (False, True) if repeat % 2 else (True, False):
            spent[early_stop].append(run(early_stop))

    def quartiles(clock: int) -> list[float]:
        pairs = zip(spent[True], spent[False], strict=True)
        return [round(x, 4) for x in statistics.quantiles((a[clock] / b[clock] for a, b in pairs), n=4)]

    return {
        "score": score,
        "tokens": tokens,
        "repeats": repeats,
        "same_tokens": same,
        "milliseconds_a_token": round(1e3 * statistics.median(one[0] for one in spent[False]) / tokens, 4),
        "relative_time": quartiles(0),
        "relative_processor_time": quartiles(1),
        "target": TARGET,
    }


# --- what it saves ---


@dataclass(frozen=True, eq=False)
class Run:
    """One biography.

    Attributes:
        person: whom it is about.
        steps: of the values' tokens, one value after the other.
        wrong_at: index of the first token of the first wrong value, ``None`` in a correct run.
    """

    person: int
    steps: TokenSteps
    wrong_at: int | None


def biographies(backend: LocalBackend, least: int, facts: int, limit: int | None) -> list[Run]:
    """Let the model write the biographies of all people with enough well-shown facts, many at once."""
    by_person: dict[int, list[Fact]] = {}
    for fact in load_world().facts:
        if fact.exposures >= least:
            by_person.setdefault(fact.person.index, []).append(fact)
    chosen = [known for known in by_person.values() if len(known) >= facts][:limit]
    texts = [""] * len(chosen)
    steps: list[list[TokenSteps]] = [[] for _ in chosen]
    wrong: list[int | None] = [None] * len(chosen)
    for turn in range(max(map(len, chosen), default=0)):
        places = [place for place, known in enumerate(chosen) if turn < len(known)]
        prompts = [f"{texts[place]} {chosen[place][turn].sentence_prefix(0)}".lstrip() for place in places]
        requests = [GenerationRequest(prompt, VALUE_TOKENS) for prompt in prompts]
        outcomes = backend.generate_batch(requests)
        for place, prompt, outcome in zip(places, prompts, outcomes, strict=True):
            if isinstance(outcome, CertError):
                raise outcome
            if wrong[place] is None and not chosen[place][turn].states(outcome.text):
                wrong[place] = sum(map(len, steps[place]))
            steps[place].append(outcome.steps)
            texts[place] = prompt + outcome.text
    people = [known[0].person.index for known in chosen]
    return [Run(*row) for row in zip(people, map(_joined, steps), wrong, strict=True)]


def _joined(parts: Sequence[TokenSteps]) -> TokenSteps:
    names = ("token_ids", "logprob", "top_ids", "top_logprobs", "entropy", "self_certainty")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return TokenSteps.build(**columns, vocab_size=parts[0].vocab_size)


def paths_of(runs: Sequence[Run], score: str) -> list[np.ndarray[Any, Any]]:
    """Return the running score of each run, as the alarm sees it, token by token."""
    paths = []
    for run in runs:
        alarm = StreamingAlarm(SCORES[score], math.inf)
        values = []
        for token in range(len(run.steps)):
            alarm.update(run.steps[token : token + 1])
            values.append(alarm.running)
        paths.append(np.array(values))
    return paths


def curve(runs: Sequence[Run], score: str, alpha: float, splits: int, seed: int = 0) -> dict[str, Any]:
    """Return what thresholds from half of the people do to the runs of the others."""
    paths = paths_of(runs, score)
    whole = np.array([path[-1] for path in paths])
    correct = np.array([run.wrong_at is None for run in runs])
    rng = np.random.default_rng(seed)
    rows: list[dict[str, float]] = []
    refused = 0
    for _ in range(splits):
        order = rng.permutation(len(runs))
        fit, held = order[: len(runs) // 2], order[len(runs) // 2 :]
        try:
            found = find_threshold("streaming", whole[fit], correct[fit], fit.astype(np.int64), alpha=alpha)
        except InfeasibleError:
            refused += 1
            continue
        rows.append(_measured([runs[i] for i in held], [paths[i] for i in held], found.value))
    result: dict[str, Any] = {"score": score, "alpha": alpha, "splits": len(rows), "refused": refused}
    for name in rows[0] if rows else ():
        values = np.array([row[name] for row in rows])
        values = values[~np.isnan(values)]
        if len(values):
            result[name] = {"mean": round(float(values.mean()), 4), "sd": round(float(values.std()), 4)}
    return result


def _measured(runs: Sequence[Run], paths: Sequence[Any], threshold: float) -> dict[str, float]:
    at = [int(np.argmax(path > threshold)) if (path > threshold).any() else None for path in paths]
    wrong = [(run, alarm) for run, alarm in zip(runs, at, strict=True) if run.wrong_at is not None]
    right = [alarm for run, alarm in zip(runs, at, strict=True) if run.wrong_at is None]
    found = [(run, alarm) for run, alarm in wrong if alarm is not None]
    delays = [alarm - run.wrong_at for run, alarm in found if run.wrong_at is not None]

    def saved(pairs: Sequence[tuple[Run, int | None]]) -> float:
        kept = sum(len(run.steps) - 1 - alarm for run, alarm in pairs if alarm is not None)
        return kept / max(1, sum(len(run.steps) for run, _ in pairs))

    late = [delay for delay in delays if delay >= 0]
    return {
        "false_alarms": float(np.mean([alarm is not None for alarm in right])) if right else math.nan,
        "wrong_runs_found": len(found) / len(wrong) if wrong else math.nan,
        "found_before_the_error": (len(delays) - len(late)) / len(wrong) if wrong else math.nan,
        "delay_tokens": float(np.mean(late)) if late else math.nan,
        "saved_of_wrong_runs": saved(wrong) if wrong else math.nan,
        "saved_of_all_runs": saved(list(zip(runs, at, strict=True))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=41, help="pairs of generations of each score")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--exposures", type=int, default=16, help="facts shown at least so often")
    parser.add_argument("--facts", type=int, default=3, help="people with at least so many of them")
    parser.add_argument("--score", action="append", choices=RISING, help="this one; may be repeated")
    parser.add_argument("--limit", type=int, help="at most so many people")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    report: dict[str, Any] = {"benchmark": "early_stop", "ran_on": provenance(), "overhead": []}
    backend = endless()
    for score in arguments.score or RISING:
        report["overhead"].append(overhead(backend, score, arguments.repeats, arguments.tokens))
        print(json.dumps(report["overhead"][-1]), flush=True)
    backend.close()
    backend = LocalBackend.load(str(weights.path()))
    runs = biographies(backend, arguments.exposures, arguments.facts, arguments.limit)
    backend.close()
    report["runs"] = {
        "facts_shown_at_least": arguments.exposures,
        "facts_at_least": arguments.facts,
        "people": len(runs),
        "correct": sum(run.wrong_at is None for run in runs),
        "tokens": sum(len(run.steps) for run in runs),
    }
    print(json.dumps(report["runs"]), flush=True)
    report["curves"] = []
    for score in arguments.score or RISING:
        for alpha in ALPHAS:
            report["curves"].append(curve(runs, score, alpha, arguments.splits))
            print(json.dumps(report["curves"][-1]), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
