"""A report's figures: labels in their lines' colours, nothing cut off, and files of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beftkit.present.document import Picture, Section
from beftkit.present.pages import drawing, write_report, writing
from beftkit.present.pages.drawing import inline
from beftkit.present.pages.figures import rankings
from beftkit.present.pages.sections import report_sections
from beftkit.present.pages.selections import Folder, read_folders
from beftkit.present.plots import style
from beftkit.present.words import MEANING
from tests import browser
from tests.command import tree
from tests.selections import selection, write
from tests.test_selection import selection as selected
from tests.test_verdicts import cells

LONG = "a-model-of-a-name-that-takes-more-room-than-any-page-has-for-it-" * 3


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> list[Section]:
    """Of two folders: names that are long, many lines in a figure, and scores far apart."""
    folder = tmp_path_factory.mktemp("figures")
    grid = selection(lrs=(1e-3, 1e-5), epochs=(2, 16), metric=LONG)
    grid = replace(grid, task=LONG)
    one = write(folder / "one", replace(grid, model=LONG))
    two = write(folder / "two", selection(task="rte", swap=True))
    return report_sections(read_folders([one, two]))


def pictures(sections: list[Section]) -> list[Picture]:
    """One of each kind: drawing takes time."""
    found = [picture for section in sections for picture in writing._pictures(section)]
    return list({re.sub(r"(-\d+)+", "", one.name): one for one in reversed(found)}.values())


def texts(picture: Picture) -> Iterator[tuple[Any, Any]]:
    """Each panel's figure and every text that is drawn in it."""
    from matplotlib.text import Text

    with style(**drawing._SETTINGS):
        for panel in picture.panels:
            figure = drawing._figure([panel], 1)
            figure.draw_without_rendering()  # places ticks and legends
            for text in {*figure.findobj(Text)} - {*_not_drawn(figure)}:
                if text.get_visible() and text.get_text().strip():
                    yield figure, text


def _not_drawn(figure: Any) -> Iterator[Any]:
    """Labels of ticks outside of their axis' limits."""
    for axis in (one for axes in figure.axes for one in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low <= tick.get_loc() <= high:
                yield from (tick.label1, tick.label2)


def test_no_word_of_a_figure_is_cut_off_at_its_edge(sections: list[Section]) -> None:
    seen = 0
    for picture in pictures(sections):
        for figure, text in texts(picture):
            box, whole = text.get_window_extent(), figure.bbox
            beyond = max(-box.x0, -box.y0, box.x1 - whole.x1, box.y1 - whole.y1)
            assert beyond < 1, (picture.name, text.get_text(), beyond)
            seen += 1
    assert seen > 150


def test_a_line_s_name_has_its_colour(sections: list[Section]) -> None:
    track = next(one for one in pictures(sections) if one.name.startswith("track"))
    with style(**drawing._SETTINGS):
        [axis] = drawing._figure(track.panels, 1).axes
    ends = {
        tuple(line.get_xydata()[-1]): line.get_color() for line in axis.lines if line.get_label()
    }
    names = [text for text in axis.texts if text.get_text().split(",")[0] in MEANING]
    assert len(names) == 8
    for text in names:
        assert text.get_color() == ends[tuple(text.xy)], text.get_text()
    assert len({text.get_color() for text in names}) == 8
    [page] = inline(track)
    shown = {
        words: fill
        for fill, words in re.findall(r'<text style="[^"]*fill: ([^;"]+)[^>]*>([^<]+)<', page)
    }
    assert shown["v"] == f"var(--c{drawing.ROLE_COLOURS['v'][1:]})"
    assert shown["m3"] == f"var(--c{drawing.ROLE_COLOURS['m3'][1:]})"


def test_bars_of_candidates_that_tie_are_whole() -> None:
    """Points on one line left their axis a height of their own, which cut the bars."""
    same = dict.fromkeys(("none", "q", "k", "v", "all"), 0.5)
    [picture] = rankings(Folder("o", "a on b", "b", selected(cells(same)), "0", ""), "ranking")
    with style(**drawing._SETTINGS):
        [axis] = drawing._figure(picture.panels[:1], 1).axes
    low, high = axis.get_ylim()
    assert low < 0.47 and high > 0.53


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures' files are made, of a few bytes: drawing them takes seconds."""

    def named(picture: Picture) -> dict[str, bytes]:
        return {f"{picture.name}.{form}": picture.alt.encode() for form in ("svg", "png")}

    monkeypatch.setattr(writing, "files", named)


def test_reports_in_one_folder_keep_apart(tmp_path: Path, undrawn: None) -> None:
    write(tmp_path / "one", selection(verify=False, fisher=False))
    write(tmp_path / "two", selection(verify=False, fisher=False, swap=True))
    made: dict[str, dict[str, Any]] = {}
    for folder, page in (("one", "a.html"), ("two", "b.html"), ("two", "a.md")):
        _, beside = write_report([tmp_path / folder], tmp_path / page)
        made[page] = tree(beside) | {page: (tmp_path / page).read_bytes()}
    names = [{*one} - {"manifest.json"} for one in made.values()]
    assert names[0].isdisjoint(names[1])
    for page, before in made.items():
        beside = tmp_path / f"{page}_files"
        assert tree(beside) | {page: (tmp_path / page).read_bytes()} == before
        stem = Path(page).stem
        assert all(one.startswith((f"{stem}-", "manifest", page)) for one in before)
        links = re.findall(rf"{page}_files/([\w.-]+)", (tmp_path / page).read_text())
        assert links and {*links} <= {*before}
    assert made["a.html"]["a-roles.csv"] != made["a.md"]["a-roles.csv"]


def test_a_name_that_is_no_id_is_a_report_s_all_the_same(tmp_path: Path, undrawn: None) -> None:
    write(tmp_path / "one", selection(verify=False, fisher=False))
    page, beside = write_report([tmp_path / "one"], tmp_path / "50 % (é) #1.html")
    text = page.read_text(encoding="utf-8")
    assert (beside / "50 % (é) #1-roles.csv").is_file()
    wanted = {one or other for one, other in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)}
    assert wanted <= {*re.findall(r' id="([^"]+)"', text)}
    assert all(re.fullmatch(r"[\w-]+", one, re.ASCII) for one in wanted)


@pytest.mark.browser
def test_a_browser_cuts_nothing_off(tmp_path: Path, undrawn: None) -> None:
    program = browser.find()
    if program is None:
        pytest.skip("no headless browser")
    long = replace(selection(), model=LONG, task=LONG)
    page, _ = write_report([write(tmp_path / "one", long)], tmp_path / "report.html")
    with browser.page(program) as shown:
        for width in (400, 1600):
            shown.open(page, width, False)
            assert shown.value("document.documentElement.scrollWidth") <= width
            assert shown.value(
                "[...document.querySelectorAll('svg text')].every(one => {"
                "const frame = one.ownerSVGElement.getBoundingClientRect();"
                "const box = one.getBoundingClientRect();"
                "return box.left >= frame.left - 1 && box.right <= frame.right + 1"
                " && box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1})"
            )
            # What is too wide for its place scrolls; text, commands and figures never do.
            assert shown.value(
                "[...document.querySelectorAll('p, li, pre, h1, h2, h3, figure, figcaption')]"
                ".every(one => one.scrollWidth <= one.clientWidth + 1)"
            )
