"""Names from files are text wherever they are shown, and stay exact where programs read them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from beftkit.edges import csv_cell, html, markdown, markdown_result, printable
from beftkit.present.data import csv_text
from beftkit.present.document import Lines, Table, texts
from beftkit.present.markdown import markdown_text
from beftkit.present.terminal import terminal_text
from tests.command import Beftkit

ESCAPE, TAG = "\x1b]0;pwned\x07neg", "<script>alert(1)</script>|x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain äö 中文 ▁█", "plain äö 中文 ▁█"), ("wide\u3000blank", "wide\u3000blank"),
        ("\x1b[31mred", "?[31mred"), ("two\nlines\r", "two?lines?"), ("\x9b2J", "?2J"),
        ("right\u202eleft", "right?left"), ("half \ud83d", "half ?"), ("a\u2028b", "a?b"),
    ],
)  # fmt: skip
def test_nothing_that_a_terminal_acts_on(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert html(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("=1+1", "'=1+1"), ("+a", "'+a"), ("@x", "'@x"), ("-cmd", "'-cmd"), ("\t=1", "'\t=1"),
        ("-0.5", "-0.5"), ("+1e-3", "+1e-3"), ("-inf", "-inf"), ("-", "-"), ("a=b", "a=b"),
        (-0.5, -0.5), (None, None), ("", ""),
    ],
)  # fmt: skip
def test_no_name_is_a_formula(value: Any, expected: Any) -> None:
    assert csv_cell(value) == expected
    assert type(csv_cell(value)) is type(value)


def test_every_back_end_has_its_edge() -> None:
    table = Table(texts("role", "name"), [["v", ESCAPE], ["q", TAG], ["k", "<- target"]])
    blocks = [Lines([ESCAPE, TAG]), table]
    for colour in (False, True):
        shown = terminal_text(blocks, "utf-8", colour)
        assert "?]0;pwned?neg" in shown and "\x1b]" not in shown and "\x07" not in shown
        assert TAG in shown  # no terminal minds
    shown = markdown_text(blocks)
    assert "?]0;pwned?neg" in shown and "<script" not in shown and "<- target" in shown
    assert "&lt;script>alert(1)&lt;/script>\\|x |" in shown
    assert list(csv.DictReader(io.StringIO(csv_text([{"name": "=1", "score": -0.5}])))) == [
        {"name": "'=1", "score": "-0.5"}
    ]


def test_the_words_of_a_result_keep_their_marks() -> None:
    assert markdown_result("`--lr 1e-3` <- a_b *c*") == "`--lr 1e-3` <- a_b *c*"
    assert markdown("`a` <b>") == "\\`a\\` &lt;b>"


@pytest.mark.slow
def test_labels_from_a_file_through_a_run(workplace: Path, beftkit: Beftkit) -> None:
    rows = [{"text": "ba be", "label": (ESCAPE, TAG)[n % 2]} for n in range(12)]
    for name in ("train.jsonl", "=dev.jsonl"):
        (workplace / name).write_text("\n".join(map(json.dumps, rows)), "utf-8")
    run = ["base", "--train-file", "train.jsonl", "--validation-file", "=dev.jsonl"]
    ran = beftkit("train", *run, "--epochs", "1", "--device", "cpu", "-o", "out")
    assert ran.code == 0, ran
    assert "?]0;pwned?neg 6" in ran.err
    card = (workplace / "out/adapter/README.md").read_text("utf-8")
    assert "0 ?\\]0;pwned?neg, 1 &lt;script>alert(1)&lt;/script>" in card and "\x1b" not in card
    given = ["--adapter", "out/adapter", "--validation-file", "=dev.jsonl", "--device", "cpu"]
    shown = beftkit("evaluate", *given)
    assert shown.code == 0, shown
    assert "\x1b" not in ran.out + ran.err + shown.out + shown.err
    assert "\x07" not in ran.out + ran.err + shown.out + shown.err
    found = json.loads(beftkit("evaluate", *given, "--format", "json").out)
    assert [*found["classes"]["validation"]] == [ESCAPE, TAG]  # exact
    written = beftkit("evaluate", *given, "--format", "csv")
    assert next(csv.DictReader(io.StringIO(written.out)))["task"] == "'=dev"
