"""A report as Markdown, its figures linked from the folder beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from beftkit.present.pages.blocks import Block, Bullets, Code, Files, Fold, Section, Table, Text
from beftkit.present.pages.drawing import Picture
from beftkit.present.rendering import markdown_table


def markdown_page(title: str, sections: Sequence[Section], folder: str, footer: str) -> str:
    """The report's text.

    Args:
        title: its title.
        sections: what it says.
        folder: name of the folder beside it that holds the figures.
        footer: what made it.

    Returns:
        GitHub's Markdown, without HTML.
    """
    parts = [f"# {plain(title)}"]
    for section in sections:
        parts += _section(section, 2, folder)
    return "\n\n".join([*parts, "---", plain(footer)]) + "\n"


def _section(section: Section, level: int, folder: str) -> Iterator[str]:
    yield f"{'#' * level} {plain(section.title)}"
    for block in section.blocks:
        yield from _block(block, folder)
    for below in section.below:
        yield from _section(below, level + 1, folder)


def _block(block: Block, folder: str) -> Iterator[str]:
    match block:
        case Text(words):
            yield plain(words)
        case Bullets(items):
            yield "\n".join(f"- {plain(item)}" for item in items)
        case Code(text, language):
            longest = max(map(len, re.findall(r"`+", text)), default=0)
            fence = "`" * max(3, longest + 1)
            yield f"{fence}{language}\n{text}\n{fence}"
        case Fold(summary, blocks):
            yield f"{plain(summary)}:"
            for inner in blocks:
                yield from _block(inner, folder)
        case Table(title, head, body):
            cells = [[plain(cell) for cell in row] for row in body]
            for row, strong in zip(cells, block.strong, strict=False):
                row[0] = f"**{row[0]}**" if strong else row[0]
            lines = markdown_table([plain(cell) for cell in head], cells)
            rule = ["--:" if block.is_number(n) else "---" for n in range(len(head))]
            lines[1] = f"| {' | '.join(rule)} |"
            yield f"{plain(title)}:"
            yield "\n".join(lines)
        case Files(items):
            yield "\n".join(
                f"- {', '.join(_link(name, folder) for name in one.names)}: {plain(one.words)}"
                for one in items
            )
        case Picture():
            yield f"![{plain(block.alt)}]({quote(f'{folder}/{block.name}.png')})"
            yield plain(block.caption)


def _link(name: str, folder: str) -> str:
    return f"[{plain(name)}]({quote(f'{folder}/{name}')})"


def plain(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, one line."""
    text = " ".join(text.split())
    text = re.sub(r"([\\`*\[\]~])", r"\\\1", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # within a word it is no markup
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"(?<!\S)--[a-z][a-z-]*", r"`\g<0>`", text)
    return re.sub(r"^([#>+-]|\d+[.)])(?=\s|$)", r"\\\1", text)
