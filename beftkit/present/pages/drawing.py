"""Pictures of panels: drawn once, to be had as one file, or as panels that a page lays out.

Colours are stand-ins: a page gives each a light and a dark one, and ink is the text's own colour.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

from beftkit.edges import html as escape
from beftkit.present.document import Panel, Picture
from beftkit.present.plots import style
from beftkit.present.words import MEANING

INK, FAINT, EMPTY = "#1c2126", "#d9dde1", "#e4e7ea"
#: of whatever has no colour of its own, one after the other, with a marker each
SERIES = ("#0072b2", "#d55e00", "#008f68", "#b8568f", "#b07800", "#2f8fc4", "#74797f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_BLUE, _RED, _GREEN, _PINK, _OCHRE, _SKY, _GREY = SERIES
_LIGHT = (_RED, _BLUE, _GREEN, _PINK, _OCHRE, _SKY, _GREY, FAINT, EMPTY)
_DARK = "#ff8b45 #5fb2ee #35c79b #e59bc7 #efb944 #9ad5f5 #9aa1a8 #363c42 #2a2f34".split()
#: on light -> on dark; after Okabe and Ito, told apart by every kind of eye, 3:1 on either ground
PALETTE = dict(zip(_LIGHT, _DARK, strict=True))
_OF_ROLES = (_BLUE, INK, _RED, _GREEN, _PINK, _SKY, _OCHRE, _GREY)
ROLE_COLOURS = dict(zip(MEANING, _OF_ROLES, strict=True))
FONT = 9.0
#: pixels an inch that a page draws a panel at: at first, and where there is room
NATURAL, LARGEST = 96, 124
_THIN = ("grid.linewidth", "axes.linewidth", "xtick.major.width", "ytick.major.width")
_OFF = ("legend.frameon", "axes.spines.top", "axes.spines.right", "text.parse_math")
_INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
_SETTINGS = {
    **dict.fromkeys(("font.size", "axes.titlesize"), FONT),
    **dict.fromkeys(("xtick.minor.size", "ytick.minor.size"), 0),
    **{**dict.fromkeys(_INKED, INK), **dict.fromkeys(_THIN, 0.7), **dict.fromkeys(_OFF, False)},
    **{"grid.color": FAINT, "axes.facecolor": "none", "axes.titlelocation": "left"},
    "svg.hashsalt": "beftkit",
}


#: within an SVG file -> within a page
_FOR_PAGE = (
    (r'xlink:href="#', 'href="#PREFIX'),
    (r"url\(#", "url(#PREFIX"),
    (r"font: ([^;\"]*?px) [^;\"]*", r"font: \1 var(--font)"),
    (r"font-family: [^;\"]*", "font-family: var(--font)"),
)


def files(picture: Picture) -> dict[str, bytes]:
    """The whole picture on white, as ``NAME.svg`` (text stays text) and ``NAME.png``."""
    with style(**_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in letters that the font has not
        figure = _figure(picture.panels, picture.columns)
        png = _written(figure, "png")  # an SVG's points would be its pixels afterwards
        return {f"{picture.name}.svg": _written(figure, "svg"), f"{picture.name}.png": png}


def inline(picture: Picture) -> list[str]:
    """Each panel as an ``<svg>`` for a page, in the page's colours and font.

    Nothing in them refers to anything outside; their ids begin with the picture's name, as far as
    it is plain letters.
    """
    several, found = len(picture.panels) > 1, []
    name = re.sub(r"[^\w-]", "-", picture.name, flags=re.ASCII)  # ids are referred to by url()
    with style(**_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, panel in enumerate(picture.panels, 1):
            svg = _written(_figure([panel], 1, ground="none"), "svg").decode()
            alt = picture.alt + (f" ({number} of {len(picture.panels)})" if several else "")
            found.append(_for_page(svg, f"p-{name}-{number}-", alt))
    return found


def page_colours(dark: bool) -> str:
    """The stand-ins as CSS custom properties."""
    return "".join(f"--c{key[1:]}:{PALETTE[key] if dark else key};" for key in PALETTE)


def _figure(panels: Sequence[Panel], columns: int, ground: str = "white") -> Any:
    from matplotlib.figure import Figure

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width = max(panel.size[0] for panel in panels)
    heights = [
        max(panel.size[1] for panel in panels[row * columns : (row + 1) * columns])
        for row in range(rows)
    ]
    size = (width * columns, sum(heights))
    figure = Figure(size, dpi=160, facecolor=ground, layout="constrained")
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


def _written(figure: Any, form: str) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.BytesIO()
    canvas: Any = {"png": FigureCanvasAgg, "svg": FigureCanvasSVG}[form](figure)
    if form == "png":
        canvas.print_png(buffer)
    else:
        canvas.print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue()


def _for_page(svg: str, prefix: str, alt: str) -> str:
    """An SVG file as an element: no header, no ids but those it needs, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", svg, flags=re.S)
    head, body = re.split(r"(?<=>)", svg, maxsplit=1)
    [box] = re.findall(r'viewBox="0 0 (\S+) (\S+)"', head)
    width, height = (round(float(size)) for size in box)
    body = re.sub(r"\sid=\"([^\"]*)\"", lambda m: _id(m, svg, prefix), body)
    for old, new in _FOR_PAGE:
        body = re.sub(old, new.replace("PREFIX", prefix), body)
    body = re.sub(r"#[0-9a-f]{6}\b(?=[;\"])", _stand_in, body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    wide, high = (round(points / 72 * NATURAL) for points in (width, height))
    most = round(width / 72 * LARGEST)
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
