"""Every page is in the index, every link leads somewhere, and what is generated is up to date."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

import beftkit

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md"), ROOT / "bench" / "README.md"])


def prose(text: str) -> str:
    """Markdown without comments, code blocks and code."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    return re.sub(r"`[^`\n]*`", "`x`", text)


def links(text: str) -> Iterator[str]:
    """Where a page's links and pictures lead."""
    yield from re.findall(r"\]\(([^)\s]+)\)", prose(text))


def anchors(text: str) -> set[str]:
    """Those that GitHub gives a page's headings."""
    found: set[str] = set()
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        number = 0
        while (unique := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(unique)
    return found


def broken(page: Path, text: str) -> Iterator[str]:
    """Links that lead nowhere in this copy of the repository."""
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield link
        elif anchor and anchor not in anchors(
            text if target == page else target.read_text("utf-8")
        ):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    assert [*broken(page, page.read_text(encoding="utf-8"))] == []


def test_what_is_broken_is_seen(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A heading: `x`, y\n# Twice\n# Twice\n")
    text = """
# Here
[a](there.md) [b](there.md#a-heading-x-y) [c](#here) [d](https://x.org/none#y) `[e](code)`
[f](there.md#twice-1) <!-- [g](comment.md) -->
[one](none.md) [two](there.md#none) [three](#none) [four](there.md#twice-2) ![five](none.svg)
"""
    expected = ["none.md", "there.md#none", "#none", "there.md#twice-2", "none.svg"]
    (tmp_path / "page.md").write_text(text)
    assert [*broken(tmp_path / "page.md", text)] == expected


def test_the_index_lists_every_page_with_a_line() -> None:
    text = prose((DOCS / "index.md").read_text(encoding="utf-8"))
    lines = re.findall(r"^- \[([\w-]+\.md)\]\(\1\): \w.+$", text, re.M)
    assert sorted(lines) == sorted(path.name for path in DOCS.glob("*.md"))


def test_the_glossary_says_each_word_once() -> None:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    words = [w for line in re.findall(r"^- (.+)", text, re.M) for w in re.findall(
        r"\*\*(.+?)\*\*", line.partition(":")[0])]  # fmt: skip
    assert len(set(words)) == len(words) > 35
    for word in (
        "site cell role inert settled target probe candidate verify regime head base adapter "
        "magnitude Fisher"
    ).split():
        assert word in words
    assert {"projection ratio", "run folder", "told apart", "PRE, POST"} <= {*words}
    for role in "q k v m1 m2 m3 ln1 ln2".split():
        assert f"`{role}`" in text
    known = {word.lower() for word in re.findall(r"\*\*(.+?)\*\*", text)}
    for term in re.findall(r"(?<!\*)\*(\w[\w ]*)\*(?!\*)", text):
        assert term.rstrip("s") in known or term in known | {"italics"}, term


@pytest.fixture(scope="module")
def script() -> Any:
    """docs/api.py."""
    spec = spec_from_file_location("api", DOCS / "api.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["api"] = module
    spec.loader.exec_module(module)
    return module


def test_the_python_page_is_what_its_script_writes(script: Any) -> None:
    held = (DOCS / "api.md").read_text(encoding="utf-8")
    assert script.page().splitlines() == held.splitlines(), "run .venv/bin/python docs/api.py"


def test_the_python_page_has_every_name(script: Any) -> None:
    text = script.page()
    for name in beftkit.__all__:
        assert name == "__version__" or f"\n## beftkit.{name}\n" in text
    for name in ("Run", "GroupResult", "Margin", "SiteScore", "Evaluation", "RoleSummary"):
        assert f"\n### {name}\n" in text
    assert "- `low` (`float | None`): interval for the margin" in text
    row = next(line for line in text.splitlines() if line.startswith("| `lr` |"))
    assert "train" in row and "Learning rate" in row
    assert not re.search(r"(?<!`)``(?!`)|<function| at 0x|doctest|^\w+:$\n\n\n", text)


def test_what_stands_in_columns_fits_80_letters() -> None:
    text = re.sub(r"\]\([^)]*\)", "]", (ROOT / "README.md").read_text("utf-8"))
    blocks = re.findall(r"^```.*?^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [line for line in text.splitlines() if line.startswith("|")]
    assert [line for line in lines if len(line) > 80] == []
