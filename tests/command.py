"""Run the command as its console script does, in this process: a start costs a quarter second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Ran(NamedTuple):
    """What one call of the command left behind."""

    code: int
    out: str
    err: str


Beftkit = Callable[..., Ran]


def refused(ran: Ran, message: str = "", limit: int = 300, code: int = 1) -> None:
    """Code 1, one short line that says what is wrong, nothing else."""
    assert ran.code == code, ran
    assert ran.out == ""
    assert ran.err.startswith("beftkit: error: ")
    assert ran.err.count("\n") == 1
    assert len(ran.err) < limit
    assert message in ran.err


def misused(ran: Ran, message: str = "", limit: int = 400) -> None:
    """The same for wrong usage, which has code 2."""
    refused(ran, message, limit, code=2)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder; None for what is no regular file."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
