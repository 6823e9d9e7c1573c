"""Pictures of panels: drawn once, to be had as one file, or as panels that a page lays out.

Colours are stand-ins: a page gives each a light and a dark one, and ink is the text's own colour.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from html import escape
from typing import Any

from beftkit.present.document import Panel, Picture
from beftkit.present.plots import style

INK, FAINT, EMPTY = "#1c2126", "#d9dde1", "#e4e7ea"
#: on light -> on dark; after Okabe and Ito, told apart by every kind of eye, 3:1 on either ground
PALETTE = {
    "#d55e00": "#ff8b45", "#0072b2": "#5fb2ee", "#008f68": "#35c79b", "#b8568f": "#e59bc7",
    "#b07800": "#efb944", "#2f8fc4": "#9ad5f5", "#74797f": "#9aa1a8", FAINT: "#363c42",
    EMPTY: "#2a2f34",
}  # fmt: skip
ROLE_COLOURS = {
    "v": "#d55e00", "q": "#0072b2", "k": INK, "m1": "#008f68", "m2": "#b8568f", "m3": "#2f8fc4",
    "ln1": "#b07800", "ln2": "#74797f",
}  # fmt: skip
#: of whatever has no colour of its own, one after the other, with a marker each
SERIES = ("#0072b2", "#d55e00", "#008f68", "#b8568f", "#b07800", "#2f8fc4", "#74797f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FONT = 9.0
#: pixels an inch that a page draws a panel at: at first, and where there is room
NATURAL, LARGEST = 96, 124
_SETTINGS = {
    "font.size": FONT, "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "grid.color": FAINT, "grid.linewidth": 0.7,
    "axes.linewidth": 0.7, "axes.titlesize": FONT, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left",
    "xtick.major.width": 0.7, "ytick.major.width": 0.7, "xtick.minor.size": 0,
    "ytick.minor.size": 0, "svg.hashsalt": "beftkit", "axes.facecolor": "none",
    "text.parse_math": False,
}  # fmt: skip


def files(picture: Picture) -> dict[str, bytes]:
    """The whole picture on white.

    Args:
        picture: what to draw.

    Returns:
        ``NAME.svg`` (text stays text) and ``NAME.png``.
    """
    with style(**_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in letters that the font has not
        figure = _figure(picture.panels, picture.columns)
        png = _png(figure)  # an SVG's points would be its pixels afterwards
        return {f"{picture.name}.svg": _svg(figure), f"{picture.name}.png": png}


def inline(picture: Picture) -> list[str]:
    """Each panel as an ``<svg>`` for a page, in the page's colours and font.

    Args:
        picture: what to draw.

    Returns:
        Elements without references to anything outside them; their ids begin with the name.
    """
    found = []
    with style(**_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, panel in enumerate(picture.panels, 1):
            svg = _svg(_figure([panel], 1, ground="none")).decode()
            count = f" ({number} of {len(picture.panels)})" if len(picture.panels) > 1 else ""
            prefix = f"{picture.name}-{number}-"
            found.append(_for_page(svg, prefix, picture.alt + count))
    return found


def page_colours(dark: bool) -> str:
    """The stand-ins as CSS custom properties."""
    return "".join(f"--c{key[1:]}:{PALETTE[key] if dark else key};" for key in PALETTE)


def _figure(panels: Sequence[Panel], columns: int, ground: str = "white") -> Any:
    from matplotlib.figure import Figure

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width = max(panel.size[0] for panel in panels)
    heights = [max(p.size[1] for p in panels[row * columns : (row + 1) * columns])
               for row in range(rows)]  # fmt: skip
    figure = Figure(
        (width * columns, sum(heights)), dpi=160, facecolor=ground, layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    every = list(axes.flat)
    finishes = [panel.draw(axis) for panel, axis in zip(panels, every, strict=False)]
    for axis in every[len(panels) :]:
        axis.set_axis_off()
    engine: Any = figure.get_layout_engine()
    engine.execute(figure)
    figure.set_layout_engine("none")  # savefig would do it again for every file
    for finish in finishes:
        if finish is not None:
            finish()
    return figure


def _svg(figure: Any) -> bytes:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.BytesIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue()


def _png(figure: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(buffer)
    return buffer.getvalue()


def _for_page(svg: str, prefix: str, alt: str) -> str:
    """An SVG file as an element: no header, no ids but those it needs, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", svg, flags=re.S)
    head, body = re.split(r"(?<=>)", svg, maxsplit=1)
    width, height = (
        round(float(size)) for size in re.findall(r'viewBox="0 0 (\S+) (\S+)"', head)[0]
    )
    body = re.sub(r"\sid=\"([^\"]*)\"", lambda m: _id(m, svg, prefix), body)
    body = re.sub(r'xlink:href="#', f'href="#{prefix}', body)
    body = body.replace("url(#", f"url(#{prefix}")
    body = re.sub(r"font: ([^;\"]*?px) [^;\"]*", r"font: \1 var(--font)", body)
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", body)
    body = re.sub(r"#[0-9a-f]{6}\b(?=[;\"])", _stand_in, body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    wide, high, most = (round(points / 72 * pixels) for points, pixels in
                        ((width, NATURAL), (height, NATURAL), (width, LARGEST)))  # fmt: skip
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {width} {height}" '
        f'width="{wide}" height="{high}" style="max-width:min(100%,{most}px)">{body.strip()}'
    )


def _id(match: re.Match[str], svg: str, prefix: str) -> str:
    name = match[1]
    return f' id="{prefix}{name}"' if f'"#{name}"' in svg or f"url(#{name})" in svg else ""


def _stand_in(match: re.Match[str]) -> str:
    colour = match[0]
    if colour == INK:
        return "currentColor"
    return f"var(--c{colour[1:]})" if colour in PALETTE else colour
