"""Texts of others set apart within a prompt, so that what they say is no part of what we say.

Three things hold for every text, whoever wrote it:

* each of its lines begins with ``| ``, and no line of ours does: no text can end its section, begin another
  or speak in our place;
* the lines around it carry a marker that is a hash of all sections, so that no text can contain it, while the
  same material always gives the same prompt (and a cache works);
* what is invisible or turns a line around is written out, and the control tokens of chat templates are broken
  up, which a tokenizer would else take for turns of the conversation.

A model can still choose to obey what it reads inside; a fence tells it not to, and cannot make it.
Source: delimiting and datamarking of Hines et al., arXiv 2403.14720.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cert.core.visible import runs

__all__ = ["Fenced", "fenced", "neutral"]

_PREFIX = "| "
# Of the usual chat templates: ChatML, Llama, Gemma, Mistral, DeepSeek. A tokenizer may know others.
_CONTROL_TOKEN = re.compile(
    r"<\|[^<>|\n]{1,64}\|>|<｜[^<>｜\n]{1,64}｜>"
    r"|</?(?:s|bos|eos|pad|unk|mask|start_of_turn|end_of_turn|think|tool_call|tool_response)>"
    r"|<</?SYS>>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|IMG|PREFIX|SUFFIX)\]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Fenced:
    """Sections in their fence.

    Attributes:
        marker: of this material: 32 hexadecimal digits that none of the sections contains.
        text: all of it, for the prompt.
    """

    marker: str
    text: str


def fenced(sections: Sequence[tuple[str, str]]) -> Fenced:
    """Set texts apart.

    Args:
        sections: pairs of a name, which is ours (letters, digits and spaces), and a text, which may be
            anything.
    """
    shown = [(name, neutral(text)) for name, text in sections]
    marker = _marker(shown)
    parts = []
    for name, text in shown:
        body = "\n".join(_PREFIX + line for line in text.split("\n"))
        parts.append(f"--- begin {name} {marker} ---\n{body}\n--- end {name} {marker} ---")
    return Fenced(marker, "\n".join(parts))


def neutral(text: str) -> str:
    """Return a text that reads the same, ends its lines in one way and acts on nothing but a reader."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    shown = "".join(f"⟨{run.text}⟩" if run.kind == "hidden" else run.text for run in runs(plain))
    return _CONTROL_TOKEN.sub(lambda token: f"{token[0][0]} {token[0][1:]}", shown)


def _marker(sections: Sequence[tuple[str, str]]) -> str:
    material = json.dumps(sections).encode()
    attempt = 0
    while True:
        marker = hashlib.sha256(b"%d:" % attempt + material).hexdigest()[:32]
        # Nobody can write a text that contains its own hash. It is looked for all the same: this way the
        # promise rests on nothing.
        if not any(marker in text.casefold() for _, text in sections):
            return marker
        attempt += 1
