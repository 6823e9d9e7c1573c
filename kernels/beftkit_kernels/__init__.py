"""Reductions over all biases of a model at once, beside the plain references they are held to.

Letters: V vectors, D bias length, N examples, R rows of a batch, T tokens, K roles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .gradients import SquareSum as SquareSum
    from .gradients import SquareSums as SquareSums
    from .gradients import example_square_sum as example_square_sum
    from .gradients import example_square_sums as example_square_sums
    from .pairs import Pairs as Pairs
    from .pairs import pack as pack
    from .pairs import projection_stats as projection_stats
    from .reference import COLUMNS as COLUMNS
    from .reference import projection_ratio as projection_ratio
    from .track import Track as Track

#: module -> its public names
_HOMES = {
    "gradients": "SquareSum SquareSums example_square_sum example_square_sums",
    "pairs": "Pairs pack projection_stats",
    "reference": "COLUMNS projection_ratio",
    "track": "Track",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    """Import a public name, and with it torch, when it is first asked for."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'beftkit_kernels' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"beftkit_kernels.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
