"""A survey's figures: what models did to the biases of their base, as pictures. No arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

from beftkit.present.document import Panel, Picture
from beftkit.present.pages.axes import SPREAD, WIDE, cut, few, plain_decades, title
from beftkit.present.pages.drawing import EMPTY, FAINT, INK, ROLE_COLOURS, SERIES
from beftkit.present.survey import of
from beftkit.present.words import number
from beftkit.scores import FIGURES
from beftkit.surveys.neighbours import Neighbours
from beftkit.surveys.summary import FAR as OUTLYING
from beftkit.surveys.summary import LayerSummary, Summary

#: of all pictures that there may be
NAMES = ("distribution", "layers", "targets", "outcomes", "outliers", "cosines")
#: tasks, and models that stand out, that have a line of their own
TASKS, FAR = 10, 12
_NONE = SERIES[-1]


def distribution(found: Summary) -> list[Picture]:
    """Each role's scores over the models, a histogram a role on one logarithmic scale."""
    if not found.edges:
        return []
    name = FIGURES[found.figure]
    caption = (
        f"How many models have which {name}, by role, each histogram as high as its highest bin; "
        "the line is the median, told on the right, and the bar below holds the middle half. "
        "Hollow: inert. Models that did not move a role at all are not drawn."
    )
    panel = Panel((WIDE + 0.4, 0.75 + 0.44 * len(found.roles)), lambda axis: _ridges(axis, found))
    return [Picture("distribution", f"{name} of each role over models", caption, (panel,), 1)]


def _ridges(axis: Any, found: Summary) -> None:
    for place, one in enumerate(found.roles):
        base = len(found.roles) - 1 - place
        most = max(one.bins, default=0) or 1
        heights = [base + 0.8 * count / most for count in one.bins]
        colour = _of_role(one.role, place)
        look = {"fill": False} if one.inert == "yes" else {"fill": True, "alpha": 0.55}
        axis.stairs(heights, found.edges, baseline=base, color=colour, **look)
        if one.models - one.zero:
            low, lower, middle, upper, high = (max(q, found.edges[0]) for q in one.quantiles)
            axis.plot([low, high], [base, base], color=colour, linewidth=0.8)
            axis.plot([lower, upper], [base, base], color=colour, linewidth=3)
            axis.plot([middle, middle], [base, base + 0.85], color=INK, linewidth=1.2)
        told = number(one.quantiles[2] if one.quantiles else None)
        across = axis.get_yaxis_transform()
        axis.text(1.02, base + 0.3, told, transform=across, va="center")
    inert = [", inert" if one.inert == "yes" else "" for one in found.roles]
    labels = [cut(one.role, 14) + said for one, said in zip(found.roles, inert, strict=True)]
    axis.set_yticks([len(labels) - 0.7 - place for place in range(len(labels))], labels)
    axis.set_ylim(-0.15, len(found.roles))
    axis.set_xscale("log")
    axis.set_xlim(found.edges[0], found.edges[-1])
    plain_decades(axis.xaxis)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x")
    axis.set_axisbelow(True)
    axis.set_xlabel(FIGURES[found.figure])


def _of_role(role: str, place: int) -> str:
    return ROLE_COLOURS.get(role, SERIES[place % len(SERIES)])


def layers(found: Summary) -> list[Picture]:
    """Layers against roles: the mean score over the models, a panel a tower and attention."""
    by_stack: dict[tuple[str, str], list[LayerSummary]] = {}
    for one in found.layers:
        by_stack.setdefault((one.tower, one.attention), []).append(one)
    if not any(one.mean is not None for one in found.layers):
        return []
    several = len(by_stack) > 1
    panels = [
        _heatmap(some, found.figure, ", ".join(stack) if several else "")
        for stack, some in by_stack.items()
    ]
    name = FIGURES[found.figure]
    caption = (
        f"Mean {name} over the models by layer (downwards) and role, in the order of the "
        "distribution above. A few models that moved far weigh much in a mean: layers.csv has the "
        "medians as well."
    )
    alt = f"mean {name} by layer and role"
    return [Picture("layers", alt, caption, tuple(panels), min(len(panels), 3))]


def _heatmap(some: Sequence[LayerSummary], figure: str, where: str) -> Panel:
    roles = list(dict.fromkeys(one.role for one in some))
    count = max(one.layer for one in some) + 1
    means = {(one.layer, one.role): one.mean for one in some if one.mean is not None}
    values = [value for value in means.values() if value > 0]

    def draw(axis: Any) -> None:
        import numpy as np
        from matplotlib import colormaps
        from matplotlib.colors import LogNorm, Normalize

        grid = np.array([[means.get((at, role), nan) for role in roles] for at in range(count)])
        most, least = max(values, default=1.0), min(values, default=1.0)
        logarithmic = most > SPREAD * least
        norm: Any = Normalize(0, most)
        if logarithmic:
            norm = LogNorm(max(least, most * 1e-4), most)
            grid = np.where(np.isnan(grid), grid, np.maximum(grid, norm.vmin))
        axis.set_facecolor(EMPTY)
        axis.patch.set_alpha(1.0)
        colours = colormaps["cividis"].resampled(32)
        image = axis.pcolormesh(grid, cmap=colours, norm=norm, edgecolors="face", linewidth=0.3)
        axis.invert_yaxis()
        axis.set_xticks([x + 0.5 for x in range(len(roles))], [cut(role, 9) for role in roles])
        step = 1 if count <= 16 else 2 if count <= 32 else 5
        axis.set_yticks([y + 0.5 for y in range(0, count, step)], range(0, count, step))
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.set_ylabel("layer")
        title(axis, where)
        below = {"orientation": "horizontal", "aspect": 36, "pad": 0.02}
        cut_off = logarithmic and norm.vmin > least
        bar = axis.figure.colorbar(image, ax=axis, extend="min" if cut_off else "neither", **below)
        bar.outline.set_visible(False)
        bar.set_label(FIGURES[figure])
        (plain_decades if logarithmic else few)(bar.ax.xaxis)

    return Panel((WIDE, 1.1 + max(0.9, min(0.2 * count, 0.11 * count + 1.4))), draw)


def targets(found: Summary) -> list[Picture]:
    """Which role is the target, a bar a task."""
    if not found.tasks:
        return []
    shown = found.tasks[:TASKS]
    rows = [(f"{one.task}, {one.models}", one.targets) for one in shown]
    caption = (
        f"Which role is the target, by the task that the hub lists{of(found.tasks, TASKS)}, with "
        "the number of models."
    )
    roles = [one.role for one in found.roles if any(one.role in row for _, row in rows)]
    names = [*roles, *(["none"] if any("none" in row for _, row in rows) else [])]
    if "none" in names:
        caption += " none: no candidate moved by more than rounding, or none can learn."
    order = {one.role: place for place, one in enumerate(found.roles)}
    colours = {role: _of_role(role, order[role]) for role in roles} | {"none": FAINT}

    def draw(axis: Any) -> None:
        _bars(axis, rows, names, colours)
        axis.legend(
            handles=[_patch(name, colours[name]) for name in names],
            loc="upper left", bbox_to_anchor=(-0.02, 0.0), ncols=5, handlelength=0.9,
            columnspacing=1.2, handletextpad=0.4,
        )  # fmt: skip

    panel = Panel((WIDE, 0.55 + 0.42 * len(rows)), draw)
    return [Picture("targets", "share of each target by task", caption, (panel,), 1)]


def outcomes(found: Summary) -> list[Picture]:
    """How many models came to what."""
    total = sum(found.outcomes.values())
    if not total:
        return []
    most = max(found.outcomes.values())
    rows = [
        (f"{name}, {count} ({100 * count / total:.1f} %)", {name: count, "": most - count})
        for name, count in found.outcomes.items()
    ]
    colours = {name: SERIES[2] if name == "scored" else _NONE for name in found.outcomes}

    def draw(axis: Any) -> None:
        _bars(axis, rows, list(found.outcomes), colours)

    panel = Panel((WIDE, 0.15 + 0.42 * len(rows)), draw)
    caption = f"What came of the {total} models that were asked."
    return [Picture("outcomes", "models by outcome", caption, (panel,), 1)]


def outliers(found: Summary) -> list[Picture]:
    """How far those lie that stand out."""
    if not found.outliers:
        return []
    shown = found.outliers[:FAR]
    caption = (
        f"Models that stand out{of(found.outliers, FAR)}: modified z of the role in which each "
        f"lies furthest from the others' median. Dashed: {OUTLYING:g}, from where on one does."
    )
    order = {one.role: place for place, one in enumerate(found.roles)}

    def draw(axis: Any) -> None:
        for place, one in enumerate(shown):
            y, colour = len(shown) - 1 - place, _of_role(one.role, order[one.role])
            axis.plot([0, one.z], [y, y], color=colour, linewidth=1.6)
            axis.plot([one.z], [y], "o", color=colour, markersize=6)
            words = f"{cut(one.model, 34)}, {cut(one.role, 8)}"
            axis.text(0.0, y + 0.22, words, va="bottom", transform=axis.get_yaxis_transform())
        for edge in (-OUTLYING, OUTLYING):
            axis.axvline(edge, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)), zorder=0)
        axis.axvline(0, color=FAINT, linewidth=0.9, zorder=0)
        axis.set_yticks([])
        axis.set_ylim(-0.5, len(shown) - 0.2)
        axis.spines["left"].set_visible(False)
        axis.set_xlabel("modified z of the logarithm of the score")

    panel = Panel((WIDE, 0.6 + 0.4 * len(shown)), draw)
    return [Picture("outliers", "how far models stand out", caption, (panel,), 1)]


def cosines(found: Neighbours) -> list[Picture]:
    """How near each model's nearest neighbour is."""
    values = [one.cosine for one in found.first()]
    if len(values) < 2:
        return []
    caption = (
        f"The cosine to each model's nearest neighbour, {len(values)} models. Dashed: from "
        f"{found.alike:g} on two models are of one group."
    )

    def draw(axis: Any) -> None:
        axis.hist(values, bins=40, range=(min(0.0, *values), 1.0), color=SERIES[0], alpha=0.7)
        axis.axvline(found.alike, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axis.set_xlabel("cosine to the nearest neighbour")
        axis.set_ylabel("models")
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.grid(axis="y")
        axis.set_axisbelow(True)

    panel = Panel((WIDE, 2.2), draw)
    return [Picture("cosines", "cosines to nearest neighbours", caption, (panel,), 1)]


def _bars(
    axis: Any,
    rows: Sequence[tuple[str, Mapping[str, int]]],
    names: Sequence[str],
    colours: Mapping[str, str],
) -> None:
    """Bars of shares, each with its words above it, so that a telephone's width holds both."""
    for place, (words, counts) in enumerate(rows):
        total, left = sum(counts.values()) or 1, 0.0
        y = len(rows) - 1 - place
        for name in names:
            share = counts.get(name, 0) / total
            if share:
                look = {"color": colours[name], "edgecolor": "none", "height": 0.34}
                axis.barh(y, share, left=left, **look)
                left += share
        axis.text(0, y + 0.23, cut(words, 46), va="bottom")
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.3, len(rows) - 0.25)
    axis.set_axis_off()


def _patch(name: str, colour: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=cut(name, 14))
