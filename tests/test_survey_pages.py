"""A survey's page, figures and numbers, and its table on terminals: whatever names models have."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

import beftkit.present.survey as show
from beftkit.errors import BeftError
from beftkit.present.data import csv_text
from beftkit.present.document import Picture, Table
from beftkit.present.markdown import markdown_text
from beftkit.present.pages import survey as pages
from beftkit.present.pages.drawing import inline
from beftkit.present.pages.survey import write_page
from beftkit.present.pages.survey_figures import NAMES
from beftkit.present.terminal import terminal_text
from beftkit.surveys.results import Survey, read
from tests import browser
from tests.surveys import WIDTHS, families, head, rows, write
from tests.test_report_pages import Reader

#: what a hub does not allow, and a file or folder does: each is shown as text, on one line
NASTY = (
    "<script>alert(1)</script>", "=HYPERLINK(1)", "\x1b[31mred\x1b[0m", "a\u202eb\u200fc|`d`",
    "--output", "$title ${links}", "m" * 300, "&lt;b&gt; 'q' \"r\"", "https://elsewhere.example/x",
)  # fmt: skip


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """60 models in planted families, 9 of them with names that mean harm, 14 others."""
    base = head(3, {**WIDTHS, "r\u202e<script>": 16}, base="<b>o/base</b>")
    some = rows(base, 60, without=14, names=NASTY)
    some[0] = replace(some[0], task="<script>\u202et</script>", licence="=1+1", target=None)
    some[1] = replace(some[1], downloads=None, bias_sha256=some[2].bias_sha256)
    some[-1] = replace(some[-1], reason="\x1b]0;x\x07<script>", outcome="damaged")
    changes, _ = families(6, 10, base.length)
    return read(write(tmp_path_factory.mktemp("survey") / "s", base, some, changes))


@pytest.fixture(scope="module")
def written(survey: Survey) -> list[str]:
    return write_page(survey)


@pytest.fixture(scope="module")
def page(survey: Survey, written: list[str]) -> str:
    return (Path(survey.folder) / "survey.html").read_text(encoding="utf-8")


# --- on a terminal


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tables_fit_a_terminal(survey: Survey, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    blocks = show.document(survey).blocks
    text = terminal_text(blocks, "utf-8", True)
    assert "\u202e" not in text and "\x07" not in text and "\x1b[31m" not in text
    tables = [block for block in blocks if isinstance(block, Table)]
    lines = re.sub(r"\x1b\[\d*m", "", terminal_text(tables, "utf-8", True))
    assert max(map(cell_len, lines.splitlines())) <= width
    for words in ("median", "Targets by task", "stand out", "Nearest by bias change", "inert"):
        assert words in text
    assert ("left out for width" in lines) == (width < 120)


def test_a_document_says_what_matters(survey: Survey) -> None:
    document = show.document(survey)
    text = terminal_text(document.blocks, "utf-8", False)
    targets = show.targets_line(survey)
    assert targets.startswith("target: v in ") and "none in 1 (2 %)" in targets and targets in text
    assert "MODELS  74: 60 scored, 2 no biases" in text
    assert "scored models whose biases equal another's: 2" in text
    assert "models not to be had this time: 3; --resume asks again" in text
    assert list(document.notes) == show.notes(survey)


def test_csv_has_a_row_a_model_and_role(survey: Survey) -> None:
    read_back = list(csv.DictReader(io.StringIO(csv_text(show.document(survey).rows))))
    assert len(read_back) == 60 * 9 + 14
    assert read_back[0]["model"] == NASTY[0] and read_back[0]["licence"] == "'=1+1"
    assert {row["model"] for row in read_back} >= {"'=HYPERLINK(1)", "'--output"}
    mine = [row for row in read_back if row["model"] == "owner-20/model-20"]
    row = next(row for row in survey.rows if row.model == "owner-20/model-20")
    values = [v for site, v in zip(survey.head.sites, row.projection, strict=True) if v is not None
              and site.role == "q"]  # fmt: skip
    assert float(mine[0]["projection"]) == pytest.approx(sum(values) / 3) and mine[0]["role"] == "q"


def test_markdown_has_no_html_and_whole_rows(survey: Survey) -> None:
    text = markdown_text(show.document(survey).blocks)
    assert "<script" not in text and "\u202e" not in text
    for table in (block for block in text.split("\n\n") if block.startswith("|")):
        lines = table.replace("\\|", "").strip().splitlines()
        assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_two_that_are_each_others_nearest_stand_once(survey: Survey) -> None:
    table = show.neighbours_table(survey, 1000)
    pairs = [frozenset(map(str, row[:2])) for row in table.body]
    mutual = [pair for pair, row in zip(pairs, table.body, strict=True) if "each other" in str(row)]
    assert len(mutual) == len(set(mutual)) > 3
    assert len(pairs) + len(mutual) == 60


# --- the page


def test_the_page_says_it_all(page: str) -> None:
    for words in ("In short", "Scores by role", "Roles and layers", "Targets by task",
                  "Models that stand out", "Nearest neighbours", "Models", "Files",
                  "Groups that a chain of cosines", "owner-20/model-20"):  # fmt: skip
        assert words in page, words
    assert page.count("<svg") == len(NAMES)


def test_no_name_becomes_markup(page: str) -> None:
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<b>" not in page and "&lt;b&gt;o/base&lt;/b&gt;" in page
    assert not {"\u202e", "\u200f", "\x1b", "\x07"} & set(page)
    assert "$title ${links}" in page
    read_back = Reader(page)
    assert read_back.open == []
    for tag, attributes in read_back.tags:
        assert tag not in ("script", "link", "img", "iframe", "object", "image", "base", "form")
        assert not {"src", "srcset", "xlink:href"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        if tag != "a":
            assert (attributes.get("href") or "#").startswith("#")
    links = [one["href"] or "" for tag, one in read_back.tags if tag == "a"]
    assert all(link.startswith(("#s", "survey.html_files/")) for link in links)


def test_ids_are_unique(page: str) -> None:
    ids = [attributes["id"] for _, attributes in Reader(page).tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 12


def test_every_figure_and_its_numbers_lie_beside_the_page(
    survey: Survey, written: list[str]
) -> None:
    beside = Path(survey.folder) / "survey.html_files"
    wanted = {*pages._NUMBERS, *(f"{name}.{form}" for name in NAMES for form in ("svg", "png"))}
    assert {one.name for one in beside.iterdir()} == wanted
    assert len(written) == 2 and "survey.parquet" in written[0] and "survey.html" in written[1]
    for name in NAMES:
        assert (beside / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<script" not in (beside / f"{name}.svg").read_text(encoding="utf-8")

    def table(name: str) -> list[dict[str, str]]:
        with (beside / name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    found = survey.summary
    assert sum(int(row["models"]) for row in table("targets.csv")) == 60
    assert sum(int(row["models"]) for row in table("outcomes.csv")) == 74
    assert len(table("neighbours.csv")) == 3 * 60 and len(table("groups.csv")) == 60
    bins = [row for row in table("distribution.csv") if row["role"] == "v"]
    assert sum(int(row["models"]) for row in bins) == 60
    for row, one in zip(table("layers.csv"), found.layers, strict=True):
        assert float(row["mean"]) == one.mean and int(row["layer"]) == one.layer
    medians = {row["role"]: float(row["median"]) for row in table("roles.csv")}
    assert medians == {one.role: one.quantiles[2] for one in found.roles}
    assert [float(row["z"]) for row in table("outliers.csv")] == [one.z for one in found.outliers]


def drawn(picture: Picture) -> dict[str, bytes]:
    """As `beftkit.present.pages.drawing.files`, at once."""
    return {f"{picture.name}.{form}": b"" for form in ("svg", "png")}


def test_a_page_again_leaves_nothing_of_the_former_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "files", drawn)
    base = head()
    folder = write(tmp_path / "s", base, rows(base, 12))
    write_page(read(folder))
    beside = folder / "survey.html_files"
    (beside / "mine.csv").write_text("mine")
    write(folder, base, rows(base, 0, without=3))
    write_page(read(folder))
    assert {one.name for one in beside.iterdir()} == {
        "mine.csv", "models.csv", "outcomes.csv", "outcomes.png", "outcomes.svg",
    }  # fmt: skip
    assert "Scores by role" not in (folder / "survey.html").read_text()


def test_a_link_in_the_place_of_the_figures_is_not_followed(tmp_path: Path) -> None:
    base = head()
    folder = write(tmp_path / "s", base, rows(base, 2))
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "roles.csv").write_text("precious")
    (folder / "survey.html_files").symlink_to(tmp_path / "precious")
    with pytest.raises(BeftError, match="is no folder"):
        write_page(read(folder))
    assert (tmp_path / "precious" / "roles.csv").read_text() == "precious"


@pytest.mark.parametrize("library", ["matplotlib", "pyarrow"])
def test_what_a_library_is_missing_for_is_said(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = head()
    found = read(write(tmp_path / "s", base, rows(base, 3)))
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(pages, "files", drawn)
    said: Any = write_page(found)
    assert any(library in line and line.startswith("no survey.") for line in said)
    made = {one.name for one in Path(found.folder).iterdir()}
    assert ("survey.html" in made) == (library != "matplotlib")
    assert ("survey.parquet" in made) == (library != "pyarrow")
    assert (Path(found.folder) / "survey.html_files" / "models.csv").is_file()


def test_a_survey_shows_itself_in_a_notebook(survey: Survey) -> None:
    shown = survey._repr_html_()
    assert shown is not None and "<script" not in shown and "Targets by task" in shown
    assert json.loads(json.dumps(survey.to_dict()))["models"][0]["model"] == NASTY[0]


@pytest.mark.browser
def test_a_browser_has_nothing_to_complain_of(survey: Survey, written: list[str]) -> None:
    program = browser.find()
    if program is None:
        pytest.skip("no headless browser")
    path = Path(survey.folder) / "survey.html"
    with browser.page(program) as page:
        for width in (400, 1600):
            for dark in (False, True):
                page.open(path, width, dark)
                assert page.value("document.documentElement.scrollWidth") <= width
                assert page.requests == [path.resolve().as_uri()]
                assert page.value(
                    "[...document.querySelectorAll('svg')].every(one => {"
                    "const box = one.getBoundingClientRect();"
                    "const scale = box.width / one.viewBox.baseVal.width;"
                    "return box.right <= innerWidth && 9 * scale >= 10})"
                )
        assert page.errors == []


def test_a_page_does_not_grow_with_the_models(
    tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 10,000 see bench/survey_page.py."""
    monkeypatch.setattr(pages, "files", drawn)
    base = head()
    write_page(read(write(tmp_path / "s", base, rows(base, 1200))))
    size = (tmp_path / "s" / "survey.html").stat().st_size
    assert size < 1.2 * len(page.encode())


@pytest.mark.parametrize("shape", ["one of all", "two towers", "many layers", "equal scores"])
def test_every_shape_of_a_survey_is_drawn(shape: str) -> None:
    base, count = head(1, {"v": 16}), 1
    if shape == "two towers":
        base, count = head(), 3
        other = [replace(one, tower="vision", attention="cross") for one in base.sites[:5]]
        base = replace(base, sites=(*base.sites, *other))
    if shape == "many layers":
        base, count = head(81, {"q": 16, "v": 16}), 9
    some = rows(base, count)
    if shape == "equal scores":
        some = [replace(some[0], model=f"o/m{number}") for number in range(20)]
    found = Survey("s", base, tuple(some))
    drawn = [one for part in pages.survey_sections(found) for one in part.blocks
             if isinstance(one, Picture)]  # fmt: skip
    svgs = [svg for picture in drawn for svg in inline(picture)]
    assert len(svgs) == (5 if shape == "two towers" else 4)
    assert all(svg.endswith("</svg>") and "nan" not in svg.lower() for svg in svgs)
