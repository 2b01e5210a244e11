"""What talking does on the reference model: five ways to answer 200 questions whose truth is known.

    python benchmarks/coordination_reference.py [--tasks 200] [--out FILE]

Questions in a wording that training never used, about people of whom it never asked anything, on facts that
it read 4 to 64 times: the model knows some of them. Three agents at temperature 1; every system is compared
with one agent that samples as often as the system's tokens would pay for and takes the majority. The
templates are those that the model was trained on (`reference-v1`). All is seeded and offline.

It shows that the machinery is right, on a model of a million parameters. It says nothing of teams of large
models.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

from provenance import provenance

from cert.coordination import BaselineMeasurer, CoordinationOrchestrator, InProcessChatClient, Task
from cert.coordination.evaluators import normalized
from cert.coordination.prompts import load_prompts
from cert.reference.world import load_world

SYSTEMS = ("vote", "parallel", "sequential", "debate(rounds=1)", "debate")
EXPOSURES = range(4, 65)
AGENTS = 3


def questions(count: int, seed: int) -> list[Task]:
    """Draw questions about different facts; those about one person have one source."""
    facts = [
        fact
        for fact in load_world().facts
        if fact.exposures in EXPOSURES and not fact.person.question_person and not fact.person.never_seen
    ]
    drawn = random.Random(seed).sample(facts, count)
    return [
        Task(
            fact.question(),
            references=(fact.value,),
            family=fact.attribute,
            source=f"person-{fact.person.index}",
        )
        for fact in drawn
    ]


async def measure(count: int, seed: int) -> dict[str, Any]:
    """Run the suite and return what was found."""
    prompts = load_prompts("reference-v1")
    how: dict[str, Any] = {"temperature": 1.0, "max_tokens": 16, "prompts": prompts}
    client = InProcessChatClient("reference")
    evaluator = normalized()
    baseline = BaselineMeasurer(client, evaluator, seed=seed, **how)
    orchestrator = CoordinationOrchestrator(client, baseline, evaluator, **how)
    started = time.monotonic()
    report = await orchestrator.measure_suite(
        questions(count, seed), SYSTEMS, num_agents=AGENTS, replicates=2, seed=seed, concurrency=16
    )
    await client.aclose()
    print(f"{time.monotonic() - started:.0f} s")
    return report.to_dict(transcripts=False)


def row(found: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a finding that goes into the table."""
    decision = found["decision"]
    return {
        "system": found["system"],
        "verdict": found["verdict"],
        "reasons": found["reasons"],
        "team_quality": found["team"]["quality"],
        "single_quality": found["single"]["quality"],
        "independent_quality": found["independent"]["quality"],
        "samples": found["samples"],
        "budget_ratio": found["budget_ratio"],
        "gamma": found["gamma"],
        "gamma_budget": decision["ratio"],
        "difference": decision["difference"],
        "omega": found["omega"],
        "omega_bias": found["omega_bias"],
        "omega_best_agent": found["omega_best_agent"],
        "noise_floor": decision["noise_floor"],
        "minimum_detectable_effect": decision["minimum_detectable_effect"],
        "more_tasks": found["more_tasks"],
        "consensus": found["consensus"],
        "attribution": found["attribution"],
        "changes": found["changes"],
        "oracle_gap": found["oracle_gap"],
        "tokens": None if found["team"]["usage"] is None else sum(found["team"]["usage"].values()),
    }


def show(rows: list[dict[str, Any]]) -> None:
    for one in rows:
        difference, ratio = one["difference"], one["gamma_budget"]
        print(
            f"{one['system']:18} {one['team_quality']:.3f}  single ×{one['samples']:4.1f} "
            f"{one['single_quality']:.3f}  difference {difference['value']:+.3f} "
            f"[{difference['interval']['low']:+.3f}, {difference['interval']['high']:+.3f}]  "
            f"γ_budget {ratio['value']:.3f}  {one['verdict']}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    ran_on = provenance()
    report = asyncio.run(measure(options.tasks, options.seed))
    rows = [row(found) for found in report["findings"]]
    show(rows)
    if options.out:
        told = {
            "benchmark": "coordination_reference",
            "ran_on": ran_on,
            "tasks": options.tasks,
            "agents": AGENTS,
            "replicates": 2,
            "seed": options.seed,
            "temperature": 1.0,
            "seconds": round(report["seconds"], 1),
            "systems": rows,
        }
        options.out.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
