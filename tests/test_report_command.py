"""`beftkit report` as a user meets it: what it makes and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from beftkit.errors import BeftError, UsageError
from beftkit.present.pages import write_report
from tests.command import Beftkit, refused, tree
from tests.selections import selection, write


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good", selection(verify=False, fisher=False))
    return tmp_path


def test_the_command(made: Path, beftkit: Beftkit) -> None:
    ran = beftkit("report", "good", "-o", "out.md", "--title", "My <b>title</b>")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "wrote out.md, and numbers and figures to out.md_files\n"
    assert (made / "out.md").read_text().startswith("# My &lt;b>title&lt;/b>\n")
    ran = beftkit("report", "good", "-o", "out.md", "-q")
    assert tuple(ran) == (0, "", "")
    assert "report" in beftkit("--help").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "-o", "o.md"], "nowhere: no such folder"),
        (["good/select.json", "-o", "o.md"], "is a file; expected a folder"),
        (["begun", "-o", "o.md"], "is not finished; `beftkit select --output begun --resume`"),
        (["outer", "-o", "o.md"], "give its selections themselves: outer/inner"),
        (["empty", "-o", "o.md"], "empty: holds no select.json: expected a folder"),
        (["broken", "-o", "o.md"], "broken/select.json: is damaged (Expecting value"),
        (["nan", "-o", "o.md"], "nan/select.json: is damaged (NaN is no number)"),
        (["lacking", "-o", "o.md"], "lacking/select.json: is damaged"),
        (["newer", "-o", "o.md"], "newer/select.json: schema version 3, written by beftkit"),
        (["bytes", "-o", "o.md"], "is not UTF-8 text"),
        (["good", "-o", "none/o.md"], "none/o.md: its folder does not exist"),
        (["good", "-o", "taken.md"], "taken.md_files: is a file; expected a folder"),
        (["x.md_files", "-o", "x.md"], "x.md_files: is an input as well"),
    ],
)  # fmt: skip
def test_one_line_for_what_is_wrong(
    made: Path, beftkit: Beftkit, arguments: list[str], message: str
) -> None:
    good = (made / "good" / "select.json").read_text()
    for name, text in {
        "broken": "", "nan": good.replace('"gap": ', '"gap": NaN, "x": ', 1), "lacking": "[]",
        "newer": good.replace('"schema_version": 2', '"schema_version": 3'), "x.md_files": good,
    }.items():  # fmt: skip
        (made / name).mkdir()
        (made / name / "select.json").write_text(text)
    (made / "bytes").mkdir()
    (made / "bytes" / "select.json").write_bytes(b"\xff\xfe")
    (made / "begun").mkdir()
    (made / "begun" / "select.yaml").write_text(yaml.safe_dump({"task": "rte"}))
    write(made / "outer" / "inner", selection())
    (made / "empty").mkdir()
    (made / "taken.md_files").write_text("mine")
    before = tree(made)
    refused(beftkit("report", *arguments), message)
    assert tree(made) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["good"], "no --output was given"),
        (["good", "good/", "-o", "o.md"], "good/: was given twice"),
        (["good", "-o", "o.pdf"], "o.pdf: expected a file name that ends in .md or .html"),
    ],
)
def test_calls_that_mean_nothing(
    made: Path, beftkit: Beftkit, arguments: list[str], message: str
) -> None:
    ran = beftkit("report", *arguments)
    assert ran.code == 2 and message in ran.err and ran.err.count("\n") == 1
    assert {one.name for one in made.iterdir()} == {"good"}


@pytest.mark.parametrize("key", ["groups", "cells", "targets", "candidates", "family"])
def test_a_file_that_lacks_something_is_said_to_be_damaged(made: Path, key: str) -> None:
    values = json.loads((made / "good" / "select.json").read_text())
    del values[key]
    (made / "good" / "select.json").write_text(json.dumps(values))
    with pytest.raises(BeftError, match="is damaged"):
        write_report(["good"], "o.md")


def test_without_folders() -> None:
    with pytest.raises(UsageError, match="no folder was given"):
        write_report([], "o.md")
