"""A report as one HTML file: figures inline, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from string import Template
from urllib.parse import quote

import beftkit.present.document as doc
from beftkit.edges import html as escape
from beftkit.present.words import folded

_STYLE = (
    "<style>.beftkit th, .beftkit td {text-align: left} .beftkit .n {text-align: right} "
    ".beftkit .strong {font-weight: bold} .beftkit p {margin: 0 0 .3em}</style>"
)


def html_page(title: str, sections: Sequence[doc.Section], folder: str, footer: str) -> str:
    """A report as a page that loads nothing; its numbers lie in ``folder`` beside it."""
    from beftkit.present.pages.drawing import page_colours

    links, body = "", list[str]()
    for n, section in enumerate(sections, 1):
        links += f'<li><a href="#s{n}">{escape(section.title)}</a></li>'
        body += _section(section, 2, folder, f' id="s{n}"')
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    words = {"title": escape(title), "footer": escape(footer)}
    colours = {"light": page_colours(dark=False), "dark": page_colours(dark=True)}
    return Template(page).substitute(words, **colours, links=links, body="\n".join(body))


def html_fragment(blocks: Iterable[doc.Block]) -> str:
    """A result's lines and tables as a piece of somebody else's page, with what style it needs."""
    parts = [part for _, block in doc.in_form(blocks, "table") for part in _block(block, "")]
    return "\n".join(['<div class="beftkit">', _STYLE, *parts, "</div>"])


def _section(section: doc.Section, level: int, folder: str, anchor: str = "") -> Iterator[str]:
    yield f"<section{anchor}>"
    yield f"<h{level}>{escape(section.title)}</h{level}>"
    for block in section.blocks:
        yield from _block(block, folder)
    for below in section.below:
        yield from _section(below, level + 1, folder)
    yield "</section>"


def _block(block: doc.Block, folder: str) -> Iterator[str]:
    match block:
        case doc.Lines(items, bullets):
            outer, inner = ("<ul>{}</ul>", "<li>{}</li>") if bullets else ("{}", "<p>{}</p>")
            yield outer.format("".join(inner.format(_prose(item)) for item in items))
        case doc.Command(commands):
            yield from _block(doc.Code("\n".join(map(folded, commands)), "sh"), folder)
        case doc.Code(text, language):
            lines = "\n".join(map(escape, text.split("\n")))
            if language == "sh":  # on a narrow page a line is never broken within a flag
                lines = re.sub(r"(?<!\S)--?[a-z][a-z-]*", r"<span>\g<0></span>", lines)
            yield f'<pre tabindex="0"><code>{lines}</code></pre>'
        case doc.Fold(summary, blocks):
            yield f"<details><summary>{escape(summary)}</summary>"
            for command in blocks:
                yield from _block(command, folder)
            yield "</details>"
        case doc.Table():
            yield from _table(block)
        case doc.Files(items):
            yield "<ul>"
            for names, words in items:
                links = [_link(name, folder) for name in names]
                yield f"<li>{', '.join(links)}: {escape(words)}</li>"
            yield "</ul>"
        case doc.Picture():
            from beftkit.present.pages.drawing import LARGEST, inline

            room = sum(panel.size[0] * LARGEST + 14 for panel in block.panels[: block.columns])
            yield f'<figure><div class="panels" style="max-width:{room:.0f}px">'
            yield from inline(block)
            yield f"</div><figcaption>{escape(block.caption)}</figcaption></figure>"


def _link(name: str, folder: str) -> str:
    return f'<a href="{escape(quote(f"{folder}/{name}"))}">{escape(name)}</a>'


def _prose(words: str) -> str:
    """Text, with the names of flags kept whole."""
    return re.sub(r"(?<!\S)--[a-z][a-z-]*", r"<code>\g<0></code>", escape(words))


def _table(table: doc.Table) -> Iterator[str]:
    """A table in a box of its own that scrolls sideways where it is too wide."""
    title = escape(table.title)
    marks = [' class="n"' if align == "right" else "" for align in table.page_aligns()]
    yield f'<div class="scroll" role="region" tabindex="0" aria-label="{title}"><table>'
    if title:
        yield f"<caption><span>{title}</span></caption>"
    heads = zip(table.headings, marks, strict=True)
    cells = "".join(f'<th scope="col"{mark}>{escape(cell)}</th>' for cell, mark in heads)
    yield f"<thead><tr>{cells}</tr></thead><tbody>"
    wide = ' class="w"' if table.columns[0].folds and not marks[0] else marks[0]
    for row, stands_out in table.rows():
        strong = ' class="strong"' if stands_out else ""
        (first, _), *rest = zip(row, marks, strict=True)
        cells = "".join(f"<td{mark}>{escape(cell)}</td>" for cell, mark in rest)
        yield f'<tr{strong}><th scope="row"{wide}>{escape(first)}</th>{cells}</tr>'
    yield "</tbody></table></div>"
