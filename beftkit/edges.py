"""What names out of files become where a text leaves us; JSON alone stays exact.

A tensor's, column's, label's or file's name may hold what a terminal acts on, a page runs or a
spreadsheet computes. Each back-end puts every text through its function here; nothing before does.
"""

from __future__ import annotations

import re
import unicodedata
from html import escape
from typing import Any

#: first letters of what a spreadsheet takes for a formula
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """Text on one line, ``?`` for each letter that is none: control, direction, half a pair."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or unicodedata.category(letter) == "Zs" else "?"
        for letter in text
    )


def html(text: str) -> str:
    """A name or a line as text of a page, in attributes too."""
    return escape(printable(text))


def markdown(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, one line."""
    text = printable(" ".join(text.split()))
    text = re.sub(r"([\\`*\[\]~])", r"\\\1", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # within a word it is no markup
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"(?<!\S)--[a-z][a-z-]*", r"`\g<0>`", text)
    return re.sub(r"^([#>+-]|\d+[.)])(?=\s|$)", r"\\\1", text)


def markdown_result(text: str) -> str:
    """As `markdown`, but for code, which a result's own words hold: only what would be HTML."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", printable(text))


def csv_cell(value: Any) -> Any:
    """A value of a table; a text that a spreadsheet would compute has an apostrophe before it."""
    if not isinstance(value, str) or not value.startswith(_FORMULA) or value == "-":
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
