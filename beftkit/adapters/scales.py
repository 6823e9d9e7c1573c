"""LoRA's factors: alpha and rank of each module, by patterns that came with the adapter."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from beftkit.errors import BeftError

_PLAIN = re.compile(r"[\w.]+", re.ASCII)
_COUNT = re.compile(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}")
_LONGEST = 2000  # characters of a pattern
_REPEATS = 1000  # what counted repeats may come to, multiplied
_SECONDS = 2.0  # for all patterns over all modules; plain ones need milliseconds

Matches = Callable[[str], bool]


class Scales:
    """What LoRA multiplies the change of a module by: alpha / r, or alpha / sqrt(r).

    PEFT matches the patterns by `re`, which can be made to run for ever; here they have a time.

    Args:
        config: the adapter's ``adapter_config.json``.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._left = _SECONDS
        self._patterns: dict[str, list[tuple[Matches, str, Any]]] = {}

    def of(self, module: str) -> float:
        """The factor of one module.

        Raises:
            BeftError: the configuration's numbers or patterns are none, or one has no end.
        """
        rank = self._number("rank_pattern", module, self._config.get("r", 8))
        alpha = self._number("alpha_pattern", module, self._config.get("lora_alpha", 8))
        if not (rank > 0 and math.isfinite(rank) and math.isfinite(alpha)):
            raise BeftError(
                f"adapter configuration: r {rank:g}, lora_alpha {alpha:g}; is it damaged?"
            )
        return alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)

    def _number(self, key: str, module: str, default: Any) -> float:
        try:
            if key not in self._patterns:
                given = self._config.get(key)
                pairs = given.items() if isinstance(given, dict) else ()
                self._patterns[key] = [(_matcher(key, one, self), one, n) for one, n in pairs]
            for matches, pattern, value in self._patterns[key]:
                started = time.monotonic()
                found = matches(module)
                self._left -= time.monotonic() - started
                if self._left <= 0:
                    raise _endless(key, pattern)
                if found:
                    return float(value)
            return float(default)
        except BeftError:
            raise
        except (re.error, TypeError, ValueError, OverflowError, RecursionError):
            raise BeftError(
                "adapter configuration: r, lora_alpha, rank_pattern or alpha_pattern is no number "
                "or pattern; is it damaged?"
            ) from None

    @property
    def left(self) -> float:
        """Seconds left for matching."""
        return max(self._left, 0.01)


def _matcher(key: str, pattern: str, scales: Scales) -> Matches:
    """PEFT's test of a module's name."""
    if len(pattern) > _LONGEST or _repeats(pattern) > _REPEATS:
        raise _endless(key, pattern)
    whole = re.compile(rf"(.*\.)?({pattern})$")
    if _PLAIN.fullmatch(pattern):
        return lambda module: whole.match(module) is not None
    import regex

    try:
        timed = regex.compile(whole.pattern)
    except regex.error as error:  # a form that re alone has
        raise ValueError(str(error)) from None

    def matches(module: str) -> bool:
        try:
            return timed.match(module, timeout=scales.left) is not None
        except TimeoutError:
            raise _endless(key, pattern) from None

    return matches


def _repeats(pattern: str) -> int:
    """What the counted repeats of a pattern come to: `regex` writes each of them out."""
    total = 1
    for match in _COUNT.finditer(pattern):
        digits = max(match.groups(), key=len)
        total *= int(digits[:9] or 1) or 1
    return total


def _endless(key: str, pattern: str) -> BeftError:
    shown = repr(pattern if len(pattern) <= 80 else f"{pattern[:77]}...")
    return BeftError(
        f"adapter configuration: {key} {shown} takes for ever to match; expected names of modules, "
        "or a plain pattern of them; is this adapter to be trusted?"
    )
