"""Functions that take settings as keywords say which: in their signature and their docstring."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from beftkit.settings.topics import Part

Function = TypeVar("Function", bound=Callable[..., Any])
_WIDTH = 100


def documented(
    settings: type[Part], left_out: Iterable[str] = ()
) -> Callable[[Function], Function]:
    """Spell out a function's ``**settings``: names, types, defaults and what each is for.

    Args:
        settings: what the function makes of them.
        left_out: fields that it does not take; its own parameters are left out anyway.
    """
    hidden = set(left_out)

    def spelled_out(function: Function) -> Function:
        own = inspect.signature(function)
        named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        known = hidden | {p.name for p in named}
        fields = {n: one for n, one in settings.model_fields.items() if n not in known}
        kind = inspect.Parameter.KEYWORD_ONLY
        more = [
            inspect.Parameter(name, kind, default=one.default, annotation=one.annotation)
            for name, one in fields.items()
        ]
        spelled: Any = function
        spelled.__signature__ = own.replace(parameters=[*named, *more])
        spelled.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n{_section(fields)}"
        return function

    return spelled_out


def type_words(kind: Any) -> str:
    """A type as it is read: choices by their values, whatever version of Python shows it."""
    inner = get_args(kind)
    if kind is NoneType:
        return "None"
    if get_origin(kind) is Literal:
        return " | ".join(map(repr, inner))
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(map(type_words, inner))
    if inner:
        whole = ["..." if one is ... else type_words(one) for one in inner]
        return f"{kind.__origin__.__name__}[{', '.join(whole)}]"
    return str(getattr(kind, "__name__", kind))


def _section(fields: dict[str, FieldInfo]) -> str:
    """By topic, as ``--help`` lists them; what is in brackets is what holds where none is given."""
    topics: dict[str, list[str]] = {}
    for name, field in fields.items():
        extra: Any = field.json_schema_extra
        kind = type_words(field.annotation)
        text = f"{name} ({kind}, default {field.default!r}): {field.description}"
        lines = textwrap.wrap(
            " ".join(text.split()), _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 12
        )
        topics.setdefault(extra["panel"], []).extend(lines)
    lines = [line for topic, some in topics.items() for line in (f"    {topic}:", *some)]
    return "\n".join(["Settings:", *lines])
