"""A report's figures: what selections found, as pictures. No arithmetic on biases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import beftkit.present.pages.axes as axes
from beftkit.present.document import Finish, Panel, Picture
from beftkit.present.pages.axes import HIGH, SCORE, WIDE
from beftkit.present.pages.drawing import INK, ROLE_COLOURS, SERIES
from beftkit.present.pages.labels import Word, around, at_ends
from beftkit.present.pages.selections import Folder
from beftkit.present.selection import TITLES
from beftkit.selection.results import GroupResult, Selection

CONTROLS = ("none", "all")
_ROWS = 4  # groups a picture
_OFF_SCALE = 1e-7  # of the largest score: what is smaller is drawn at the edge
_NAMED = 60  # points with a name


def rankings(folder: Folder, name: str) -> list[Picture]:
    """Rank by each method against the metric of each bias trained alone (paper, figure 4)."""
    found, label = folder.found, folder.label
    groups = [group for group in found.groups if group.verified]
    alt = f"{label}: rank of each bias by method against its {found.metric}"
    caption = f"{label}: rank by method against {found.metric}, each bias trained alone."
    pictures = []
    for start in range(0, len(groups), _ROWS):
        some = groups[start : start + _ROWS]
        file = name if len(groups) <= _ROWS else f"{name}-{start // _ROWS + 1}"
        panels = tuple(_ranking(found, group, method) for group in some for method in group.methods)
        pictures.append(Picture(file, alt, caption, panels, len(found.groups[0].methods)))
    return pictures


def _ranking(found: Selection, group: GroupResult, method: str) -> Panel:
    table, rows = group.methods[method], group.verified

    def draw(axis: Any) -> Finish:
        words, ends = [], []
        for role, value in _alone(found, group).items():
            one, row = table.roles[role], rows[role]
            deviation = row.best_deviation if row.seeds > 1 else row.standard_error
            if one.rank is None:
                continue
            target, colour = role == table.target, ROLE_COLOURS.get(role, SERIES[0])
            _point(axis, one.rank, value, colour, "o", one.inert == "yes", deviation)
            if target:
                axis.plot(one.rank, value, "o", ms=12, mfc="none", mec=colour, mew=1.0)
            words.append(Word(role, one.rank, value, colour, target, deviation or 0.0))
        last = len(table.roles)
        axis.set_xlim(0.4, last + 0.28 * last)
        axis.set_xticks(range(1, last + 1))
        for control in CONTROLS:
            if (reached := group.reached(control)) is not None:
                axis.axhline(reached, xmax=0.86, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
                ends.append(Word(control, 0.4 + 0.86 * (1.28 * last - 0.4), reached, INK))
        axis.margins(y=0.16)
        tau = group.tau_of(method)
        shown = f"{TITLES[method]}, tau {'-' if tau is None else f'{tau:.2f}'}"
        axes.frame(axis, "rank among all biases", str(found.metric), shown, group.label)
        points = [row.best for row in rows.values() if row.best is not None]
        points += [word.y + sign * word.spread for word in words for sign in (-1, 1)]
        axes.level(axis, points)

        def finish() -> None:
            around(axis, words, 7.5, [word.y for word in ends])
            at_ends(axis, ends, 3.0)

        return finish

    return Panel((WIDE, HIGH), draw)


def scatter(folders: Sequence[Folder], name: str) -> list[Picture]:
    """Score against metric over all folders, groups and roles, a picture a metric."""
    shown = [one for one in folders if any(group.verified for group in one.found.groups)]
    metrics = list(dict.fromkeys(one.found.metric for one in shown))
    pictures = []
    for place, metric in enumerate(metrics, 1):
        some = [one for one in shown if one.found.metric == metric]
        methods = dict.fromkeys(m for one in some for m in one.found.groups[0].methods)
        taus = "; ".join(f"{one.label} {_taus(one.found)}" for one in some)
        caption = (
            "Each point is one bias in one place of a grid, trained alone: its score in the probe "
            f"against its {metric}. Hollow: inert; an arrow: a score further left than shown. "
            f"Kendall's tau of ranks against metrics: {taus}."
        )
        file = name if len(metrics) == 1 else f"{name}-{place}"
        alt = f"score of each bias against the {metric} it reached alone"
        panels = tuple(_scatter(some, method, metric or "") for method in methods)
        pictures.append(Picture(file, alt, caption, panels, len(methods)))
    return pictures


def _taus(found: Selection) -> str:
    """Each method's tau: of the one group, or from the least to the greatest."""
    parts = []
    for method in found.groups[0].methods:
        known = [tau for g in found.groups if (tau := g.tau_of(method)) is not None]
        ends = sorted({min(known), max(known)}) if known else []
        parts.append(f"{TITLES[method]} {' to '.join(f'{tau:.2f}' for tau in ends) or '-'}")
    return ", ".join(parts)


def _scatter(folders: Sequence[Folder], method: str, metric: str) -> Panel:
    points = [
        (place, role, one.score, value, one.inert == "yes")
        for place, folder in enumerate(folders)
        for group in folder.found.groups
        for role, value in _alone(folder.found, group).items()
        if method in group.methods and (one := group.methods[method].roles.get(role)) and one.score
    ]
    least = _OFF_SCALE * max((score for _, _, score, _, _ in points), default=1.0)
    named = len(folders) > 1

    def draw(axis: Any) -> Finish:
        words = []
        for place, role, score, value, inert in points:
            x, label = max(score, least), f"← {role}" if score < least else role
            _point(axis, x, value, *axes.series(place), inert, None)
            words.append(Word(label, x, value, INK))
        if axes.is_spread_out(word.x for word in words):
            axis.set_xscale("log")
            axes.plain_decades(axis.xaxis)
        axis.margins(0.13)
        axes.frame(
            axis,
            SCORE[method],
            f"{axes.cut(metric, 16)}, trained alone",
            TITLES[method],
            grid="both",
        )
        axes.level(axis, [word.y for word in words])
        for place, folder in enumerate(folders if named else ()):
            (colour, marker), label = axes.series(place), axes.cut(folder.brief, 38)
            axis.plot([], [], marker, linestyle="", markersize=6, color=colour, label=label)
        if named:
            axes.legend(axis)
        # Beyond some points there is no room for names: colour and shape must do.
        return lambda: around(axis, words) if len(words) <= _NAMED else None

    return Panel((WIDE, HIGH + (0.1 + 0.19 * len(folders) if named else 0.0)), draw)


def gaps(folder: Folder, name: str) -> list[Picture]:
    """The gap between v and q against learning rate and epochs, where there are several."""
    found, label = folder.found, folder.label
    pictures = []
    for key, words in (("lr", "learning rate"), ("epochs", "epochs")):
        if len({getattr(group, key) for group in found.groups}) < 2:
            continue
        panels = [_gap(found, key, words, "projection ratio", lambda group: group.gap)]
        also = ""
        if any(metric_gap(group) is not None for group in found.groups):
            panels.append(_gap(found, key, words, str(found.metric), metric_gap))
            also = " and in the metric when each is trained alone"
        caption = f"{label}. How far v is ahead of q, in the probe's score{also}, against {words}."
        alt = f"{label}: v less q against {words}"
        pictures.append(Picture(f"{name}-{key}", alt, caption, tuple(panels), len(panels)))
    return pictures


def metric_gap(group: GroupResult) -> float | None:
    """Best metric of v trained alone less that of q; None where either is not known."""
    v, q = group.reached("v"), group.reached("q")
    return None if v is None or q is None else v - q


def _gap(
    found: Selection, key: str, words: str, of: str, value: Callable[[GroupResult], float | None]
) -> Panel:
    lines: dict[str, list[tuple[float, float]]] = {}
    for group in found.groups:
        at, gap = getattr(group, key), value(group)
        if at is None or gap is None:
            continue
        others = [group.regime if group.train_size is None else f"{group.train_size} examples"]
        others += [f"lr {group.lr:g}"] if key != "lr" and group.lr is not None else []
        others += [f"{group.epochs} ep."] if key != "epochs" and group.epochs is not None else []
        lines.setdefault(", ".join(others), []).append((at, gap))

    def draw(axis: Any) -> None:
        for place, (name, points) in enumerate(lines.items()):
            colour, marker = axes.series(place)
            look = {"color": colour, "marker": marker, "label": name}
            look["linestyle"] = ("-", "--", ":")[place // len(SERIES) % 3]
            axis.plot(*zip(*sorted(points), strict=True), linewidth=1.4, markersize=5, **look)
        ticks = sorted({at for points in lines.values() for at, _ in points})
        if key == "lr" and ticks:
            axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{at:g}" for at in ticks])
        axis.margins(0.12)
        axis.axhline(0, color=INK, linewidth=0.9)
        axes.frame(axis, words, "", f"{axes.cut(of, 24)} of v less that of q")
        axes.legend(axis)

    return Panel((WIDE, HIGH + 0.1 + 0.19 * len(lines)), draw)


def _alone(found: Selection, group: GroupResult) -> dict[str, float]:
    """Candidates with a rank and a metric -> that metric."""
    roles = group.projection.roles
    ranked = [role for role in found.candidates if role in roles and roles[role].rank]
    return {role: value for role in ranked if (value := group.reached(role)) is not None}


def _point(
    axis: Any, x: float, y: float, colour: str, marker: str, hollow: bool, deviation: float | None
) -> None:
    fill = {"markerfacecolor": "none" if hollow else colour, "markeredgewidth": 1.3}
    look = {"color": colour, "markersize": 6, "capsize": 2, "elinewidth": 0.9}
    axis.errorbar(x, y, yerr=deviation, fmt=marker, **look, **fill)
