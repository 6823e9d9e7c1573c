"""A report as one HTML file: figures inline, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from urllib.parse import quote

import beftkit.present.document as doc
from beftkit.present.pages.drawing import LARGEST, inline, page_colours
from beftkit.present.words import folded

_LINES = "\n"
_FONT = 'system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif'
CSS = f"""
:root{{color-scheme:light dark;--font:{_FONT};--ground:#fff;--ink:#1c2126;--soft:#59626b;
--line:#d9dde1;--tint:#f4f6f8;--mark:#eef4fa;--link:#0a5ea8;{page_colours(dark=False)}}}
@media (prefers-color-scheme:dark){{:root{{--ground:#14181c;--ink:#e4e8ec;--soft:#a0a9b2;
--line:#363c42;--tint:#1d2227;--mark:#1c2a37;--link:#7cbcf3;{page_colours(dark=True)}}}}}
*{{box-sizing:border-box}}
html{{-webkit-text-size-adjust:100%}}
body{{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 var(--font)}}
main,header,footer{{max-width:1440px;margin:0 auto;padding:0 16px}}
h1{{font-size:1.75rem;line-height:1.2;margin:2rem 0 .5rem}}
h2{{font-size:1.3rem;line-height:1.3;margin:3rem 0 .75rem;padding-top:.75rem;
border-top:1px solid var(--line)}}
h3{{font-size:1.08rem;margin:2rem 0 .5rem}}
h4{{font-size:.95rem;margin:1.75rem 0 .5rem;color:var(--soft)}}
h1,h2,h3,h4,p,li,figcaption{{overflow-wrap:anywhere}}
p,ul{{margin:.6rem 0;max-width:76ch}}
ul{{padding-left:1.2rem}}
a{{color:var(--link)}}
nav ul{{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;max-width:none}}
nav,footer,figcaption,caption{{font-size:.875rem}}
figure{{margin:1.25rem 0 1.75rem}}
figure svg{{display:block;height:auto;flex:1 1 auto}}
figure svg *{{stroke-linejoin:round;stroke-linecap:butt}}
.panels{{display:flex;flex-wrap:wrap;gap:1rem .75rem;align-items:flex-start}}
figcaption,caption,footer{{color:var(--soft)}}
figcaption{{margin-top:.5rem;max-width:90ch}}
.scroll{{overflow-x:auto;margin:1rem 0;max-width:100%}}
.scroll:focus-visible,pre:focus-visible{{outline:2px solid var(--link);outline-offset:2px}}
table{{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}}
caption{{caption-side:top;text-align:left;padding-bottom:.4rem}}
caption span{{display:inline-block;max-width:min(76ch,calc(100vw - 32px));position:sticky;left:0}}
th,td{{padding:.3rem .7rem;text-align:left;white-space:nowrap;border-bottom:1px solid var(--line)}}
th:first-child,td:first-child{{padding-left:.25rem}}
thead th{{font-weight:600;border-bottom-color:var(--soft)}}
tbody th{{font-weight:400}}
.n{{text-align:right}}
tr.strong{{background:var(--mark)}}
tr.strong th,tr.strong td{{font-weight:600}}
pre{{background:var(--tint);border-radius:6px;padding:.7rem .9rem;margin:.6rem 0;
font:.8125rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
max-width:54rem;overflow-x:auto}}
pre code{{font:inherit}}
code{{white-space:pre;font-size:.875em}}
summary{{cursor:pointer}}
footer{{margin-top:3rem;padding-bottom:2rem;padding-top:1rem}}
@media print{{figure,table,pre{{break-inside:avoid}}h2,h3,h4{{break-after:avoid}}
.scroll{{overflow:visible}}nav{{display:none}}}}
""".strip()


def html_page(title: str, sections: Sequence[doc.Section], folder: str, footer: str) -> str:
    """A report as a page that loads nothing; its numbers lie in ``folder`` beside it."""
    links, body = "", list[str]()
    for n, section in enumerate(sections, 1):
        links += f'<li><a href="#s{n}">{escape(section.title)}</a></li>'
        body += _section(section, 2, folder, f' id="s{n}"')
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{CSS}
</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<nav aria-label="Contents"><ul>{links}</ul></nav>
</header>
<main>
{_LINES.join(body)}
</main>
<footer>{escape(footer)}</footer>
</body>
</html>
"""


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
        case doc.Code(text):
            yield f'<pre tabindex="0"><code>{escape(text)}</code></pre>'
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
    yield f"<caption><span>{title}</span></caption>"
    heads = zip(table.headings, marks, strict=True)
    cells = "".join(f'<th scope="col"{mark}>{escape(cell)}</th>' for cell, mark in heads)
    yield f"<thead><tr>{cells}</tr></thead><tbody>"
    for row, stands_out in table.rows():
        strong = ' class="strong"' if stands_out else ""
        first, *rest = zip(row, marks, strict=True)
        cells = "".join(f"<td{mark}>{escape(cell)}</td>" for cell, mark in rest)
        yield f'<tr{strong}><th scope="row"{first[1]}>{escape(first[0])}</th>{cells}</tr>'
    yield "</tbody></table></div>"
