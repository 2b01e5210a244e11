"""Whether the statistics of comparisons hold: a simulator with known truth, thousands of comparisons a cell.

    python benchmarks/coordination_statistics.py [--quick] [--out FILE]

- coverage: how often the 95 % intervals of the difference and of γ hold the truth, with the textbook's paired
  t interval (sources left out) beside it; at least 93 % is asked for.
- verdicts: how often a null system, and one exactly at the margin, is called *worth it*; at most 5 %.
- power: how often an effect is found at the number of tasks that is stated for it, and at the stated
  minimum detectable effect; at least 80 %.
- omega: the classic ω and its unbiased twins when coordination adds nothing.
- sequential: looking after every task; Holm: four null strategies; drift: false alarms and power curves.

A rate of p over n simulations has the standard error √(p(1 − p)/n): 0.7 points at 95 % of 1,000.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from provenance import provenance
from scipy import stats

from cert.coordination.statistics import (
    Discordant,
    DropDetector,
    Qualities,
    Rules,
    agent_spread,
    decide,
    decide_all,
    decide_sequentially,
    discordance_spread,
    inference,
    omega,
    omega_best_agent,
    omega_best_sample,
    omega_bias,
    pair,
    tasks_for,
)

Floats = np.ndarray[Any, np.dtype[np.float64]]
SEED: Final = 0
TASKS: Final = (10, 20, 50, 200)
SYSTEMS: Final[dict[str, Discordant | Qualities]] = {
    "binary, discordance .30/.10": Discordant(0.30, 0.10),
    "binary, discordance .10/.05": Discordant(0.10, 0.05),
    "binary, discordance .05/.05": Discordant(0.05, 0.05),
    "binary, discordance .02/.01": Discordant(0.02, 0.01),
    "binary, discordance .10/.00": Discordant(0.10, 0.00),
    "binary, discordance .10/.05, baseline right in 2 %": Discordant(0.10, 0.01, both=0.01),
    "binary, .10/.05, sources of 2, very alike": Discordant(0.10, 0.05, source_size=2, alike=0.9),
    "binary, .30/.10, sources of 5": Discordant(0.30, 0.10, source_size=5, alike=0.5),
    "binary, .10/.05, sources of 5": Discordant(0.10, 0.05, source_size=5, alike=0.5),
    "binary, .02/.01, sources of 5": Discordant(0.02, 0.01, source_size=5, alike=0.5),
    "binary, .10/.05, 10 % missing": Discordant(0.10, 0.05, missing=0.1),
    "binary, arms independent": Qualities(0.05, noise="binary"),
    "binary, 3 replicates": Qualities(0.05, noise="binary", replicates=3),
    "bounded, judge noise .4": Qualities(0.05),
    "bounded, judge noise .9": Qualities(0.05, spread=0.9),
    "bounded, 3 replicates": Qualities(0.05, replicates=3),
    "bounded, sources of 5": Qualities(0.05, source_size=5, alike=0.5),
    "bounded, 10 % missing": Qualities(0.05, missing=0.1),
    "bounded, differ in .10/.05": Discordant(0.10, 0.05, graded=True),
    "bounded, differ in .02/.01": Discordant(0.02, 0.01, graded=True),
    "bounded, differ in .10/.00": Discordant(0.10, 0.00, graded=True),
    "bounded, differ in .10/.05, sources of 5": Discordant(0.10, 0.05, graded=True, source_size=5, alike=0.5),
}
NULLS: Final[dict[str, Discordant | Qualities]] = {
    "binary, discordance .10/.10": Discordant(0.10, 0.10),
    "binary, discordance .05/.05": Discordant(0.05, 0.05),
    "binary, discordance .015/.015": Discordant(0.015, 0.015),
    "binary, .10/.10, sources of 5": Discordant(0.10, 0.10, source_size=5, alike=0.5),
    "bounded, judge noise .4": Qualities(0.0),
    "bounded, judge noise .9, 2 replicates": Qualities(0.0, spread=0.9, replicates=2),
    "bounded, sources of 5": Qualities(0.0, source_size=5, alike=0.5),
    "bounded, differ in .05/.05": Discordant(0.05, 0.05, graded=True),
}
# The effect is the stated minimum, twice the margin; the number of tasks is the one stated for it.
EFFECTS: Final[dict[str, tuple[Discordant | Qualities, float]]] = {
    "binary, .10/.05": (Discordant(0.10, 0.05), 0.025),
    "binary, .02/.00": (Discordant(0.02, 0.00), 0.010),
    "binary, .30/.10": (Discordant(0.30, 0.10), 0.100),
    "binary, .50/.10": (Discordant(0.50, 0.10), 0.200),
    "bounded, judge noise .4, 2 replicates": (Qualities(0.05, replicates=2), 0.025),
    "bounded, judge noise .9": (Qualities(0.10, spread=0.9), 0.050),
    "bounded, differ in .20/.00": (Discordant(0.20, 0.00, graded=True), 0.025),
}


def simulations(system: Discordant | Qualities, tasks: int, count: int) -> Any:
    """Draw comparisons, each from a seed of its own, so that a cell does not depend on the others."""
    for number in range(count):
        drawn = system.draw(tasks, np.random.default_rng((SEED, tasks, number)))
        yield drawn, drawn.sources.tolist() if system.source_size > 1 else None


def coverage(system: Discordant | Qualities, tasks: int, count: int) -> dict[str, Any]:
    """Return the shares of intervals that hold the truth, and their mean width."""
    holds, holds_ratio, textbook, widths, unmeasured = 0, 0, 0, [], 0
    methods: dict[str, int] = {}
    for drawn, sources in simulations(system, tasks, count):
        pairs = pair(drawn.coordinated, drawn.baseline, sources)
        method = inference(pairs)
        if method is None:
            unmeasured += 1
            continue
        low, high = method.difference(0.95)
        holds += low <= system.effect <= high
        widths.append(high - low)
        methods[method.name] = methods.get(method.name, 0) + 1
        low, high = method.ratio(0.95)
        holds_ratio += low <= system.gamma <= high
        textbook += abs(pairs.differences.mean() - system.effect) <= half_width(pairs.differences)
    measured = count - unmeasured
    return {
        "tasks": tasks,
        "difference": holds / measured,
        "gamma": holds_ratio / measured,
        "textbook_t": textbook / measured,
        "mean_width": float(np.mean(widths)),
        "methods": methods,
    }


def half_width(differences: Floats) -> float:
    """Return that of the paired t interval which takes every task for independent."""
    n = len(differences)
    return float(stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n))


def verdicts(system: Discordant | Qualities, margin: float, tasks: int, count: int) -> dict[str, Any]:
    """Return the share of each verdict."""
    rules = Rules(margin=margin)
    found = [
        decide(drawn.coordinated, drawn.baseline, sources, rules).verdict
        for drawn, sources in simulations(system, tasks, count)
    ]
    return {"tasks": tasks, "margin": margin, **shares(found)}


def shares(found: Sequence[str]) -> dict[str, float]:
    return {name: found.count(name) / len(found) for name in ("worth_it", "not_worth_it", "not_enough_data")}


def spread(system: Discordant | Qualities) -> float:
    """Return the standard deviation of task-level differences, of a large sample."""
    drawn = system.draw(200_000, np.random.default_rng(SEED))
    return float((drawn.coordinated.mean(axis=1) - drawn.baseline.mean(axis=1)).std())


def null_spread(system: Discordant | Qualities, margin: float) -> float | None:
    """Return that of the same discordance with a difference of the margin, for right and wrong alone."""
    if isinstance(system, Qualities) or system.graded:
        return None
    total = system.gained + system.lost
    return discordance_spread((total + margin) / 2, (total - margin) / 2)


def power(system: Discordant | Qualities, margin: float, count: int) -> dict[str, Any]:
    """Return how often the effect is found with the stated number of tasks; what pilots would state."""
    needed = tasks_for(system.effect, spread(system), margin, null_spread=null_spread(system, margin))
    pilots = [
        decide(drawn.coordinated, drawn.baseline, sources, Rules(margin=margin)).tasks_needed
        for drawn, sources in simulations(system, 50, min(count, 300))
    ]
    stated = [pilot for pilot in pilots if pilot is not None]
    half = verdicts(system, margin, needed // 2, count)
    return {
        "effect": system.effect,
        "margin": margin,
        "stated_tasks": needed,
        "found": verdicts(system, margin, needed, count)["worth_it"],
        "found_with_half_of_them": half["worth_it"],
        "stated_by_pilots_of_50_tasks": {
            "quartiles": np.quantile(stated, [0.25, 0.5, 0.75]).tolist(),
            "cannot_say": 1 - len(stated) / len(pilots),
        },
    }


def detectable(tasks: int, count: int) -> dict[str, Any]:
    """Return how often an effect is found that equals the mean stated minimum detectable effect."""
    null = Qualities(0.0, varied=0.05)
    stated = [
        decide(drawn.coordinated, drawn.baseline).minimum_detectable_effect
        for drawn, _ in simulations(null, tasks, min(count, 200))
    ]
    effect = float(np.mean([value for value in stated if value is not None]))
    if effect > 0.25:
        return {"tasks": tasks, "stated": effect, "found": None, "why": "beyond what the simulator makes"}
    found = verdicts(replace(null, effect=effect), Rules().margin, tasks, count)
    return {"tasks": tasks, "stated": effect, "found": found["worth_it"]}


def biases(agents: int, system: Qualities, count: int) -> dict[str, Any]:
    """Return the means of ω and its twins over simulations of 50 tasks, all of which should be 0."""
    rows: list[tuple[float | None, ...]] = []
    for drawn, _ in simulations(replace(system, agents=agents), 50, count):
        # All samples of a task are equally good here, so that another judge sees its own noise alone.
        other = np.random.default_rng((SEED, len(rows))).random(drawn.agents[:, 0].shape)
        rows.append(
            (
                omega(drawn.coordinated, drawn.agents).value,
                omega_bias(agent_spread(drawn.agents), agents),
                omega_best_agent(drawn.coordinated, drawn.agents).value,
                omega_best_agent(drawn.coordinated, drawn.agents, scope="suite").value,
                omega_best_sample(drawn.coordinated, drawn.agents[:, 0], other).value,
            )
        )
    values = np.array(rows, dtype=np.float64)
    names = ("omega", "predicted_bias", "best_agent_of_task", "best_agent_of_suite", "best_sample")
    errors = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return {
        name: {"mean": float(mean), "standard_error": float(error)}
        for name, mean, error in zip(names, values.mean(axis=0), errors, strict=True)
    }


def sequential(system: Discordant | Qualities, count: int) -> dict[str, Any]:
    """Look after every task up to 500, at a margin of 0; the same looks at a t interval beside it."""
    found, stops, peeked = [], [], 0
    for drawn, _ in simulations(system, 500, count):
        seen = decide_sequentially(drawn.coordinated, drawn.baseline)
        found.append(seen.verdict)
        if seen.stopped_at is not None:
            stops.append(seen.stopped_at)
        peeked += looks_significant((drawn.coordinated - drawn.baseline).mean(axis=1))
    return {
        **shares(found),
        "any_claim_of_t_intervals": peeked / count,
        "median_stop": float(np.median(stops)) if stops else None,
    }


def looks_significant(differences: Floats) -> bool:
    """Return whether a t interval left out 0 at any look from the tenth task on."""
    n = np.arange(1, len(differences) + 1)
    mean = differences.cumsum() / n
    variance = np.maximum((differences**2).cumsum() / n - mean**2, 0) * n / np.maximum(n - 1, 1)
    critical = stats.t.ppf(0.975, np.maximum(n - 1, 1)) * np.sqrt(variance / n)
    return bool((np.abs(mean) > critical)[9:].any())


def family(tasks: int, count: int) -> dict[str, float]:
    """Return how often any of four strategies that add nothing is called worth it, at a margin of 0."""
    with_holm, without, all_found = 0, 0, 0
    rules = Rules(margin=0.0)
    for number in range(count):
        rng = np.random.default_rng((SEED, tasks, number))
        quality = rng.uniform(0.3, 0.7, tasks)
        baseline, *arms = (rng.beta(quality * 5, (1 - quality) * 5) for _ in range(5))
        named = {str(i): arm for i, arm in enumerate(arms)}
        with_holm += any(
            each.verdict == "worth_it" for each in decide_all(named, baseline, rules=rules).values()
        )
        without += any(decide(arm, baseline, rules=rules).verdict == "worth_it" for arm in arms)
        better = {name: np.clip(arm + 0.12, 0, 1) for name, arm in named.items()}
        all_found += all(
            each.verdict == "worth_it" for each in decide_all(better, baseline, rules=rules).values()
        )
    return {
        "tasks": tasks,
        "any_null_worth_it": with_holm / count,
        "any_null_worth_it_without_holm": without / count,
        "all_four_found_when_better_by_a_tenth": all_found / count,
    }


def drift(name: str, reference: int, count: int) -> dict[str, Any]:
    """Return false alarms in 1,000 scores and the power to find drops, over reference samples."""
    rng = np.random.default_rng((SEED, reference))
    alarms: list[float] = []
    found: dict[float, list[float]] = {drop: [] for drop in (0.04, 0.06, 0.08, 0.12, 0.16)}
    refused = 0
    for number in range(count):
        sample = SCORES[name](rng, (reference,))
        try:
            detector = DropDetector.calibrate(sample, seed=number)
        except ValueError:
            refused += 1
            continue
        large = SCORES[name](rng, (4000,))
        unchanged = detector.power_curve(SCORES[name](rng, (20_000,)), [0.0], 1000, 100, seed=number)
        alarms.append(unchanged[0.0])
        for drop, share in detector.power_curve(large, list(found), 150, 100, seed=number).items():
            found[drop].append(share)
    return {
        "scores": name,
        "reference": reference,
        "refused": refused,
        "false_alarms_in_1000": float(np.mean(alarms)),
        "standard_error": float(np.std(alarms) / np.sqrt(len(alarms))),
        "false_alarms_of_the_unluckiest_tenth": float(np.quantile(alarms, 0.9)),
        "found_within_150": {str(drop): float(np.mean(rates)) for drop, rates in found.items()},
    }


SCORES: Final[dict[str, Any]] = {
    "mean 70, SD 15": lambda rng, shape: np.clip(rng.normal(0.7, 0.15, shape), 0, 1),
    "mean 80, SD 12, beta": lambda rng, shape: rng.beta(8, 2, shape),
    "mean 89, SD 13, skewed beta": lambda rng, shape: rng.beta(4, 0.5, shape),
    "right in 90 %": lambda rng, shape: (rng.random(shape) < 0.9).astype(float),
    "right in 60 %": lambda rng, shape: (rng.random(shape) < 0.6).astype(float),
}


def judged(report: dict[str, Any]) -> dict[str, Any]:
    """Return each target with the worst cell."""
    cover = [
        (row["difference"], name, row["tasks"]) for name, rows in report["coverage"].items() for row in rows
    ]
    cover_ratio = [
        (row["gamma"], name, row["tasks"]) for name, rows in report["coverage"].items() for row in rows
    ]
    null = [(row["worth_it"], name, row["tasks"]) for name, rows in report["null"].items() for row in rows]
    found = [(row["found"], name, row["stated_tasks"]) for name, row in report["power"].items()]
    return {
        "coverage of the difference at least .93": {"worst": min(cover), "holds": min(cover)[0] >= 0.93},
        "coverage of gamma at least .93": {"worst": min(cover_ratio), "holds": min(cover_ratio)[0] >= 0.93},
        "null called worth it at most .05": {"worst": max(null), "holds": max(null)[0] <= 0.05},
        "effect found at least .80": {"worst": min(found), "holds": min(found)[0] >= 0.80},
    }


def measure(count: int) -> dict[str, Any]:
    """Run everything with so many simulations a cell."""
    half, few = count // 2, max(5, count // 25)
    return {
        "coverage": {
            name: [coverage(system, n, count) for n in TASKS] for name, system in timed("coverage", SYSTEMS)
        },
        "null": {
            name: [verdicts(system, 0.0, n, half) for n in TASKS] for name, system in timed("null", NULLS)
        },
        "at_the_margin": {
            "binary, .10/.05": [verdicts(Discordant(0.10, 0.05), 0.05, n, half) for n in TASKS],
            "bounded, judge noise .4": [verdicts(Qualities(0.05), 0.05, n, half) for n in TASKS],
        },
        "power": {name: power(system, margin, half) for name, (system, margin) in timed("power", EFFECTS)},
        "minimum_detectable_effect": [detectable(n, half) for n in TASKS],
        "omega": {
            f"{agents} agents, {noise}": biases(agents, system, 4 * few)
            for agents in (2, 3, 5)
            for noise, system in (
                ("bounded, judge noise .4", Qualities(replicates=3, varied=0.0)),
                ("binary", Qualities(replicates=3, varied=0.0, noise="binary")),
            )
        },
        "sequential": {
            name: sequential(system, half)
            for name, system in timed(
                "sequential",
                {
                    "null, binary .10/.10": Discordant(0.10, 0.10),
                    "null, binary .02/.02": Discordant(0.02, 0.02),
                    "null, bounded": Qualities(0.0),
                    "effect, binary .20/.10": Discordant(0.20, 0.10),
                    "effect, bounded .10": Qualities(0.10),
                },
            )
        },
        "holm": [family(n, count // 4) for n in (20, 50, 200)],
        "drift": [drift(name, m, few) for name, _ in timed("drift", SCORES) for m in (100, 200, 500)],
    }


def timed(part: str, cells: dict[str, Any]) -> Any:
    """Yield cells, and print how long each took."""
    for name, cell in cells.items():
        started = time.perf_counter()
        yield name, cell
        print(f"{part}: {name}: {time.perf_counter() - started:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the simulations, for a look")
    parser.add_argument("--simulations", type=int, default=1000, help="a cell of the coverage")
    arguments = parser.parse_args()
    count = 50 if arguments.quick else arguments.simulations
    ran_on, started = provenance(), time.process_time()
    report = measure(count)
    report = {
        "benchmark": "coordination_statistics",
        "ran_on": ran_on,
        "seed": SEED,
        "simulations_a_cell": {
            "coverage": count,
            "verdicts, power, sequential": count // 2,
            "holm": count // 4,
            "omega": 4 * max(5, count // 25),
            "drift, reference samples": max(5, count // 25),
        },
        "processor_seconds": round(time.process_time() - started, 1),
        "targets": judged(report),
        **report,
    }
    print(json.dumps(report["targets"], indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
