"""Blocks as GitHub's Markdown: a result's, and a report's page with figures linked beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote

import beftkit.present.document as doc
from beftkit.edges import markdown as plain
from beftkit.edges import markdown_result
from beftkit.present.words import folded


def markdown_text(blocks: Iterable[doc.Block]) -> str:
    """Lines and tables of a result, their words as they are but for HTML."""
    text = ""
    for gap, block in doc.in_form(blocks, "markdown"):
        match block:
            case doc.Lines(items, bullets):
                lines = [f"{'- ' if bullets else ''}{markdown_result(item)}" for item in items]
            case doc.Command():
                lines = doc.command_lines(block)
            case doc.Table():
                rule = ["---"] * len(block.columns)
                body = [list(map(markdown_result, cells)) for cells, _ in block.rows()]
                lines = _rows([block.headings, rule, *body])
            case _:
                raise TypeError(f"no result in Markdown shows a {type(block).__name__}")
        text += ("\n" if gap else "") + "".join(f"{line}\n" for line in lines)
    return text.rstrip() + "\n"


def markdown_page(title: str, sections: Sequence[doc.Section], folder: str, footer: str) -> str:
    """A report's text, without HTML; its figures and numbers lie in ``folder`` beside it."""
    parts = [f"# {plain(title)}"]
    for section in sections:
        parts += _section(section, 2, folder)
    return "\n\n".join([*parts, "---", plain(footer)]) + "\n"


def _section(section: doc.Section, level: int, folder: str) -> Iterator[str]:
    yield f"{'#' * level} {plain(section.title)}"
    for block in section.blocks:
        yield from _block(block, folder)
    for below in section.below:
        yield from _section(below, level + 1, folder)


def _block(block: doc.Block, folder: str) -> Iterator[str]:
    match block:
        case doc.Lines(items, bullets):
            yield "\n".join(f"{'- ' if bullets else ''}{plain(item)}" for item in items)
        case doc.Command(commands):
            yield _fenced("\n".join(map(folded, commands)), "sh")
        case doc.Code(text, language):
            yield _fenced(text, language)
        case doc.Fold(summary, blocks):
            yield f"{plain(summary)}:"
            for inner in blocks:
                yield from _block(inner, folder)
        case doc.Table():
            body = [[plain(cell) for cell in cells] for cells, _ in block.rows()]
            for row, (_, strong) in zip(body, block.rows(), strict=True):
                row[0] = f"**{row[0]}**" if strong else row[0]
            rule = ["--:" if align == "right" else "---" for align in block.page_aligns()]
            yield f"{plain(block.title)}:"
            yield "\n".join(_rows([[plain(cell) for cell in block.headings], rule, *body]))
        case doc.Files(items):
            yield "\n".join(
                f"- {', '.join(_link(name, folder) for name in names)}: {plain(words)}"
                for names, words in items
            )
        case doc.Picture():
            yield f"![{plain(block.alt)}]({quote(f'{folder}/{block.name}.png')})"
            yield plain(block.caption)


def _rows(rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def _fenced(text: str, language: str) -> str:
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _link(name: str, folder: str) -> str:
    return f"[{plain(name)}]({quote(f'{folder}/{name}')})"
