"""A report: what the page says, what lies beside it, how a browser shows it."""

from __future__ import annotations

import csv
import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from beftkit.edges import markdown as plain
from beftkit.errors import BeftError
from beftkit.present.commands import run_commands, select_command
from beftkit.present.document import Picture, Table, numbers, texts
from beftkit.present.pages import write_report, writing
from beftkit.present.pages.drawing import files
from beftkit.present.pages.selections import read_folders
from beftkit.present.selection import selection_rows
from beftkit.present.words import folded
from beftkit.selection import Selection
from beftkit.settings.resolve import resolve_select
from beftkit.settings.train import TrainSettings
from tests import browser
from tests.command import tree
from tests.selections import selection, write

NASTY = "<script>alert(1)</script>|*x*"


class Reader(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "path", "use", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "path", "use", "br"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two reports of two folders: one a grid with a name that means harm, one not verified."""
    folder = tmp_path_factory.mktemp("report")
    grid = selection(lrs=(1e-3, 1e-4), seeds=(0, 1))
    write(folder / "sst2", replace(grid, model=NASTY))
    write(folder / "rte", selection(task="rte", verify=False, fisher=False, swap=True))
    drawn: dict[str, dict[str, bytes]] = {}

    def once(picture: Picture) -> dict[str, bytes]:
        return drawn.get(picture.name) or drawn.setdefault(picture.name, files(picture))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "files", once)  # both reports have the same figures
        for page in ("report.html", "report.md"):
            write_report([folder / "sst2", folder / "rte"], folder / page)
    return folder


@pytest.fixture(scope="module")
def html(place: Path) -> str:
    return (place / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def markdown(place: Path) -> str:
    return (place / "report.md").read_text(encoding="utf-8")


# --- what it says


@pytest.mark.parametrize("page", ["html", "markdown"])
def test_every_question_has_its_section(page: str, request: pytest.FixtureRequest) -> None:
    text: str = request.getfixturevalue(page)
    for words in (
        "In short", "Train b_v (value): trained alone it reached", "At a glance", "95 % interval",
        "Does the target carry over?", "projection: v is the target on 1 of 2 selections; q on ",
        "Ranking against metric", "rte was not verified", "Score against metric",
        "Gap between v and q", "against learning rate", "Scores in full", "Roles: ",
        "Each trained alone: accuracy", "Kendall", "Configuration and commands", "precision: bf16",
        "arithmetic in bf16", "roles.csv", "Its runs, one by one (20 commands in 4 cells)",
    ):  # fmt: skip
        assert words.replace("'", "&#x27;") in text or words in text, words


def test_tables_hold_what_the_selection_holds(place: Path, markdown: str) -> None:
    found = read_folders([place / "sst2"])[0].found
    group = found.groups[0]
    margin = group.projection.margin
    assert margin is not None
    [line] = [
        one for one in markdown.splitlines()
        if "| low, lr 0.001, 8 epochs | v | q | v | q |" in one
    ]  # fmt: skip
    for value in (margin.value, margin.low, margin.high, group.gap):
        assert f"{value:.4f}" in line
    assert "| v best |" in line and "| 12 of 40 |" in line and "| score alone: clear |" in markdown
    assert "(layers alone)" not in line, "two seeds"
    assert markdown.count(" (layers alone) |") == 1, "the other selection's one seed"


def test_without_metrics_there_is_nothing_made_of_them(tmp_path: Path) -> None:
    write(tmp_path / "rte", selection(task="rte", verify=False))
    write_report([tmp_path / "rte"], tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "was not verified" in text and "With `--verify`, beftkit select trains them" in text
    for words in ("Score against metric", "Kendall", "best metric", "carry over", "Gap between"):
        assert words not in text
    assert not list((tmp_path / "page.md_files").glob("*ranking*"))


def test_targets_over_one_grid(tmp_path: Path) -> None:
    write(tmp_path / "one", selection(regimes=("low", "high"), verify=False, fisher=False))
    write_report([tmp_path / "one"], tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "projection: v is the target on 2 of 2 places of the grid." in text


# --- the page


def test_the_page_is_whole_and_its_names_are_text(html: str) -> None:
    read = Reader(html)
    assert read.open == []
    assert "<script" not in html
    assert NASTY in "".join(read.words)
    [root] = [attributes for tag, attributes in read.tags if tag == "html"]
    assert root["lang"] == "en"
    assert any(attributes.get("name") == "viewport" for _, attributes in read.tags)
    assert "prefers-color-scheme:dark" in html
    drawn = [attributes for tag, attributes in read.tags if tag == "svg"]
    assert drawn and all(one["role"] == "img" and one["aria-label"] for one in drawn)
    assert sum(tag == "figcaption" for tag, _ in read.tags) == sum(
        tag == "figure" for tag, _ in read.tags
    )


def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    assert "://" not in html
    assert not re.search(r"@import|url\((?!#)", html)
    for tag, attributes in Reader(html).tags:
        assert tag not in ("script", "link", "img", "iframe", "object", "image")
        assert not {"src", "srcset", "xlink:href"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        if tag != "a":
            assert (attributes.get("href") or "#").startswith("#")


def test_ids_are_unique_and_what_is_referred_to_is_there(html: str) -> None:
    tags = Reader(html).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 20
    wanted = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html)
    assert {one or other for one, other in wanted} <= set(ids)


def test_figures_take_the_colours_of_the_page(html: str) -> None:
    figures = "".join(re.findall(r"<svg.*?</svg>", html, re.S))
    assert figures.count("var(--font)") > 100
    assert "currentColor" in figures and "var(--cd55e00)" in figures
    assert "#1c2126" not in figures and "#d55e00" not in figures
    assert "DejaVu" not in figures
    assert all(f"--c{name}:" in html for name in re.findall(r"var\(--c(\w+)\)", figures))


def test_markdown_is_without_html_and_its_links_are_there(place: Path, markdown: str) -> None:
    outside = re.sub(r"^(`{3,}).*?^\1$", "", markdown, flags=re.S | re.M)
    assert "<script" not in outside and "&lt;script>" in outside
    links = re.findall(r"\]\(([^)]+)\)", outside)
    assert len(links) > 15
    assert all((place / link).is_file() for link in links)
    tables = [block for block in outside.split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b", "a_b"), ("_a_", "\\_a\\_"), ("# a", "\\# a"), ("1. a", "\\1. a"),
        ("a\n# b", "a # b"), ("[a](b)", "\\[a\\](b)"), ("&lt;", "&amp;lt;"),
        ("with --probe-steps N", "with `--probe-steps` N"), ("-0.5", "-0.5"),
    ],
)  # fmt: skip
def test_text_stays_text_in_markdown(text: str, expected: str) -> None:
    assert plain(text) == expected


def test_a_column_says_where_it_stands_and_one_that_knows_nothing_stands_right() -> None:
    table = Table([*texts("a"), *numbers("b"), *texts("c")], [["v", "0.5", None], ["q", "x", None]])
    assert table.page_aligns() == ["left", "right", "right"]
    assert [cells for cells, _ in table.rows()] == [["v", "0.5", "-"], ["q", "x", "-"]]


# --- beside it


def test_numbers_come_back_as_they_were(place: Path) -> None:
    beside = place / "report.html_files"
    document = json.loads((beside / "report-data.json").read_text(encoding="utf-8"))
    before = [json.loads((place / name / "select.json").read_text()) for name in ("sst2", "rte")]
    assert [
        {k: v for k, v in one.items() if k != "folder"} for one in document["folders"]
    ] == before
    found = [Selection.from_dict(one) for one in document["folders"]]
    with (beside / "report-roles.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [row for one in found for row in selection_rows(one)]
    assert len(rows) == len(expected) == 24
    for row, one in zip(rows, expected, strict=True):
        assert row["role"] == one["role"] and float(row["projection"]) == one["projection"]
    with (beside / "report-groups.csv").open(encoding="utf-8", newline="") as file:
        groups = list(csv.DictReader(file))
    assert len(groups) == 3
    first = found[0].groups[0]
    assert groups[0]["model"] == NASTY
    assert float(groups[0]["gap_v_q"]) == first.gap
    assert [one["margin_over"] for one in groups] == ["layers and seeds"] * 2 + ["layers"]
    assert float(groups[0]["tau_magnitude_best"]) == first.tau["magnitude"].best
    assert float(groups[0]["v_best"]) == first.verified["v"].best
    assert groups[2]["v_best"] == "" and groups[2]["target_projection"] == "q"


def test_every_figure_is_there_as_svg_and_png(place: Path) -> None:
    files = {one.name for one in (place / "report.html_files").iterdir()}
    stems = {one.removesuffix(".png") for one in files if one.endswith(".png")}
    assert stems == {one.removesuffix(".svg") for one in files if one.endswith(".svg")}
    assert {stem.removeprefix("report-") for stem in stems} == {
        "ranking-1", "score-metric", "gap-1-lr", "layers-1-1", "layers-1-2", "layers-2",
        "track-1-1", "track-1-2", "track-2",
    }  # fmt: skip
    for stem in stems:
        data = (place / "report.html_files" / f"{stem}.png").read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) > 4000
        svg = (place / "report.html_files" / f"{stem}.svg").read_text(encoding="utf-8")
        assert svg.startswith("<?xml") and "<text" in svg


def test_the_same_bytes_again_and_no_figure_of_a_former_report(tmp_path: Path) -> None:
    write(tmp_path / "one", selection(epochs=(2, 4), verify=False, fisher=False))
    write(tmp_path / "two", selection(verify=False, fisher=False))
    page = tmp_path / "page.html"
    write_report([tmp_path / "two"], page)
    before = tree(tmp_path / "page.html_files") | {"page": page.read_bytes()}
    write_report([tmp_path / "one"], page)
    (tmp_path / "page.html_files" / "mine.png").write_bytes(b"mine")
    assert (tmp_path / "page.html_files" / "page-gap-epochs.svg").is_file()
    write_report([tmp_path / "two"], page)
    after = tree(tmp_path / "page.html_files") | {"page": page.read_bytes()}
    assert after.pop("mine.png") == b"mine"
    assert after == before


def test_only_what_a_report_made_itself_is_removed(tmp_path: Path) -> None:
    """A ``data.json`` from elsewhere names files, and nothing of it is believed."""
    write(tmp_path / "two", selection(verify=False, fisher=False))
    beside = tmp_path / "page.html_files"
    beside.mkdir()
    (beside / "mine.png").write_bytes(b"mine")
    (beside / "page-data.json").write_text(json.dumps({"files": ["mine.png"]}))
    write_report([tmp_path / "two"], tmp_path / "page.html")
    assert (beside / "mine.png").read_bytes() == b"mine"
    (beside / "page-roles.csv").unlink()
    (beside / "page-roles.csv").symlink_to(tmp_path / "precious")
    with pytest.raises(BeftError, match="symbolic link"):
        write_report([tmp_path / "two"], tmp_path / "page.html")


# --- the commands it names


def _values(command: str) -> dict[str, Any]:
    """The flags of a command, as its settings."""
    words = shlex.split(command.replace("\\\n", " "))
    assert words[0] == "beftkit"
    values: dict[str, Any] = {"model": words[2]}
    rest = words[3:]
    while rest:
        key = rest.pop(0)
        name = "output" if key == "-o" else key.removeprefix("--").replace("-", "_")
        if not rest or rest[0].startswith("--") or rest[0] == "-o":
            values[name.removeprefix("no_")] = not name.startswith("no_")
        elif name in ("metric", "candidates"):
            values[name] = [*values.get(name, []), rest.pop(0)]
        else:
            values[name] = rest.pop(0)
    return values


def test_the_commands_say_what_was_run() -> None:
    found = selection("a b/model", lrs=(1e-3, 2.5e-5), seeds=(0, 3), fisher=False)
    line = select_command(found, "out dir")
    values = _values(folded(line))
    assert values == _values(line)
    assert values.pop("output") == "out dir"
    again = resolve_select(None, found.settings).document()
    assert resolve_select(None, values).document() == again
    assert values["precision"] == "bf16" and values["metric"] == ["accuracy"]
    commands = run_commands(found, found.cells[3], "out")
    assert len(commands) == 5  # all is the probe
    probe, *alone = [TrainSettings(**{**_values(one), "seeds": [3]}) for one in commands]
    assert (probe.bias, probe.track_steps, probe.lr) == ("all", 1, 2.5e-5)
    assert [one.bias for one in alone] == ["none", "q", "k", "v"]
    assert all("--bias" in one for one in commands)
    assert alone[3].output == "out/cells/low-lr2.5e-05-e8-seed3/v" and alone[3].regime == "low"


@pytest.mark.browser
def test_a_browser_has_nothing_to_complain_of(place: Path) -> None:
    program = browser.find()
    if program is None:
        pytest.skip("no headless browser")
    with browser.page(program) as page:
        for width in (400, 1600):
            for dark in (False, True):
                page.open(place / "report.html", width, dark)
                assert page.value("document.documentElement.scrollWidth") <= width
                assert page.requests == [(place / "report.html").resolve().as_uri()]
                ground = page.value("getComputedStyle(document.body).backgroundColor")
                assert ground == ("rgb(20, 24, 28)" if dark else "rgb(255, 255, 255)")
                # No figure is wider than its place; its smallest text can be read.
                assert page.value(
                    "[...document.querySelectorAll('svg')].every(one => {"
                    "const box = one.getBoundingClientRect();"
                    "const scale = box.width / one.viewBox.baseVal.width;"
                    "return box.right <= innerWidth && 9 * scale >= 10})"
                )
        assert page.errors == []
