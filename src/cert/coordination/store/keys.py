"""The names of answers in a store: SHA-256 over everything that changes them, and over nothing else.

What changes an answer: who is asked, what they read, how they sample, which draw of several it is, and the
scope that a user keeps apart. On whose account it is asked, and how long it may take, does not.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cert._version import __version__
from cert.coordination.chat import ChatIdentity, ChatRequest, Tool
from cert.coordination.types import Task
from cert.core.errors import InputError

__all__ = ["KEY_VERSION", "evaluation_key", "request_key"]

# Of the form of the keys: another one makes every answer new.
KEY_VERSION = 1


def request_key(identity: ChatIdentity, request: ChatRequest, scope: str = "") -> str:
    """Return the name of a request's answer, 64 hexadecimal digits.

    Raises:
        InputError: the tool's schema is no JSON.
    """
    return _digest(
        "completion",
        scope,
        {
            "identity": [
                *(identity.provider, identity.model, identity.endpoint, identity.revision),
                *([identity.settings] if identity.settings else []),
            ],
            "system": request.system,
            "messages": [[message.role, message.content] for message in request.messages],
            "tool": None if request.tool is None else _tool(request.tool),
            "max_tokens": request.max_tokens,
            # 1 and 1.0, 0.0 and -0.0 are the same temperature.
            "temperature": None if request.temperature is None else float(request.temperature) + 0.0,
            "seed": request.seed,
            "draw": request.draw,
        },
    )


def evaluation_key(evaluator: str, task: Task, answer: str, draw: str = "", scope: str = "") -> str:
    """Return the name of an evaluation, by the identity of the evaluator.

    All of the task is in it, its metadata too: an evaluator of the user's own may read any of it.

    Raises:
        InputError: the metadata is no JSON.
    """
    told = [task.text, task.id, list(task.references), task.family, task.source]
    return _digest(
        "evaluation",
        scope,
        {
            "evaluator": evaluator,
            "task": told,
            "metadata": _json(dict(task.metadata), "the task's metadata"),
            "answer": answer,
            "draw": draw,
        },
    )


def _tool(tool: Tool) -> list[str]:
    # In the order in which it is sent: whether the reasons or the score come first changes the score.
    return [tool.name, tool.description, _json(dict(tool.schema), "the tool's schema")]


def _json(value: Any, what: str) -> str:
    try:
        return json.dumps(value, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what} is not JSON: {error}") from error


def _digest(kind: str, scope: str, content: dict[str, Any]) -> str:
    major = __version__.partition(".")[0]
    named = {"key_version": KEY_VERSION, "cert": major, "kind": kind, "scope": scope, **content}
    # ASCII alone: a lone surrogate in a text has no UTF-8, and must not have the key of another text.
    return hashlib.sha256(json.dumps(named, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
