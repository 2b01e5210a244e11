from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from cert.backends.local import LocalBackend
from cert.reference import weights
from cert.reference.asking import Asker
from cert.reference.recall import answer_questions, complete_sentences
from cert.reference.templates import load_templates
from cert.reference.world import Fact, World, load_world

ROOT = Path(__file__).resolve().parents[3]
MODELS = ROOT / "models"  # not in the source distribution
SEEDS = [MODELS / "reference-seed1", MODELS / "reference-seed2"] if MODELS.is_dir() else []
FILES = (
    "model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json",
    "chat_template.jinja", "training.json", "world.json", "MODEL_CARD.md", "LICENSE",
)  # fmt: skip
SAMPLE = 60


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def asker() -> Asker:
    return Asker(LocalBackend.load("reference"), seed=0)


def metadata(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    return found


def sample(world: World, exposures: int, *, question_person: bool | None) -> list[Fact]:
    facts = [
        fact
        for fact in world.facts
        if fact.exposures == exposures
        and (question_person is None or fact.person.question_person is question_person)
    ]
    return Random(0).sample(facts, SAMPLE)


@pytest.mark.parametrize("folder", [weights.path(), *SEEDS], ids=lambda path: path.name)
def test_the_metadata_match_the_world_and_the_templates(folder: Path) -> None:
    """Otherwise evaluations would judge the model by another truth or ask it in other words."""
    described = metadata(folder)
    world = load_world(folder)
    templates = load_templates(world.templates_version)
    assert described["world_sha256"] == world.sha256
    assert described["templates"] == {"version": templates.version, "sha256": templates.sha256}
    assert (described["people"], described["facts"]) == (len(world.people), len(world.facts))
    assert described["finished"] is True
    assert len(described["source"]["commit"]) == 40
    assert described["source"]["dirty"] is False


@pytest.mark.parametrize("folder", [weights.path(), *SEEDS], ids=lambda path: path.name)
def test_a_folder_of_weights_is_complete(folder: Path) -> None:
    """Otherwise the model does not load offline, or comes without its licence and limits."""
    assert not [name for name in FILES if not (folder / name).is_file()]


def test_the_shipped_files_are_small() -> None:
    """Otherwise everyone who installs CERT pays for the reference model."""
    files = [path for path in weights.path().iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000


def test_the_three_seeds_are_three_worlds() -> None:
    """Otherwise results over seeds would repeat one model three times."""
    worlds = {load_world(folder).sha256 for folder in [weights.path(), *SEEDS]}
    assert len(worlds) == 1 + len(SEEDS)


def test_the_card_says_what_the_model_is_not() -> None:
    """Otherwise users would take results on an invented world for results on theirs."""
    card = (weights.path() / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "## Limits" in card
    assert metadata(weights.path())["source"]["commit"] in card


def test_facts_seen_512_times_are_known_in_held_out_questions(world: World, asker: Asker) -> None:
    """Otherwise the shipped model does not know what its world file says it knows."""
    facts = sample(world, 512, question_person=False)
    assert answer_questions(asker, facts).right.mean() >= 0.9


def test_facts_seen_512_times_are_known_in_held_out_sentences(world: World, asker: Asker) -> None:
    """Otherwise the model knows facts only in the words that it was taught."""
    facts = sample(world, 512, question_person=None)
    assert complete_sentences(asker, facts).mean() >= 0.9


def test_facts_never_seen_are_hallucinated(world: World, asker: Asker) -> None:
    """Otherwise there is no hallucination to find, or the truth leaked into training."""
    answers = answer_questions(asker, sample(world, 0, question_person=False))
    assert answers.right.mean() <= 0.1
    assert all(generation.finish_reason == "stop" for generation in answers.generations)
