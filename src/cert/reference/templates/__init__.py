"""The prompt templates of the reference model: versioned data, frozen.

A template is part of what the shipped weights were trained on, so ``v1.json`` never changes: a new wording is
a new file, a new version and a new training. `Templates.sha256` is written into the weights' metadata.

The coordination templates take any question, not only those about the reference world: the coordination
monitor sends the same strings to other models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final, Literal

CURRENT: Final = "v1"

TemplateId = int | Literal["held_out"]
"""Index of a training template, or ``"held_out"`` for the one that no training text contains."""

VALUE_SLOT: Final = " {value}"


@dataclass(frozen=True, slots=True)
class AttributeTemplates:
    """Wordings of one attribute: sentences have the slots ``{name}`` and ``{value}``, questions the first."""

    sentences: tuple[str, ...]
    held_out_sentence: str
    questions: tuple[str, ...]
    held_out_question: str

    def sentence(self, template: TemplateId) -> str:
        """Return the sentence template itself, with its slots."""
        return self.held_out_sentence if template == "held_out" else self.sentences[template]

    def question(self, template: TemplateId) -> str:
        """Return the question template itself, with its slot."""
        return self.held_out_question if template == "held_out" else self.questions[template]


@dataclass(frozen=True, slots=True)
class Templates:
    """One version of all templates.

    The methods from `vote` to `p_true` give the user message of a chat, ready for a chat template.
    """

    version: str
    sha256: str
    attributes: Mapping[str, AttributeTemplates]
    coordination: Mapping[str, str]
    answer_line: str
    true: str
    false: str

    def vote(self, question: str) -> str:
        """Plain question: each agent is asked alone and the answers are counted."""
        return self.coordination["vote"].format(question=question)

    def aggregation(self, question: str, answers: Sequence[str]) -> str:
        """Question and the answers of several agents, of which one final answer is wanted."""
        return self.coordination["aggregation"].format(question=question, answers=self._lines(answers))

    def review(self, question: str, draft: str) -> str:
        """Question and the draft of the agent before, to be corrected or repeated."""
        return self.coordination["review"].format(question=question, draft=self._lines([draft]))

    def debate(self, question: str, own: str, peers: Sequence[str]) -> str:
        """Question, the agent's own answer of the last round and the answers of its peers."""
        return self.coordination["debate"].format(
            question=question, own=self._lines([own]), answers=self._lines(peers)
        )

    def p_true(self, question: str, answer: str) -> str:
        """Ask whether a proposed answer is true (P(True), arXiv 2207.05221); the reply is one token."""
        return self.coordination["p_true"].format(question=question, answer=self._lines([answer]))

    def _lines(self, answers: Sequence[str]) -> str:
        return "\n".join(self.answer_line.format(answer=answer.strip()) for answer in answers)


@cache
def load_templates(version: str = CURRENT) -> Templates:
    """Read a version of the templates; raises `FileNotFoundError` for one that does not exist."""
    raw = resources.files(__name__).joinpath(f"{version}.json").read_bytes()
    data = json.loads(raw)
    attributes = {
        name: AttributeTemplates(
            sentences=tuple(entry["sentences"]),
            held_out_sentence=entry["held_out_sentence"],
            questions=tuple(entry["questions"]),
            held_out_question=entry["held_out_question"],
        )
        for name, entry in data["attributes"].items()
    }
    return Templates(
        version=data["version"],
        sha256=hashlib.sha256(raw).hexdigest(),
        attributes=attributes,
        coordination=data["coordination"],
        answer_line=data["answer_line"],
        true=data["true"],
        false=data["false"],
    )


__all__ = ["CURRENT", "VALUE_SLOT", "AttributeTemplates", "TemplateId", "Templates", "load_templates"]
