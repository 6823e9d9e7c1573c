"""What the command line's own parser finds wrong, in one line of ours, with what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from typer import BadParameter

from beftkit.errors import UsageError
from beftkit.spelling import OF_OTHERS, flag_of, meant, nearest

#: what the parser raises; its own class lies elsewhere in each version of Typer
ParserError: Any = BadParameter.__bases__[0]
_CHOICE = re.compile(r"'(?P<given>.*)' is not one of (?P<known>'.*')", re.DOTALL)
_EXTRA = re.compile(r"[Gg]ot unexpected extra arguments? ?\(?s?\)? ?\((?P<given>.*)\)", re.DOTALL)


def usage_error(error: Any, command: str) -> UsageError | None:
    """What the parser says, as an error of ours; None where it asks for the help to be shown.

    ``command`` is what was called, for errors of the parser that do not know it.
    """
    if type(error).__name__ == "NoArgsIsHelpError":
        return None
    context = error.ctx
    path = context.command_path if context is not None else f"beftkit {command}".strip()
    return UsageError(f"{_said(error, context, path)} ({path} --help)")


def no_command(name: str, known: Iterable[str]) -> UsageError:
    """There is no such command."""
    known = list(known)
    likely = meant(name, known) or f"; expected one of {', '.join(known)}"
    return UsageError(f"{name}: no such command{likely}")


def _said(error: Any, context: Any, path: str) -> str:
    name: str = getattr(error, "option_name", "")
    if hasattr(error, "possibilities"):
        return f"{name}: no such option{_option_meant(name, context)}"
    if name:  # BadOptionUsage: a value is lacking, or was given to a switch
        takes = "takes no value" if "not take" in error.message else "needs a value"
        return f"{name}: {takes}"
    parameter = getattr(error, "param", None)
    if parameter is None:
        extra = _EXTRA.search(error.message)
        if extra:
            return f"{extra['given']}: more arguments than {path} takes"
        return _plain(error.message)
    argument = parameter.param_type_name == "argument"
    shown = _argument(parameter) if argument else parameter.opts[0]
    if type(error).__name__ == "MissingParameter":
        return f"no {shown} was given"
    choice = _CHOICE.search(error.message)
    if choice:
        known = re.findall(r"'([^']*)'", choice["known"])
        likely = meant(choice["given"], known)
        given = choice["given"].replace("'", "'\"'\"'")
        return f"{shown}='{given}': expected one of {', '.join(known)}{likely}"
    return f"{shown}: {_plain(error.message)}"


def _option_meant(name: str, context: Any) -> str:
    """What an unknown option was meant for, among those of its command."""
    parameters = [] if context is None else context.command.get_params(context)
    shown = [one for one in parameters if not getattr(one, "hidden", False)]
    names = [name for one in shown for name in (*one.opts, *one.secondary_opts)]
    found = nearest(name, [one for one in names if len(one) > 2], OF_OTHERS)
    if found is None:
        return ""
    (argument,) = [one for one in shown if found in one.opts][:1] or [None]
    if argument is not None and argument.param_type_name == "argument":
        return f"; it is an argument: {context.command_path} {_argument(argument)}"
    return f"; did you mean {found if found.startswith('--') else flag_of(found)}?"


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper()).removesuffix("...")


def _plain(message: str) -> str:
    """The parser's sentence in the form of ours."""
    message = message.removeprefix("Value error, ").rstrip(".")
    for ending, ours in (("valid integer", "a whole number"), ("valid number", "a number")):
        if ending in message:
            return f"expected {ours}"
    return message[:1].lower() + message[1:]
