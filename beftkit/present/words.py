"""Numbers, roles and checkpoints as a person reads them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beftkit.scores import Identity

SPARKS = "▁▂▃▄▅▆▇█"
WIDEST_SPARKLINE = 32
MEANING = {"q": "query", "k": "key", "v": "value", "m1": "attention output", "m2": "MLP in"}
MEANING |= {"m3": "MLP out", "ln1": "attention LayerNorm", "ln2": "MLP LayerNorm"}
_INERT = {"yes": "inert", "unknown": "inert?"}
_LINE = 76


def number(value: float | None, unit: str = "") -> str:
    """About four digits; one decimal with a unit."""
    if value is None:
        return "-"
    if unit:
        return f"{value:.1f}{unit}"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e3 or value == 0 else f"{value:.3g}"


def fixed(value: float | None) -> str:
    """Four decimals, as metrics and losses have them."""
    return "-" if value is None else f"{value:.4f}"


def around(value: float | None, error: float | None) -> str:
    """A metric and one standard error, where both are known: ``0.7040 ± 0.027``."""
    if value is None or error is None:
        return fixed(value)
    return f"{fixed(value)} ± {error:#.2g}" if error < 10 else f"{fixed(value)} ± {error:.0f}"


def count(value: int | None, unknown: str = "-") -> str:
    """A whole number, or a word where there is none."""
    return unknown if value is None else str(value)


def marks(inert: str, chosen: str = "") -> str:
    """What stands behind a role's row: whether it is inert, whose choice it is."""
    return " ".join(word for word in (_INERT.get(inert, ""), chosen) if word)


def noted(notes: Iterable[str]) -> list[str]:
    """Notes that say so."""
    return [f"note: {note}" for note in notes]


def source(identity: Identity) -> str:
    """A reference; of one on the hub also the commit, and what was fetched of its weight files."""
    if identity.commit is None:
        return identity.path
    fetched = f"fetched {size(identity.bytes_fetched or 0)}"
    if identity.bytes_of_files:
        fetched += f" of {size(identity.bytes_of_files)}"
    return f"{identity.path} (commit {identity.commit[:8]}, {fetched})"


def sparkline(values: Sequence[float | None], largest: float) -> str:
    """One block character a value, at most `WIDEST_SPARKLINE` (neighbours averaged beyond)."""
    groups, text = min(len(values), WIDEST_SPARKLINE), ""
    for group in range(groups):
        part = values[group * len(values) // groups : (group + 1) * len(values) // groups]
        known = [value for value in part if value is not None]
        if known and largest > 0:
            share = max(0.0, sum(known) / len(known) / largest)
            text += SPARKS[min(int(share * len(SPARKS)), len(SPARKS) - 1)]
        else:
            text += SPARKS[0] if known else "·"
    return text


def folded(command: str) -> str:
    """A command in lines of a readable length, still one command to a shell."""
    lines = [""]
    words = [shlex.quote(word) for word in shlex.split(command)]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        ahead = len(following) + 1 if word.startswith("-") and not following.startswith("-") else 0
        if lines[-1] and len(lines[-1]) + len(word) + ahead > _LINE:
            lines.append("  ")
        lines[-1] += f"{' ' if lines[-1].strip() else ''}{word}"
    return " \\\n".join(lines)


def size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("bytes", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
