"""Reductions over all biases of a model at once, beside the plain references they are held to.

Letters: V vectors, D bias length, N examples, R rows of a batch, T tokens, K roles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .gradients import SquareSum as SquareSum
    from .gradients import example_square_sum as example_square_sum
    from .gradients import example_square_sums as example_square_sums
    from .pairs import Pairs as Pairs
    from .pairs import pack as pack
    from .pairs import projection_stats as projection_stats
    from .reference import COLUMNS as COLUMNS
    from .reference import projection_ratio as projection_ratio
    from .track import Track as Track

_HOMES = {
    "COLUMNS": "reference",
    "Pairs": "pairs",
    "SquareSum": "gradients",
    "Track": "track",
    "example_square_sum": "gradients",
    "example_square_sums": "gradients",
    "pack": "pairs",
    "projection_ratio": "reference",
    "projection_stats": "pairs",
}
__all__ = [
    "COLUMNS",
    "Pairs",
    "SquareSum",
    "Track",
    "example_square_sum",
    "example_square_sums",
    "pack",
    "projection_ratio",
    "projection_stats",
]


def __getattr__(name: str) -> Any:
    """Import a public name, and with it torch, when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'beftkit_kernels' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"beftkit_kernels.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
