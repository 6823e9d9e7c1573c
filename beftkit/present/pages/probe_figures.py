"""Figures of a probe: scores by role and layer, and over its updates."""

from __future__ import annotations

from typing import Any

from beftkit.present.document import Finish, Panel, Picture
from beftkit.present.pages.axes import SCORE, WIDE, few, is_spread_out, plain_decades, title
from beftkit.present.pages.drawing import EMPTY, INK, ROLE_COLOURS, SERIES
from beftkit.present.pages.labels import Word, at_ends
from beftkit.present.pages.selections import Folder
from beftkit.present.words import number
from beftkit.selection.results import CellResult, GroupResult


def heatmaps(folder: Folder, group: GroupResult, cell: CellResult, name: str) -> Picture:
    """Roles against layers by each method, from one cell's probe."""
    return Picture(
        name,
        f"{folder.label}, {group.label}: scores by role and layer",
        f"Scores by role and layer, seed {cell.cell.seed}; means on the right, in the order of "
        "each method's ranking. Each method has a scale of its own.",
        tuple(_heatmap(group, cell, method) for method in cell.methods),
        len(cell.methods),
    )


def _heatmap(group: GroupResult, cell: CellResult, method: str) -> Panel:
    roles, target = cell.methods[method].roles, cell.methods[method].target
    layers = max((len(one.layers) for one in roles.values()), default=1)
    values = [v for one in roles.values() for v in one.layers if v is not None and v > 0]

    def draw(axis: Any) -> None:
        import numpy as np
        from matplotlib import colormaps
        from matplotlib.colors import LogNorm, Normalize

        grid = np.full((len(roles), layers), np.nan)
        for y, one in enumerate(roles.values()):
            for x, value in enumerate(one.layers):
                grid[y, x] = np.nan if value is None else value
        most = max(values, default=1.0)
        logarithmic = is_spread_out(values)
        norm: Any = Normalize(0, most)
        if logarithmic:
            norm = LogNorm(max(min(values), most * 1e-4), most)
            grid = np.where(np.isnan(grid), grid, np.maximum(grid, norm.vmin))
        axis.set_facecolor(EMPTY)
        axis.patch.set_alpha(1.0)
        image = axis.pcolormesh(
            grid, cmap=colormaps["cividis"].resampled(32), norm=norm, edgecolors="face",
            linewidth=0.3,
        )  # fmt: skip
        axis.invert_yaxis()
        labels = [("▸ " if role == target else "") + role
                  + (", inert" if one.inert == "yes" else "")
                  for role, one in roles.items()]  # fmt: skip
        axis.set_yticks([y + 0.5 for y in range(len(roles))], labels)
        step = 1 if layers <= 12 else 2 if layers <= 24 else -(-layers // 12)
        axis.set_xticks([x + 0.5 for x in range(0, layers, step)], range(0, layers, step))
        axis.tick_params(length=0)
        for y, one in enumerate(roles.values()):
            axis.text(1.03, y + 0.5, number(one.score), va="center",
                      transform=axis.get_yaxis_transform())  # fmt: skip
        axis.spines[:].set_visible(False)
        axis.set_xlabel("layer")
        title(axis, SCORE[method], group.label)
        bar = axis.figure.colorbar(
            image, ax=axis, orientation="horizontal", aspect=36, pad=0.02,
            extend="min" if logarithmic and norm.vmin > min(values) else "neither",
        )  # fmt: skip
        bar.outline.set_visible(False)
        if logarithmic:
            plain_decades(bar.ax.xaxis)
        else:
            few(bar.ax.xaxis)

    return Panel((WIDE + 0.25, 1.55 + 0.24 * len(roles)), draw)


def track(folder: Folder, group: GroupResult, cell: CellResult, name: str) -> Picture:
    """Each role's score over the updates of one cell's probe."""
    return Picture(
        name,
        f"{folder.label}, {group.label}: projection ratio of each role at every update",
        f"The projection ratio over the probe's updates, seed {cell.cell.seed}; dashed roles "
        "are inert. Vertical lines: from there on the target (dotted), and the candidates' ranking "
        "(dashed), no longer changed.",
        (Panel((4.0, 2.9), lambda axis: _track(axis, group, cell)),),
        1,
    )  # fmt: skip


def _track(axis: Any, group: GroupResult, cell: CellResult) -> Finish:
    table = cell.methods["projection"]
    target = table.target
    ends: list[Word] = []
    top = 0.0
    for place, (role, points) in enumerate(cell.track.items()):
        known = [(at, value) for at, value in points if value is not None and value > 0]
        if not known:
            continue
        inert = role in table.roles and table.roles[role].inert == "yes"
        colour = ROLE_COLOURS.get(role, SERIES[place % len(SERIES)])
        axis.plot(*zip(*known, strict=True), color=colour, linestyle="--" if inert else "-",
                  linewidth=2.2 if role == target else 1.2, marker="o" if len(known) < 12 else "",
                  markersize=3)  # fmt: skip
        words = f"{role}, inert" if inert else role
        ends.append(Word(words, *known[-1], INK, strong=role == target))
        top = max(top, *(value for _, value in known))
    finals = [word.y for word in ends]
    if is_spread_out(finals):
        axis.set_yscale("log")
        bottom, _ = axis.get_ylim()
        axis.set_ylim(max(bottom, top * 1e-7), top * 2)
        plain_decades(axis.yaxis)
    else:
        axis.set_ylim(bottom=0)
    last = max((word.x for word in ends), default=1.0)
    first = min((points[0][0] for points in cell.track.values() if points), default=0)
    axis.set_xlim(first - 0.02 * (last - first or 1), last + 0.2 * (last - first or 1))
    axis.set_xlabel("update of the probe")
    axis.set_ylabel("projection ratio")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(axis="y")
    axis.set_axisbelow(True)
    when = ""
    if settled := cell.settled:
        for at, line in ((settled.target, (0, (1, 2))), (settled.ranking, (0, (5, 2, 1, 2)))):
            axis.axvline(at, color=INK, linewidth=0.9, linestyle=line)
        when = f"target settled at update {settled.target}, ranking at {settled.ranking}"
    title(axis, f"{group.label}, seed {cell.cell.seed}", when)
    return lambda: at_ends(axis, ends)
