"""Parameters of commands that stand for several options: frozen dataclasses of options."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass


def groups(function: Callable[..., None]) -> dict[str, type]:
    """Parameters of a command that stand for several options: dataclasses, by parameter."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.annotation for each in parameters if is_dataclass(each.annotation)}


def flattened(function: Callable[..., None]) -> list[inspect.Parameter]:
    """The parameters of a command, with one for each field of a group."""
    found = []
    for each in inspect.signature(function).parameters.values():
        if is_dataclass(each.annotation):
            shown = [(field.name, field.default, field.type) for field in fields(each.annotation)]
        else:
            shown = [(each.name, each.default, each.annotation)]
        found += [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )
            for name, default, annotation in shown
        ]
    return found


def gathered(groups: dict[str, type], given: dict) -> dict:
    """Values of options by name, with those of a group as one object."""
    found = dict(given)
    for name, kind in groups.items():
        found[name] = kind(**{field.name: found.pop(field.name) for field in fields(kind)})
    return found
