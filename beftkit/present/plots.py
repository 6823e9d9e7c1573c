"""Results in, pictures out. matplotlib is imported when a figure is drawn, never before."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite, nan
from pathlib import Path
from typing import Any

from beftkit.edges import printable
from beftkit.errors import BeftError, UsageError
from beftkit.files import write_whole
from beftkit.present.words import MEANING
from beftkit.scores import FIGURES, METHODS, Scores, post_labels

SUFFIXES = (".png", ".svg", ".pdf")
Row = tuple[str, dict[int, float], float | None]  # label, layer -> value, average
_LABELLED_CELLS = 24  # beyond this many layers the numbers in the cells no longer fit


def draw(results: Sequence[Scores], path: str | Path) -> None:
    """Draw one POST's scores as a heat map, those of several as lines; see these."""
    if len(results) > 1:
        lines(results, path)
    else:
        heatmap(results[0], path)


def heatmap(scores: Scores, path: str | Path) -> None:
    """Draw roles x layers with an average column, sorted by score, as the paper's heat maps.

    Args:
        scores: what to draw; its method is what the colours show.
        path: ``.png``, ``.svg`` (text stays text) or ``.pdf``.

    Raises:
        BeftError: another suffix, no matplotlib, or a path that cannot be written.
    """
    path = check_plot_path(path)
    towers = list(dict.fromkeys(site.tower for site in scores.sites))
    rows = [_rows(scores, tower) for tower in towers]
    layers = [max(s.layer for s in scores.sites if s.tower == tower) + 1 for tower in towers]
    most, name = max(layers), METHODS[scores.method]
    cell = 0.52 if most <= _LABELLED_CELLS else max(0.13, 13 / most)
    wide = max(1.0, 0.6 / cell)  # the averages' column, in cells: its numbers always fit
    heights = [0.34 * len(one) + 1.0 for one in rows]
    size = (2.9 + cell * (most + wide), sum(heights) + 0.55)
    grid = {"height_ratios": heights, "width_ratios": [most, wide], "wspace": 0}
    limit = max([1e-300, *(s.figures[name] or 0.0 for s in scores.sites)])
    with _figure(size, scores, path) as figure:
        axes = figure.subplots(len(towers), 2, squeeze=False, gridspec_kw=grid)
        for (left, right), tower, some, count in zip(axes, towers, rows, layers, strict=True):
            image = _draw(left, some, count, limit)
            means = [[nan if mean is None else mean] for _, _, mean in some]
            _cells(right, means, limit, numbers=True)
            right.set(yticks=[], xticks=[0], xticklabels=["mean"])
            if len(towers) > 1:
                left.set_title(tower, loc="left", fontsize=10)
        place = {"shrink": 0.9, "pad": 0.01, "aspect": 30}
        figure.colorbar(image, ax=list(axes.flat), label=FIGURES[name], **place)


@contextmanager
def style(**more: Any) -> Iterator[None]:
    """matplotlib under our settings and those given, and the user's afterwards.

    Raises:
        BeftError: no matplotlib.
    """
    try:
        import matplotlib
    except ImportError:
        raise BeftError("a figure needs matplotlib: pip install 'beftkit[plot]'") from None
    settings: Any = {"font.family": "sans-serif", "font.size": 9, "svg.fonttype": "none"}
    with matplotlib.rc_context(settings | {"pdf.fonttype": 42, "text.parse_math": False} | more):
        yield


@contextmanager
def _figure(size: tuple[float, float], scores: Scores, path: Path) -> Iterator[Any]:
    """A figure to draw on, which is written when that is done."""
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, layout="constrained")
        yield figure
        target = f"target {scores.target}" if scores.target else "no target"
        what = f"{FIGURES[METHODS[scores.method]]} of each bias, before against after"
        figure.suptitle(f"{what}: {target}", fontsize=10)
        buffer = io.BytesIO()
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(buffer, format=path.suffix[1:], dpi=160, metadata=metadata)
        write_whole(path, buffer.getvalue())


#: Okabe and Ito's colours, told apart by every kind of eye, dark enough for lines on white
_SHADES = "#0072B2 #000000 #D55E00 #009E73 #CC79A7 #56B4E9 #E69F00 #7A7A7A".split()
_COLOURS = dict(zip(MEANING, _SHADES, strict=True))


def lines(results: Sequence[Scores], path: str | Path) -> None:
    """Draw each role's score over several POSTs; inert roles dashed, the last target bold.

    Args:
        results: one for each POST, in order.
        path: ``.png``, ``.svg`` (text stays text) or ``.pdf``.

    Raises:
        BeftError: another suffix, no matplotlib, or a path that cannot be written.
    """
    path = check_plot_path(path)
    name = METHODS[results[0].method]
    labels = list(map(printable, post_labels(results)))
    numbers = [re.sub(r"\D+", "", label) for label in labels]
    stepped = all(numbers) and len({re.sub(r"\d+", "", label) for label in labels}) == 1
    places = [int(number) for number in numbers] if stepped else list(range(len(labels)))
    with _figure((7.2, 4.2), results[-1], path) as figure:
        axis = figure.subplots()
        ends = []
        at = list(zip(places, results, strict=True))
        for number, role in enumerate(dict.fromkeys(role for one in results for role in one.roles)):
            known = [(x, one.roles[role]) for x, one in at if role in one.roles]
            drawn = [(x, one.figures[name]) for x, one in known if one.figures[name] is not None]
            if not drawn:
                continue
            inert = any(one.inert == "yes" for _, one in known)
            colour = _COLOURS.get(role, f"C{number}")
            look = {"color": colour, "linestyle": "--" if inert else "-", "marker": "o"}
            width = 2.6 if role == results[-1].target else 1.3
            axis.plot(*zip(*drawn, strict=True), markersize=3.5, linewidth=width, **look)
            ends.append((drawn[-1], f"{role}, inert" if inert else role, colour))
        _label_ends(axis, ends)
        axis.set_ylabel(FIGURES[name])
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
        turned = {"rotation": 0, "ha": "center"} if stepped else {"rotation": 30, "ha": "right"}
        axis.set_xticks(places, numbers if stepped else labels, **turned)
        if stepped:
            axis.set_xlabel(re.sub(r"[-_]?\d+.*", "", labels[0]) or "step")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="0.92")
        axis.set_axisbelow(True)


def _label_ends(axis: Any, ends: Sequence[Any]) -> None:
    """Write each line's name at its end, pushed apart where lines end close together."""
    low, high = axis.get_ylim()
    step = 0.055 * (high - low)
    height = float("-inf")
    for (x, y), text, colour in sorted(ends, key=lambda end: end[0][1]):
        height = max(y, height + step)
        offset = (8, (height - y) / (high - low) * 230)
        look = {"color": colour, "va": "center", "annotation_clip": False}
        axis.annotate(text, (x, y), offset, textcoords="offset points", **look)


def check_plot_path(path: str | Path) -> Path:
    """Refuse a picture format that is not drawn."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: expected a file name that ends in {', '.join(SUFFIXES)}")
    return path


def _rows(scores: Scores, tower: str) -> list[Row]:
    """Per row a label, layer -> value, and the average, in the order of the ranking."""
    name = METHODS[scores.method]
    several = len({site.attention for site in scores.sites if site.tower == tower}) > 1
    rows = []
    for role, score in scores.roles.items():
        sites = [site for site in score.sites if site.tower == tower]
        for attention in dict.fromkeys(site.attention for site in sites):
            members = [site for site in sites if site.attention == attention]
            layers: dict[int, list[float]] = {}
            for site in members:  # a gated MLP has two biases of one role in a layer
                if (value := site.figures[name]) is not None:
                    layers.setdefault(site.layer, []).append(value)
            known = [value for values in layers.values() for value in values]
            label = f"{'▸ ' if role == scores.target else ''}{role}"
            label += f" ({attention})" if several and attention != "self" else ""
            label += ", inert" if score.inert == "yes" else ""
            cells = {layer: sum(values) / len(values) for layer, values in layers.items()}
            mean = sum(known) / len(known) if len(known) == len(members) else None
            rows.append((label, cells, mean))
    return rows


def _draw(axis: Any, rows: list[Row], layers: int, limit: float) -> Any:
    """Colour one cell a layer; numbers in the cells as long as they fit."""
    grid = [[cells.get(layer, nan) for layer in range(layers)] for _, cells, _ in rows]
    image = _cells(axis, grid, limit, numbers=layers <= _LABELLED_CELLS)
    axis.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    ticks = range(0, layers, 1 if layers <= _LABELLED_CELLS else 10)
    axis.set_xticks(ticks, list(map(str, ticks)))
    axis.set_xlabel("layer")
    return image


def _cells(axis: Any, grid: list[list[float]], limit: float, numbers: bool) -> Any:
    axis.set_facecolor("0.88")  # where there is no bias
    image = axis.imshow(grid, cmap="cividis", vmin=0, vmax=limit, aspect="auto")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    places = [(x, y, value) for y, row in enumerate(grid) for x, value in enumerate(row)]
    for x, y, value in places if numbers else ():
        if isfinite(value):
            look = {"fontsize": 7, "color": "white" if value < 0.55 * limit else "black"}
            axis.text(x, y, _cell_text(value, limit), ha="center", va="center", **look)
    return image


def _cell_text(value: float, limit: float) -> str:
    forms = ((100, ".0f"), (10, ".1f"), (0.1, ".2f"), (1e-3, ".4f"), (0, ".0e"))
    return format(value, next(form for least, form in forms if limit >= least))
