"""Where a figure's words go, so that none lies on another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from beftkit.present.pages.drawing import FONT

_LINE = 1.25 * FONT  # points from one line of text to the next
_LETTER = 0.62 * FONT
#: around a point, the best place first: direction, and how the text is aligned there
_PLACES = (
    (0, 1, "center", "bottom"), (1, 0, "left", "center"), (-1, 0, "right", "center"),
    (0, -1, "center", "top"), (1, 1, "left", "bottom"), (-1, 1, "right", "bottom"),
    (1, -1, "left", "top"), (-1, -1, "right", "top"), (0, 2.6, "center", "bottom"),
    (0, -2.6, "center", "top"), (2.6, 0, "left", "center"), (-2.6, 0, "right", "center"),
)  # fmt: skip


@dataclass(frozen=True)
class Word:
    """What is written at a point of the data."""

    text: str
    x: float
    y: float
    colour: str
    strong: bool = False
    spread: float = 0.0  # of a bar through the point, upwards and downwards


def at_ends(axis: Any, words: Sequence[Word], gap: float = 5.0) -> None:
    """Write each word right of its point, pushed apart vertically where points are close.

    Args:
        axis: matplotlib axes whose layout stands.
        words: what to write.
        gap: points between a point and its word.
    """
    scale = 72 / axis.figure.dpi
    places = [axis.transData.transform((word.x, word.y)) * scale for word in words]
    box = axis.get_window_extent()
    low, high = box.y0 * scale + _LINE / 2, box.y1 * scale - _LINE / 2
    order = sorted(range(len(words)), key=lambda n: (places[n][1], words[n].text))
    heights: list[float] = []
    for n in order:
        heights.append(max(places[n][1], low, heights[-1] + _LINE if heights else low))
    ceiling = high
    for n in reversed(range(len(heights))):  # what stands above the frame is pushed down again
        heights[n] = min(heights[n], ceiling)
        ceiling = heights[n] - _LINE
    for n, height in zip(order, heights, strict=True):
        _write(axis, words[n], (gap, height - places[n][1]), "left", "center")


def around(
    axis: Any, words: Sequence[Word], radius: float = 5.0, lines: Sequence[float] = ()
) -> None:
    """Write each word beside its point, where it covers no other word and no point.

    Args:
        axis: matplotlib axes whose layout stands.
        words: what to write; one that stands beside its like already is left out.
        radius: points between a point and its word.
        lines: where horizontal lines run through the axes.
    """
    scale = 72 / axis.figure.dpi
    places = [tuple(axis.transData.transform((word.x, word.y)) * scale) for word in words]
    frame = axis.get_window_extent()
    inside = tuple(edge * scale for edge in (frame.x0, frame.y0, frame.x1, frame.y1))
    taken = [(x - radius, y - radius, x + radius, y + radius) for x, y in places]
    for word in (one for one in words if one.spread):
        (x, low), (_, high) = (
            axis.transData.transform((word.x, word.y + sign * word.spread)) * scale
            for sign in (-1, 1)
        )
        taken.append((x - 2, low - 1, x + 2, high + 1))
    for height in lines:
        y = axis.transData.transform((words[0].x, height))[1] * scale if words else 0.0
        taken.append((inside[0], y - 1, inside[2], y + 1))
    for n, (word, place) in enumerate(zip(words, places, strict=True)):
        if any(
            before.text == word.text and math.dist(place, there) < 2 * radius
            for before, there in zip(words[:n], places, strict=False)
        ):
            continue
        others = taken[:n] + taken[n + 1 :]
        boxes = [_box(word.text, place, one, radius) for one in _PLACES]
        costs = [
            sum(_overlap(box, other) for other in others) + 4 * _outside(box, inside)
            for box in boxes
        ]
        best = min(range(len(boxes)), key=lambda k: (round(costs[k], 3), k))
        dx, dy, ha, va = _PLACES[best]
        taken.append(boxes[best])
        _write(axis, word, (dx * radius, dy * radius), ha, va)


def _write(axis: Any, word: Word, offset: tuple[float, float], ha: str, va: str) -> None:
    written = axis.annotate(
        word.text, (word.x, word.y), offset, textcoords="offset points", color=word.colour, ha=ha,
        va=va, annotation_clip=False, weight="bold" if word.strong else "normal",
    )  # fmt: skip
    written.set_in_layout(False)


_Box = tuple[float, float, float, float]


def _box(text: str, place: tuple[float, float], where: Any, radius: float) -> _Box:
    dx, dy, ha, va = where
    x, y = place[0] + dx * radius, place[1] + dy * radius
    width, height = _LETTER * len(text), FONT
    left = {"left": x, "center": x - width / 2, "right": x - width}[ha]
    low = {"bottom": y, "center": y - height / 2, "top": y - height}[va]
    return left, low, left + width, low + height


def _overlap(a: _Box, b: _Box) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0.0) * max(high, 0.0)


def _outside(box: _Box, frame: _Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, frame)
