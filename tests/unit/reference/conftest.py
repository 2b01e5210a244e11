from __future__ import annotations

import pytest

from cert.reference.corpus import write_corpus
from cert.reference.documents import Document
from cert.reference.generate import generate_world
from cert.reference.recipe import Recipe
from cert.reference.train import Prepared, prepare
from cert.reference.world import World


@pytest.fixture(scope="session")
def world() -> World:
    return generate_world(seed=3, people=80)


@pytest.fixture(scope="session")
def documents(world: World) -> list[Document]:
    return write_corpus(world, follow=300)


@pytest.fixture(scope="session")
def tiny() -> Recipe:
    return Recipe(seed=5, people=50, follow=100, width=32, layers=2, heads=2, feed_forward=48, warmup=10)


@pytest.fixture(scope="session")
def prepared(tiny: Recipe) -> Prepared:
    return prepare(tiny)
