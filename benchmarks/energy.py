"""What energy adds: how well it finds wrong answers, against the signals that it is made of and simpler ones.

    python benchmarks/energy.py [--out benchmarks/results/energy.json] [--figure docs/explanation/energy.svg]

The questions are those of ``cert reference evaluate``: each fact about a person who was never asked about in
training, in the held-out wording, greedily answered in a chat. A score is good if it is larger for wrong
answers: AUROC, with 95 % intervals from a bootstrap over people. The paired difference is taken within each
replicate, where the best of the simple scores is chosen anew, so that choosing it on the same answers
favours nobody. Energy is `cert.signals.energy` with the thresholds of version 3. Three models: the shipped
one and the two further seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from provenance import provenance

from cert.backends.base import Generation
from cert.backends.local import LocalBackend
from cert.reference import weights
from cert.reference.asking import Asker
from cert.reference.recall import ENERGY_THRESHOLDS, MIDDLE, answer_questions
from cert.reference.scores import REPLICATES, Flags, Floats, auroc, rank_correlation
from cert.reference.world import load_world
from cert.signals import energy, step_signals
from cert.trajectory import HamiltonianMonitor
from cert.trajectory.plots import plot_trajectory

ROOT: Final = Path(__file__).parents[1]
MODELS: Final = {
    "seed 0 (shipped)": weights.path(),
    "seed 1": ROOT / "models" / "reference-seed1",
    "seed 2": ROOT / "models" / "reference-seed2",
}
SIMPLE: Final = ("MSP", "first p_max", "mean p_max", "least p_max")
TERMS: Final = ("mean surprisal", "max surprisal", "mean entropy", "max entropy")
ENERGY: Final = ("mean energy", "max energy")
SEED: Final = 0
PROMPT: Final = "The birth city of"


def scores_of(generation: Generation) -> dict[str, float]:
    """Return the scores of one answer, each larger the less sure the model was."""
    step = step_signals(generation.steps)
    if not len(step):
        return dict.fromkeys((*SIMPLE, *TERMS, *ENERGY), float("nan"))
    both = energy(step.surprisal, step.entropy_upper, **ENERGY_THRESHOLDS)
    p_max = step.top_probability
    return {
        "MSP": float(step.surprisal.sum()),
        "first p_max": -float(p_max[0]),
        "mean p_max": -float(p_max.mean()),
        "least p_max": -float(p_max.min()),
        "mean surprisal": float(step.surprisal.mean()),
        "max surprisal": float(step.surprisal.max()),
        "mean entropy": float(step.entropy_upper.mean()),
        "max entropy": float(step.entropy_upper.max()),
        "mean energy": float(both.mean()),
        "max energy": float(both.max()),
    }


def compare(scores: dict[str, Floats], wrong: Flags, people: Any) -> dict[str, Any]:
    """Return every score's AUROC, and energy's paired differences from the simple scores and its terms."""
    found = replicates(scores, wrong, people)

    def difference(name: str, rivals: tuple[str, ...]) -> dict[str, float]:
        return estimate(found[name] - np.max([found[rival] for rival in rivals], axis=0))

    return {
        "answers": len(wrong),
        "wrong": int(wrong.sum()),
        "people": len(set(people.tolist())),
        "auroc": {name: estimate(values) for name, values in found.items()},
        "energy_minus_best_of_p_max_and_msp": {name: difference(name, SIMPLE) for name in ENERGY},
        "energy_minus_best_of_its_terms": {name: difference(name, TERMS) for name in ENERGY},
        "energy_minus_each": {
            name: {rival: difference(name, (rival,)) for rival in (*SIMPLE, *TERMS)} for name in ENERGY
        },
    }


def replicates(scores: dict[str, Floats], wrong: Flags, people: Any) -> dict[str, Floats]:
    """Return each score's AUROC on all answers, and after it on each resample of the people.

    The resamples are the same for every score, so that differences are paired.
    """
    _, member = np.unique(people, return_inverse=True)
    size = int(member.max()) + 1
    rng = np.random.default_rng(SEED)
    drawn = (np.bincount(rng.integers(0, size, size), minlength=size) for _ in range(REPLICATES))
    weights = [np.ones(len(wrong)), *(counts[member].astype(float) for counts in drawn)]
    return {
        name: np.array([auroc(values, wrong, weight) for weight in weights])
        for name, values in scores.items()
    }


def estimate(values: Floats) -> dict[str, float]:
    """Return the first of the values with the percentile interval of the others."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def measure(folder: Path, limit: int | None) -> dict[str, Any]:
    """Ask one model and compare the scores, without and with facts that it cannot half-know."""
    facts = [fact for fact in load_world(folder).facts if not fact.person.question_person][:limit]
    answers = answer_questions(Asker(LocalBackend.load(str(folder)), SEED), facts)
    rows = [scores_of(generation) for generation in answers.generations]
    scores = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    measured = np.isfinite(np.array(list(scores.values()))).all(axis=0)
    lengths = answers.signals["n_tokens"]
    scopes = {
        "people seen in training": ~answers.never_seen,
        "facts read 4 to 64 times": ~answers.never_seen & np.isin(answers.exposures, MIDDLE),
    }
    result: dict[str, Any] = {"not_measured": int((~measured).sum()), "scopes": {}}
    for name, scope in scopes.items():
        chosen = scope & measured
        part = {score: values[chosen] for score, values in scores.items()}
        result["scopes"][name] = compare(part, ~answers.right[chosen], answers.people[chosen])
    result["correlation_with_length"] = {
        score: rank_correlation(values, lengths) for score, values in scores.items()
    }
    return result


def draw(path: Path) -> None:
    """Draw the first sample of the shipped model: 60 tokens after PROMPT, at temperature 1 and seed 0."""
    with HamiltonianMonitor() as monitor:
        plot_trajectory(monitor.analyze(PROMPT, temperature=1.0, seed=SEED, max_new_tokens=60), path)


def show(name: str, result: dict[str, Any]) -> None:
    """Print one model's table."""
    for scope, part in result["scopes"].items():
        print(f"\n{name}, {scope}: {part['answers']} answers, {part['wrong']} wrong, {part['people']} people")
        for score, row in part["auroc"].items():
            print(f"  {score:<16} {row['value']:.4f} ({row['low']:.4f} to {row['high']:.4f})")
        for against in ("energy_minus_best_of_p_max_and_msp", "energy_minus_best_of_its_terms"):
            for score, row in part[against].items():
                print(
                    f"  {score} {against[7:]}: {row['value']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path, help="draw one generation too")
    parser.add_argument("--limit", type=int, help="only the first facts, for a quick look")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {
        "benchmark": "energy",
        "ran_on": provenance(),
        "threads": 1,
        "seed": SEED,
        "bootstrap": f"{REPLICATES} replicates over people, percentile intervals of 95 %",
        "thresholds": ENERGY_THRESHOLDS,
        "models": {},
    }
    for name, folder in MODELS.items():
        report["models"][name] = measure(folder, arguments.limit)
        show(name, report["models"][name])
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if arguments.figure:
        draw(arguments.figure)


if __name__ == "__main__":
    main()
