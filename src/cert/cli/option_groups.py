"""Options in groups: a command takes a group as one argument, and its users see each option by itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

__all__ = ["grouped"]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with each parameter that is a group replaced by the fields of the group.

    A group is a dataclass whose every field is an annotated option with a default. Its ``PANEL`` is the
    title under which ``--help`` shows them.
    """
    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    groups = {name: hints[name] for name in signature.parameters if is_dataclass(hints[name])}

    def call(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **made)

    parameters = [
        parameter
        for name, own in signature.parameters.items()
        for parameter in (
            _options_of(groups[name]) if name in groups else [own.replace(annotation=hints[name])]
        )
    ]
    call.__name__, call.__doc__, call.__module__ = command.__name__, command.__doc__, command.__module__
    # Typer reads both.
    vars(call)["__signature__"] = inspect.Signature(parameters)
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _options_of(group: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        for option in hints[field.name].__metadata__:
            option.rich_help_panel = group.PANEL
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
