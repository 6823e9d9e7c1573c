"""The errors that a user's input can raise."""

from __future__ import annotations


class BeftError(ValueError):
    """Something is wrong with what was given, not with beftkit.

    The message is one line: what was given, what was expected, what to do next. The command
    line prints it and exits with 1, without a traceback.
    """


class UsageError(BeftError):
    """The command was called in a way that cannot mean anything; exit code 2."""


class Refusal(BeftError):
    """A folder that must not be gone on with: others write there, or it was begun otherwise.

    Never one cell's failure that a grid may leave behind: going on would mix results.
    """


class Unreachable(BeftError):
    """The hub does not answer and the cache has no copy: at another time or place it may be had."""
