"""The errors that a user's input can raise, and the two tongues they are told in.

Exit codes. 2, `UsageError`: what was typed can be told wrong without looking at a file, a model,
the hub or the machine, or it lacks something (also where a file had to be opened to know that it
does: ``beftkit score ONE``). 1, `BeftError`: all the rest, such as a column that a file lacks, a
layer or tower that a model lacks, a device that a machine lacks, a wrong value in a YAML file.

A message names an option once, as ``--max-length`` alone or with a value, as ``--max-length=64``;
what a user gave is put in by `option`. At a terminal that reads ``--max-length 64``
(`BeftError.at_terminal`), in Python ``max_length=64``, and ``--no-quotes`` reads ``quotes=False``
(``str(error)``). What stands in backticks is a command, and stays as it is.
"""

from __future__ import annotations

import re
import shlex
from keyword import iskeyword

#: options that take no value: ``--resume`` is ``resume=True``; a test holds this to what there is
SWITCHES = frozenset(
    {
        *("allow-inert", "allow-nonfinite", "allow-partial", "common-shots", "download", "fisher"),
        *("freeze-head", "gradient-checkpointing", "group-by-length", "new-head", "overwrite"),
        *("quotes", "regression", "resume", "save-snapshots", "trust-remote-code", "verify"),
        "deep",
        "link",
    }
)
_QUOTED = r"""'[^']*'(?:"'"'[^']*')*"""
_BARE = r"(?:[^\s;:,()`'?]|[:,](?=[^\s;:,()]))+"
_OPTION = re.compile(
    rf"`[^`]*`|(?<![\w/-])--(?P<name>[a-z][a-z0-9]*(?:-[a-z0-9]+)*)(?:=(?P<value>{_QUOTED}|{_BARE}))?"
)
_PLAIN = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?|[A-Z]+|None|True|False", re.ASCII)


class BeftError(ValueError):
    """Something is wrong with what was given, not with beftkit.

    The message is one line: what was given, what was expected, what to do next. The command
    line prints it and exits with 1, without a traceback.

    Args:
        text: the message, its options as `option` writes them.
        kind: for whoever goes on after it: what is wrong with one checkpoint of many (``gated``,
            ``gone``, ``damaged``, ..., as `beftkit.surveys.rows.OUTCOMES`); "": nothing of those.
    """

    def __init__(self, text: str = "", kind: str = "") -> None:
        super().__init__(text)
        self.kind = kind

    @property
    def told(self) -> str:
        """The message as it was written, to be part of another."""
        return super().__str__()

    @property
    def at_terminal(self) -> str:
        """The message, its options as one types them."""
        return _OPTION.sub(_typed, self.told)

    def __str__(self) -> str:
        return _OPTION.sub(_python, self.told)


class UsageError(BeftError):
    """The command was called in a way that cannot mean anything; exit code 2."""


class Refusal(BeftError):
    """A folder that must not be gone on with: others write there, or it was begun otherwise.

    Never one cell's failure that a grid may leave behind: going on would mix results.
    """


class Diverged(BeftError):
    """A training whose loss, gradient or values are not finite any more: the rate was too high."""


class Unreachable(BeftError):
    """The hub does not answer and the cache has no copy: at another time or place it may be had."""


def option(field: str, value: object) -> str:
    """A field and what was given for it, for a message: ``--max-length=64``, ``--bias='z'``."""
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    text = " ".join(text.split())
    text = text if len(text) <= 120 else f"{text[:117]}..."
    if value is not None and not isinstance(value, int | float):
        text = "'{}'".format(text.replace("'", "'\"'\"'"))
    return f"--{field.rstrip('_').replace('_', '-')}={text}"


def _typed(found: re.Match[str]) -> str:
    if found["value"] is None:
        return found[0]
    return f"--{found['name']} {shlex.quote(_value(found['value']))}"


def _python(found: re.Match[str]) -> str:
    name = found["name"]
    if name is None:
        return found[0]
    if found["value"] is not None:
        value = _value(found["value"])
        bare = _PLAIN.fullmatch(value) and not found["value"].startswith("'")
        return f"{_field(name)}={value if bare else repr(value)}"
    if name.startswith("no-") and name[3:] in SWITCHES:
        return f"{_field(name[3:])}=False"
    return f"{_field(name)}=True" if name in SWITCHES else _field(name)


def _value(text: str) -> str:
    return text[1:-1].replace("'\"'\"'", "'") if text.startswith("'") else text


def _field(name: str) -> str:
    """The setting of an option; one that would be a word of Python's has a line behind it."""
    return f"{name}_" if iskeyword(name) else name.replace("-", "_")
