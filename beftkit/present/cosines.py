"""Cosines of several changes to a document and a picture. No arithmetic here."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any

from beftkit.edges import printable
from beftkit.files import write_whole
from beftkit.present.document import Block, Document, Lines, Table, numbers, texts
from beftkit.present.plots import check_plot_path, style
from beftkit.present.words import noted, number
from beftkit.weights import CosineResult
from beftkit.weights.cosines import Alike

#: beyond this many rows or columns the numbers in the cells no longer fit
_LABELLED = 24


def cosines_document(found: CosineResult) -> Document:
    """The matrix over all biases, then each pair by role, of one pair by layer too.

    The table leaves out where neither changed; a CSV row is a pair and a place, all of them.
    """
    letters = [f"[{n}]" for n in range(1, len(found.names) + 1)]
    blocks: list[Block] = [Lines(_headline(found, letters), bullets=True)]
    if len(found.names) > 2:
        columns = [*texts("cosine"), *numbers(*letters)]
        body = [
            [letter, *map(number, row)]
            for letter, row in zip(letters, found.whole.cosines, strict=True)
        ]
        blocks.append(Table(columns, body))
    columns = [*texts("pair"), *texts("role"), *texts("layer", spare=1), *numbers("width", spare=3)]
    columns += numbers("cosine", "angle", "‖a‖", "‖b‖")
    body, strong, rows = [], [], []
    places = [found.whole, *found.roles, *found.sites]
    for i, j in found.pairs:
        for one in places:
            pair = f"{letters[i]} {letters[j]}"
            figures = [number(one.cosines[i][j]), number(one.angles[i][j], "°")]
            norms = [number(one.norms[i]), number(one.norms[j])]
            rows.append(_row(found, one, i, j))
            if one.layer is not None and (len(found.names) > 2 or not any(one.norms)):
                continue
            if one.role is None or one.norms[i] or one.norms[j]:
                name = one.role or "all"
                body.append([pair, name, _layer(one), str(one.width), *figures, *norms])
                strong.append(one.layer is None)
    blocks += [Table(columns, body, strong), Lines(noted(found.notes), bullets=True)]
    return Document(found.to_dict(), rows, blocks, found.notes)


def draw(found: CosineResult, path: str | Path) -> None:
    """Draw a heat map of cosines: of two changes roles x layers, of more the matrix.

    Args:
        found: what to draw.
        path: ``.png``, ``.svg`` (text stays text) or ``.pdf``.

    Raises:
        BeftError: another suffix, no matplotlib, or a path that cannot be written.
    """
    path = check_plot_path(path)
    if len(found.names) > 2:
        grid = [[nan if c is None else c for c in row] for row in found.whole.cosines]
        names = [printable(name) for name in found.names]
        rows, columns, below = names, [f"[{n}]" for n in range(1, len(names) + 1)], ""
        rows = [f"{name} {column}" for name, column in zip(names, columns, strict=True)]
    else:
        rows, columns, grid = _by_layer(found)
        below = "layer"
    cell = 0.55 if len(columns) <= _LABELLED else 0.2
    size = (2.4 + cell * len(columns) + 0.05 * max(map(len, rows)), 1.5 + 0.36 * len(rows))
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, layout="constrained")
        axis = figure.subplots()
        axis.set_facecolor("0.88")  # where there is no angle
        image = axis.imshow(grid, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        axis.set_yticks(range(len(rows)), rows)
        step = 1 if len(columns) <= _LABELLED else 10
        axis.set_xticks(range(0, len(columns), step), columns[::step])
        axis.set_xlabel(below)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        cells = [(x, y, value) for y, row in enumerate(grid) for x, value in enumerate(row)]
        for x, y, value in cells if len(columns) <= _LABELLED else ():
            if isfinite(value):
                colour = "white" if abs(value) > 0.6 else "black"
                look: Any = {"fontsize": 7, "color": colour, "ha": "center", "va": "center"}
                axis.text(x, y, f"{value:.2f}", **look)
        figure.colorbar(image, ax=axis, label="cosine of the changes")
        buffer = io.BytesIO()
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(buffer, format=path.suffix[1:], dpi=160, metadata=metadata)
        write_whole(path, buffer.getvalue())


def _by_layer(found: CosineResult) -> tuple[list[str], list[str], list[list[float]]]:
    """Of two changes: labels, headings and cosines, roles x layers and all layers together."""
    layers = sorted({one.layer for one in found.sites if one.layer is not None})
    keys = list(dict.fromkeys((one.tower, one.attention, one.role) for one in found.sites))
    several = len({key[:2] for key in keys}) > 1
    means = {one.role: one.cosines[0][1] for one in found.roles}
    rows, grid = [], []
    for tower, attention, role in keys:
        mine = {
            one.layer: one.cosines[0][1]
            for one in found.sites
            if (one.tower, one.attention, one.role) == (tower, attention, role)
        }
        rows.append(f"{role} ({tower}, {attention})" if several else str(role))
        values = [*(mine.get(layer) for layer in layers), None if several else means[role]]
        grid.append([nan if value is None else value for value in values])
    return rows, [*map(str, layers), "all"], grid


def _headline(found: CosineResult, letters: Sequence[str]) -> list[str]:
    lines = [f"{letter} {name}" for letter, name in zip(letters, found.names, strict=True)]
    what = f"changes from {found.base}" if found.base else "each adapter's own change"
    lines.append(f"{what}; {len(found.sites)} vectors, {found.whole.width:,} scalars")
    if len(found.names) == 2:
        cosine, angle = found.whole.cosines[0][1], found.whole.angles[0][1]
        lines.append(f"cosine {number(cosine)}, angle {number(angle, '°')}")
    return lines


def _layer(one: Alike) -> str:
    if one.layer is None:
        return "all"
    beside = [part for part in (one.tower, one.attention) if part not in ("text", "self", None)]
    return " ".join([str(one.layer), *beside])


def _row(found: CosineResult, one: Alike, i: int, j: int) -> dict[str, Any]:
    place = {n: getattr(one, n) for n in ("role", "layer", "tower", "attention", "slice", "width")}
    figures = {"norm_a": one.norms[i], "norm_b": one.norms[j]}
    figures |= {"cosine": one.cosines[i][j], "angle": one.angles[i][j]}  # type: ignore[dict-item]
    return {"a": found.names[i], "b": found.names[j], **place, **figures}
