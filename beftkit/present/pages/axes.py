"""What a report's figures have in common on their axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from beftkit.edges import printable
from beftkit.present.pages.drawing import MARKERS, SERIES

SCORE = {
    "projection": "projection ratio",
    "magnitude": "magnitude (mean l1 change)",
    "fisher": "empirical Fisher",
}
#: inches of a panel: a telephone's width
WIDE, HIGH = 3.4, 2.75
SPREAD = 30.0  # from this ratio of the largest to the middle value on, a scale is logarithmic


def title(axis: Any, *lines: str) -> None:
    """What a panel shows, and where in the grid."""
    axis.set_title("\n".join(cut(line, 46) for line in lines if line))


def frame(axis: Any, x: str, y: str, *lines: str, grid: str = "y") -> None:
    """Names of both axes, title, and lines of a grid behind what is drawn."""
    axis.set_xlabel(cut(x, 40))
    axis.set_ylabel(cut(y, 32))  # as long as a panel is high
    axis.grid(axis=grid)
    axis.set_axisbelow(True)
    title(axis, *lines)


def series(place: int) -> tuple[str, str]:
    """Colour and marker of whatever has none of its own."""
    return SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]


def cut(text: str, length: int) -> str:
    """Text that is too long ends in dots."""
    text = printable(text)
    text = f" {text}" if text.startswith("_") else text  # a legend leaves out _names
    return text if len(text) <= length else text[: length - 1] + "…"


def is_spread_out(values: Iterable[float]) -> bool:
    """Whether positive values lie so far apart that a linear scale would show one of them."""
    known = sorted(value for value in values if value > 0)
    return bool(known) and known[-1] > SPREAD * known[len(known) // 2 if len(known) > 4 else 0]


def level(axis: Any, values: Sequence[float]) -> None:
    """Room above and below values that are all but equal."""
    if values and max(values) - min(values) < 1e-9 + 0.01 * abs(max(values)):
        middle = (max(values) + min(values)) / 2
        half = 0.05 * abs(middle) or 0.05
        axis.set_ylim(middle - half, middle + half)


def few(axis: Any) -> None:
    """A linear scale's ticks: a handful, without a factor at the axis' end."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(4))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def plain_decades(axis: Any) -> None:
    """A logarithmic scale's ticks as 0.01 or 1e-05, a handful of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(numticks=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend(axis: Any) -> None:
    """The lines' names below the axes."""
    beside = {"loc": "upper left", "bbox_to_anchor": (-0.12, -0.2), "borderaxespad": 0.2}
    axis.legend(handletextpad=0.4, borderpad=0.1, **beside)
