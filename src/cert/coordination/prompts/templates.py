"""Templates with named slots. What fills a slot is text and stays text, whatever it looks like."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final

from cert.coordination.evaluators.fence import neutral
from cert.core.errors import ConfigurationError, InputError

__all__ = ["ROLES", "Prompt", "PromptSet"]

ROLES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "answer": frozenset({"task"}),
        "review": frozenset({"task", "draft"}),
        "aggregate": frozenset({"task", "answers"}),
        "debate": frozenset({"task", "own", "answers"}),
        "select": frozenset({"task", "answers"}),
    }
)
"""The slots that the template of each role must have; each may have ``{fence}`` too."""

_ITEM_SLOTS = frozenset({"answer"})
_ITEM_OPTIONAL = frozenset({"number", "fence"})
_SLOT = re.compile(r"\{([a-z_]+)\}")
# Whatever Python's own formatting would take for a field: refused, so that nobody relies on it.
_FIELD = re.compile(r"\{[\w.!:\[\]]*\}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A message for an agent, and where it comes from.

    Attributes:
        text: of the message.
        role: of its template.
        template: version, role and SHA-256 of the template; empty for a text without one.
    """

    text: str
    role: str
    template: str = ""


@dataclass(frozen=True)
class PromptSet:
    """One version of all templates.

    A slot is ``{name}``. Answers of agents are untrusted: they are filled in once and never read for slots,
    and each is wrapped in ``item``, whose ``{fence}`` is a word that none of the answers contains, so that
    no answer can pass for the end of itself. The same texts give the same fence: the prompt can be cached.
    In an item with a fence, control tokens of chat templates are broken up, and what is invisible is written
    out.

    Attributes:
        version: names the wording.
        templates: by role. A role of `ROLES` may be absent, and is then refused when it is needed; a role of
            the user's may have any slots.
        item: what stands around one answer, with the slots ``{answer}`` and, as wanted, ``{number}`` (from 1)
            and ``{fence}``.

    Raises:
        InputError: a slot is missing or unknown, or something is no text.
    """

    version: str
    templates: Mapping[str, str]
    item: str

    def __post_init__(self) -> None:
        if not _is_text(self.version):
            raise InputError("a set of prompts needs a version")
        object.__setattr__(self, "templates", MappingProxyType(dict(self.templates)))
        for role, template in self.templates.items():
            found = _slots(template, f"template {role!r}")
            if role in ROLES:
                _check(found, ROLES[role], frozenset({"fence"}), f"template {role!r}")
        _check(_slots(self.item, "the item"), _ITEM_SLOTS, _ITEM_OPTIONAL, "the item")

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of templates and item, as canonical JSON."""
        return _digest([dict(self.templates), self.item])

    def __str__(self) -> str:
        return f"{self.version}@{self.sha256}"

    def require(self, *roles: str) -> None:
        """Check that there is a template of each role, before anything is paid for.

        Raises:
            ConfigurationError: there is none of one of them.
        """
        for role in roles:
            if role not in self.templates:
                raise ConfigurationError(
                    f"the prompts {self.version!r} have no template {role!r}", hint=", ".join(self.templates)
                )

    def answer(self, task: str) -> Prompt:
        """The task itself, for an agent that answers alone."""
        return self.render("answer", task=task)

    def review(self, task: str, draft: str) -> Prompt:
        """The task and the draft of the agent before."""
        return self.render("review", task=task, draft=[draft])

    def aggregate(self, task: str, answers: Sequence[str]) -> Prompt:
        """The task and several answers, of which one is to be made."""
        return self.render("aggregate", task=task, answers=answers)

    def debate(self, task: str, own: str, answers: Sequence[str]) -> Prompt:
        """The task, what the agent said last, and what the others said."""
        return self.render("debate", task=task, own=[own], answers=answers)

    def select(self, task: str, answers: Sequence[str]) -> Prompt:
        """The task and several answers, of which the number of the best is wanted."""
        return self.render("select", task=task, answers=answers)

    def render(self, role: str, **filled: str | Sequence[str]) -> Prompt:
        """Fill in the template of a role.

        Args:
            role: of the template.
            **filled: the slots: a text as it is, or a list of answers, each of them in its item.

        Raises:
            ConfigurationError: there is no template of that role.
            InputError: the slots are not those of the template.
        """
        self.require(role)
        template = self.templates[role]
        fence = _fence(filled)
        _check(_slots(template, role), frozenset(filled), frozenset({"fence"}), f"template {role!r}")
        texts = {name: self._text(value, fence) for name, value in filled.items()}
        return Prompt(_fill(template, {**texts, "fence": fence}), role, self._name(role))

    def _text(self, value: str | Sequence[str], fence: str) -> str:
        if isinstance(value, str):
            return value
        # The reference model's strings have no fence, and its answers go into them as they are.
        shown = [neutral(answer) if "{fence}" in self.item else answer for answer in value]
        return "\n".join(
            _fill(self.item, {"answer": answer.strip(), "number": str(number), "fence": fence})
            for number, answer in enumerate(shown, 1)
        )

    def _name(self, role: str) -> str:
        return f"{self.version}/{role}@{_digest([self.templates[role], self.item])}"


def _is_text(value: object) -> bool:
    # Files hold whatever their writers put there.
    return isinstance(value, str) and bool(value.strip())


def _slots(template: str, where: str) -> frozenset[str]:
    if not _is_text(template):
        raise InputError(f"{where} is not a text")
    for field in _FIELD.findall(template):
        if not _SLOT.fullmatch(field):
            raise InputError(f"{where} has {field!r}, which is no slot", hint="a slot is {name} alone")
    return frozenset(_SLOT.findall(template))


def _check(found: frozenset[str], needed: frozenset[str], optional: frozenset[str], where: str) -> None:
    if lacking := sorted(needed - found):
        raise InputError(f"{where} lacks the slot {{{lacking[0]}}}")
    if unknown := sorted(found - needed - optional):
        allowed = ", ".join(f"{{{name}}}" for name in sorted(needed | optional))
        raise InputError(f"{where} has the unknown slot {{{unknown[0]}}}", hint=f"it may have {allowed}")


def _fill(template: str, texts: Mapping[str, str]) -> str:
    # In one pass: a slot within what was filled in is a part of somebody's text.
    return _SLOT.sub(lambda slot: texts[slot[1]], template)


def _fence(filled: Mapping[str, str | Sequence[str]]) -> str:
    texts = [text for value in filled.values() for text in ([value] if isinstance(value, str) else value)]
    fence = _digest(texts)[:12]
    while any(fence in text for text in texts):
        fence = _digest([fence])[:12]
    return fence


def _digest(data: object) -> str:
    # A model's answer may hold half a surrogate pair, which is no UTF-8.
    text = json.dumps(data, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
