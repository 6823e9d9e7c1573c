"""Figures of a probe: scores by role and layer, and over its updates."""

from __future__ import annotations

from math import nan
from typing import Any

from beftkit.present.document import Finish, Panel, Picture
from beftkit.present.pages.axes import SCORE, WIDE, few, frame, is_spread_out, plain_decades, title
from beftkit.present.pages.drawing import EMPTY, INK, ROLE_COLOURS, SERIES
from beftkit.present.pages.labels import Word, at_ends
from beftkit.present.pages.selections import Folder
from beftkit.present.words import number
from beftkit.selection.results import CellResult, GroupResult


def heatmaps(folder: Folder, group: GroupResult, cell: CellResult, name: str) -> Picture:
    """Roles against layers by each method, from one cell's probe."""
    alt = f"{folder.label}, {group.label}: scores by role and layer"
    caption = (
        f"Scores by role and layer, seed {cell.cell.seed}; means on the right, in the order of "
        "each method's ranking. Each method has a scale of its own."
    )
    panels = tuple(_heatmap(group, cell, method) for method in cell.methods)
    return Picture(name, alt, caption, panels, len(panels))


def _heatmap(group: GroupResult, cell: CellResult, method: str) -> Panel:
    roles, target = cell.methods[method].roles, cell.methods[method].target
    layers = max((len(one.layers) for one in roles.values()), default=1)
    values = [v for one in roles.values() for v in one.layers if v is not None and v > 0]

    def draw(axis: Any) -> None:
        import numpy as np
        from matplotlib import colormaps
        from matplotlib.colors import LogNorm, Normalize

        rows = [[nan if v is None else v for v in one.layers] for one in roles.values()]
        grid = np.array([row + [nan] * (layers - len(row)) for row in rows])
        most = max(values, default=1.0)
        logarithmic = is_spread_out(values)
        norm: Any = Normalize(0, most)
        if logarithmic:
            norm = LogNorm(max(min(values), most * 1e-4), most)
            grid = np.where(np.isnan(grid), grid, np.maximum(grid, norm.vmin))
        axis.set_facecolor(EMPTY)
        axis.patch.set_alpha(1.0)
        colours = colormaps["cividis"].resampled(32)
        image = axis.pcolormesh(grid, cmap=colours, norm=norm, edgecolors="face", linewidth=0.3)
        axis.invert_yaxis()
        labels = []
        for y, (role, one) in enumerate(roles.items()):
            inert = ", inert" if one.inert == "yes" else ""
            labels.append(f"{'▸ ' if role == target else ''}{role}{inert}")
            across = axis.get_yaxis_transform()
            axis.text(1.03, y + 0.5, number(one.score), va="center", transform=across)
        axis.set_yticks([y + 0.5 for y in range(len(roles))], labels)
        step = 1 if layers <= 12 else 2 if layers <= 24 else -(-layers // 12)
        axis.set_xticks([x + 0.5 for x in range(0, layers, step)], range(0, layers, step))
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.set_xlabel("layer")
        title(axis, SCORE[method], group.label)
        below = {"orientation": "horizontal", "aspect": 36, "pad": 0.02}
        cut_off = logarithmic and norm.vmin > min(values)
        extend = "min" if cut_off else "neither"
        bar = axis.figure.colorbar(image, ax=axis, extend=extend, **below)
        bar.outline.set_visible(False)
        (plain_decades if logarithmic else few)(bar.ax.xaxis)

    return Panel((WIDE + 0.25, 1.55 + 0.24 * len(roles)), draw)


def track(folder: Folder, group: GroupResult, cell: CellResult, name: str) -> Picture:
    """Each role's score over the updates of one cell's probe."""
    alt = f"{folder.label}, {group.label}: projection ratio of each role at every update"
    caption = (
        f"The projection ratio over the probe's updates, seed {cell.cell.seed}; dashed roles "
        "are inert. Vertical lines: from there on the target (dotted), and the candidates' ranking "
        "(dashed), no longer changed."
    )
    panel = Panel((4.0, 2.9), lambda axis: _track(axis, group, cell))
    return Picture(name, alt, caption, (panel,), 1)


def _track(axis: Any, group: GroupResult, cell: CellResult) -> Finish:
    table = cell.methods["projection"]
    ends, top = [], 0.0
    for place, (role, points) in enumerate(cell.track.items()):
        known = [(at, value) for at, value in points if value is not None and value > 0]
        if not known:
            continue
        target = role == table.target
        inert = role in table.roles and table.roles[role].inert == "yes"
        look = {"color": ROLE_COLOURS.get(role, SERIES[place % len(SERIES)])}
        look |= {"linestyle": "--" if inert else "-", "marker": "o" if len(known) < 12 else ""}
        width = 2.2 if target else 1.2
        axis.plot(*zip(*known, strict=True), linewidth=width, markersize=3, **look)
        ends.append(
            Word(f"{role}, inert" if inert else role, *known[-1], look["color"], strong=target)
        )
        top = max(top, *(value for _, value in known))
    if is_spread_out(word.y for word in ends):
        axis.set_yscale("log")
        bottom, _ = axis.get_ylim()
        axis.set_ylim(max(bottom, top * 1e-7), top * 2)
        plain_decades(axis.yaxis)
    else:
        axis.set_ylim(bottom=0)
    last = max((word.x for word in ends), default=1.0)
    first = min((points[0][0] for points in cell.track.values() if points), default=0)
    wide = last - first or 1
    axis.set_xlim(first - 0.02 * wide, last + 0.2 * wide)
    axis.xaxis.get_major_locator().set_params(integer=True)
    when = ""
    if settled := cell.settled:
        for at, line in ((settled.target, (0, (1, 2))), (settled.ranking, (0, (5, 2, 1, 2)))):
            axis.axvline(at, color=INK, linewidth=0.9, linestyle=line)
        when = f"target settled at update {settled.target}, ranking at {settled.ranking}"
    where = f"{group.label}, seed {cell.cell.seed}"
    frame(axis, "update of the probe", "projection ratio", where, when)
    return lambda: at_ends(axis, ends)
