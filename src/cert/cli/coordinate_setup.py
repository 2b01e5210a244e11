"""From options to an orchestrator: models, evaluator, store."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cert.cli.chat_models import ChatModels, Limits, default_model, parse_prices
from cert.cli.coordinate_options import DEFAULT_STORE, MoneyOptions, ScoreOptions, TeamOptions
from cert.core.errors import ConfigurationError, InputError

if TYPE_CHECKING:
    from cert.coordination.baseline import BaselineMeasurer
    from cert.coordination.chat import ChatClient
    from cert.coordination.evaluators.protocol import Evaluator
    from cert.coordination.orchestrator import CoordinationOrchestrator
    from cert.coordination.types import Task

__all__ = ["Setup", "opened", "split_systems"]

_RULES: Final = ("exact", "normalized", "numeric", "choice", "regex")


@dataclass(frozen=True, slots=True)
class Setup:
    """What a command measures with.

    Attributes:
        orchestrator: with all models.
        baseline: its baseline measurer, whose store is closed with it.
    """

    orchestrator: CoordinationOrchestrator
    baseline: BaselineMeasurer


@contextlib.asynccontextmanager
async def opened(
    tasks: Sequence[Task],
    team: TeamOptions,
    score: ScoreOptions,
    money: MoneyOptions,
    *,
    kept_as: str | None = None,
) -> AsyncIterator[Setup]:
    """Open everything that the options name, and close it in the end.

    Args:
        tasks: that are measured.
        team: who works.
        score: who scores.
        money: what it may cost, and where answers are kept.
        kept_as: keep the team's answers and all evaluations under this name; ``None`` where a suite does.

    Raises:
        ConfigurationError: options that do not go together.
        CertError: a model or the store cannot be opened.
    """
    from cert.coordination.baseline import BaselineMeasurer
    from cert.coordination.orchestrator import CoordinationOrchestrator
    from cert.coordination.prompts import load_prompts
    from cert.coordination.store import CachedChatClient, open_store
    from cert.coordination.store.evaluator import keeping
    from cert.coordination.strategies.team import Agent

    name = default_model() if team.model is None else team.model
    prompts = load_prompts(team.prompts or ("reference-v1" if name == "reference" else "v1"))
    rule = _rule(score, tasks)
    models = ChatModels(Limits(money.requests_per_minute, money.most()), parse_prices(money.price))
    agents: dict[str, Any] = {
        "temperature": team.temperature,
        "max_tokens": team.max_tokens,
        "prompts": prompts,
    }
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(models.aclose)
        client = models.open(name, agents=True)
        evaluator = rule or _judge(score, models)
        selector = None if score.selector is None else models.open(score.selector)
        _refuse_one_mind(score, models)
        store = open_store(_ready(money.place()))
        stack.push_async_callback(store.aclose)
        baseline = BaselineMeasurer(client, evaluator, store=store, seed=team.seed, **agents)
        asked: ChatClient = client
        if kept_as is not None:
            asked = CachedChatClient(client, store, scope=kept_as)
        orchestrator = CoordinationOrchestrator(
            asked,
            baseline,
            evaluator if kept_as is None or rule is not None else keeping(evaluator, store, scope=kept_as),
            equivalence=getattr(evaluator, "equivalence", None),
            selector=None if selector is None else Agent("selector", selector, max_tokens=64),
            **agents,
        )
        yield Setup(orchestrator, baseline)


def split_systems(text: str) -> list[str]:
    """Return the systems of a list with commas, in which a system's own parameters may have commas too.

    Raises:
        InputError: a name is empty, or a bracket is left open.
    """
    parts, depth, start = [], 0, 0
    for place, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    parts.append(text[start:].strip())
    if depth or not all(parts):
        raise InputError(f"{text!r} is no list of systems", hint="such as vote,debate(rounds=1)")
    return parts


def _rule(score: ScoreOptions, tasks: Sequence[Task]) -> Evaluator | None:
    """Return the rule that scores, ``None`` where a judge does."""
    from cert.coordination.evaluators import matching

    if score.judge is not None:
        if score.evaluator is not None:
            raise ConfigurationError("give --judge or --evaluator: one of them scores")
        return None
    if score.judge_repeats != 1:
        raise ConfigurationError("--judge-repeats plays no part without --judge")
    bare = sum(not task.references for task in tasks)
    if bare:
        told = "the task has no reference" if len(tasks) == 1 else f"{bare} tasks have no reference"
        raise ConfigurationError(f"{told}, and there is no --judge: nothing could score the answers")
    name = score.evaluator or "normalized"
    if name not in _RULES:
        raise ConfigurationError(f"there is no evaluator '{name}'", hint=f"one of {', '.join(_RULES)}")
    made: Evaluator = getattr(matching, name)()
    return made


def _judge(score: ScoreOptions, models: ChatModels) -> Evaluator:
    from cert.coordination.evaluators import QualityEvaluator

    assert score.judge is not None
    return QualityEvaluator(models.open(score.judge), repeats=score.judge_repeats)


def _refuse_one_mind(score: ScoreOptions, models: ChatModels) -> None:
    """Refuse a selector that is the judge: it would choose what it scores best."""
    if score.selector is None or score.judge is None:
        return
    if models.open(score.selector).identity == models.open(score.judge).identity:
        raise ConfigurationError("the selector is the judge", hint="another model for one of them")


def _ready(place: str | None) -> str | None:
    """Keep the folder of the usual store out of version control: answers may be confidential."""
    if place == DEFAULT_STORE:
        folder = Path(place).parent
        with contextlib.suppress(OSError):  # where it cannot be made, the store says so better
            folder.mkdir(mode=0o700, exist_ok=True)
            ignore = folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
    return place
