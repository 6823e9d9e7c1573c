"""Where a figure's words go, so that none lies on another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from beftkit.present.pages.drawing import FONT

_LINE = 1.25 * FONT  # points from one line of text to the next
_LETTER = 0.62 * FONT
#: directions around a point, the best place first
_WAYS = ((0, 1), (1, 0), (-1, 0), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_FAR = ((0, 2.6), (0, -2.6), (2.6, 0), (-2.6, 0))


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
    """Write each word ``gap`` points right of its point on axes whose layout stands.

    Where points are close, words are pushed apart vertically.
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
    """Write each word ``radius`` points beside its point on axes whose layout stands.

    It covers no other word, no point, and none of the horizontal lines, if it can; a word that
    stands beside its like already is left out.
    """
    scale = 72 / axis.figure.dpi
    places = [tuple(axis.transData.transform((word.x, word.y)) * scale) for word in words]
    frame = axis.get_window_extent()
    inside = tuple(edge * scale for edge in (frame.x0, frame.y0, frame.x1, frame.y1))
    taken = [(x - radius, y - radius, x + radius, y + radius) for x, y in places]
    for word in (one for one in words if one.spread):
        ends = [(word.x, word.y + sign * word.spread) for sign in (-1, 1)]
        (x, low), (_, high) = (axis.transData.transform(end) * scale for end in ends)
        taken.append((x - 2, low - 1, x + 2, high + 1))
    for height in lines:
        y = axis.transData.transform((words[0].x, height))[1] * scale if words else 0.0
        taken.append((inside[0], y - 1, inside[2], y + 1))
    for n, (word, place) in enumerate(zip(words, places, strict=True)):
        before = zip(words[:n], places, strict=False)
        if any(w.text == word.text and math.dist(place, at) < 2 * radius for w, at in before):
            continue
        others = taken[:n] + taken[n + 1 :]
        boxes = [_box(word.text, place, way, radius) for way in (*_WAYS, *_FAR)]
        costs = [sum(_overlap(box, one) for one in others) for box in boxes]
        costs = [cost + 4 * _outside(box, inside) for box, cost in zip(boxes, costs, strict=True)]
        best = min(range(len(boxes)), key=lambda k: (round(costs[k], 3), k))
        taken.append(boxes[best])
        dx, dy = (*_WAYS, *_FAR)[best]
        _write(axis, word, (dx * radius, dy * radius), *_alignment(dx, dy))


def _alignment(dx: float, dy: float) -> tuple[str, str]:
    """How text is aligned in a direction from its point, horizontally and vertically."""
    across = "left" if dx > 0 else "right" if dx < 0 else "center"
    return across, "bottom" if dy > 0 else "top" if dy < 0 else "center"


def _write(axis: Any, word: Word, offset: tuple[float, float], ha: str, va: str) -> None:
    look = {"color": word.colour, "weight": "bold" if word.strong else "normal"}
    look |= {"textcoords": "offset points", "ha": ha, "va": va}
    written = axis.annotate(word.text, (word.x, word.y), offset, annotation_clip=False, **look)
    written.set_in_layout(False)


_Box = tuple[float, float, float, float]


def _box(text: str, place: tuple[float, float], way: tuple[float, float], radius: float) -> _Box:
    x, y = (at + radius * step for at, step in zip(place, way, strict=True))
    across, up = _alignment(*way)
    width, height = _LETTER * len(text), FONT
    left = x - width * {"left": 0, "center": 0.5, "right": 1}[across]
    low = y - height * {"bottom": 0, "center": 0.5, "top": 1}[up]
    return left, low, left + width, low + height


def _overlap(a: _Box, b: _Box) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0.0) * max(high, 0.0)


def _outside(box: _Box, frame: _Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, frame)
