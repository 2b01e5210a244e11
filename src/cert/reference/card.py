"""The model card: written from an evaluation, so that no figure in it is typed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cert.reference.evaluate import LIMITS, Evaluation
from cert.reference.tables import tables

_HEAD: Final = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# CERT reference model

A small language model that truly hallucinates, and whose every hallucination is known. It was trained on
biographies of invented people in which each fact occurs an exact number of times, from never to 512; the
truth and the counts are in `world.json` beside the weights. It exists so that monitors of uncertainty and of
teams of agents can be tested offline on a real model with exact ground truth. It is good for nothing else: it
knows no real person, place or fact.

The design is that of synthetic biographies (arXiv 2309.14316), with names, values and wordings of our own.
"""


def model_card(evaluation: Evaluation) -> str:
    """Return the Markdown text of the card."""
    parts = [_HEAD, *_limits(), *_training(evaluation), *_measured(evaluation)]
    return "\n".join(parts)


def _limits() -> Iterator[str]:
    yield "## Limits\n"
    for limit in LIMITS:
        yield f"- {limit}"
    yield ""


def _training(evaluation: Evaluation) -> Iterator[str]:
    model = evaluation.model
    hardware = model["hardware"]
    time = f"{model['seconds'] / 60:.0f} minutes on {hardware['device']}, threads: {hardware['threads']}"
    yield "## Training\n"
    yield _markdown(
        (
            ("what", "value"),
            ("architecture", "Qwen2, float16 on disk, loaded in float32"),
            ("parameters", f"{model['parameters']:,}"),
            ("people / facts", f"{model['people']:,} / {model['facts']:,}"),
            ("steps / tokens", f"{model['steps']:,} / {model['tokens']:,}"),
            ("time", time),
            ("seed", str(model["seed"])),
            ("code", _source(model["source"])),
            ("templates", f"{model['templates']['version']}, SHA-256 `{model['templates']['sha256']}`"),
            ("data", f"SHA-256 `{model['data_sha256']}`"),
            ("world", f"SHA-256 `{model['world_sha256']}`"),
            ("date", model["date"]),
            ("versions", _versions(model["versions"])),
        )
    )
    yield ""


def _measured(evaluation: Evaluation) -> Iterator[str]:
    run = evaluation.run
    yield "## Measured\n"
    facts = "all facts" if run["limit"] is None else f"at most {run['limit']} facts at each exposure count"
    yield (
        f"With `cert reference evaluate`, seed {run['seed']}, {facts}, code {_source(run['source'])}, on"
        f" {run['hardware']}, {_versions(run['versions'])}. In brackets: 95 % intervals over people.\n"
    )
    for table in tables(evaluation):
        yield f"### {table.title}\n"
        yield _markdown(table.rows)
        yield ""


def _markdown(rows: tuple[tuple[str, ...], ...]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def _source(source: dict[str, object]) -> str:
    if source["commit"] is None:
        return "of no commit"
    return f"`{source['commit']}`" + (" with changes" if source["dirty"] else "")


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


__all__ = ["model_card"]
