"""The words that a judge is asked with, as data, and the prompt that they make with the material."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from cert.answers.judge import Kind
from cert.coordination.chat import Tool
from cert.coordination.evaluators.fence import Fenced

__all__ = ["Instructions", "load_instructions"]

CURRENT = "v1"


@dataclass(frozen=True, slots=True)
class Instructions:
    """A version of the words.

    Attributes:
        version: its name.
        sha256: of its file.
        system: what the judge is told before.
        kinds: what is asked, for each kind of judgement.
        opening, closing: around the material, with its ``marker``.
        typed, json: the form of the judgement: the name of the ``tool``, or its ``schema``.
    """

    version: str
    sha256: str
    system: str
    kinds: Mapping[str, str]
    opening: str
    closing: str
    typed: str
    json: str

    def prompt(
        self,
        kind: Kind,
        material: Fenced,
        tool: Tool,
        *,
        typed: bool,
        criteria: str = "",
    ) -> str:
        """Return what the judge is asked.

        Args:
            kind: of the judgement.
            material: what is judged.
            tool: the form of the judgement.
            typed: whether the judge has to call the tool.
            criteria: in words that are ours.
        """
        marked = {"marker": material.marker}
        form = (
            self.typed.format(tool=tool.name)
            if typed
            else self.json.format(schema=json.dumps(dict(tool.schema), ensure_ascii=False))
        )
        asked = [self.kinds[kind], criteria, self.opening.format(**marked), material.text]
        return "\n\n".join(filter(None, [*asked, self.closing.format(**marked), form]))


@cache
def load_instructions(version: str = CURRENT) -> Instructions:
    """Read a version of the words; raises `FileNotFoundError` for one that does not exist."""
    file = resources.files("cert.coordination.evaluators").joinpath(f"instructions.{version}.json")
    raw = file.read_bytes()
    data = json.loads(raw)
    return Instructions(**data, sha256=hashlib.sha256(raw).hexdigest())
