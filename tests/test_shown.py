"""Results in a console and in a notebook, and functions that say what they take."""

from __future__ import annotations

import inspect
import json
import pydoc
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import beftkit
from beftkit.edges import printable
from beftkit.present.document import Table
from beftkit.present.scores import scores_document
from beftkit.runs import EvaluationResult, FisherPlan, RunPlan, Timing
from beftkit.runs.averaging import AverageResult, Summand
from beftkit.runs.exporting import ExportResult
from beftkit.runs.extracting import ExtractResult
from beftkit.runs.merge_result import MergeResult
from beftkit.runs.predicting import PredictionResult
from beftkit.runs.results import Run, TrainResult
from beftkit.scores import FisherFacts, Identity, Scores
from beftkit.selection.planning import CellPlan, SelectPlan
from beftkit.selection.results import CellResult
from beftkit.settings import (
    EvaluateSettings,
    ExportSettings,
    FisherSettings,
    PredictSettings,
    SelectSettings,
    TrainSettings,
)
from beftkit.settings.merge import MergeSettings
from beftkit.shown import Shown
from beftkit.suite.results import PaperPlan, PaperResult, PaperRow, PlannedCell
from beftkit.surveys.results import Survey
from beftkit.training.evaluation import Evaluated, Evaluation
from beftkit.tuning import Choice
from beftkit.weights.beside import Beside
from beftkit.weights.cosines import Alike, CosineResult
from beftkit.weights.values import Rounding
from tests import version_one
from tests.builders import write_model
from tests.selections import selection
from tests.surveys import head as survey_head
from tests.surveys import rows as survey_rows

NASTY = "<script>alert(1)</script>\n\x1b[31m"


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    folder = tmp_path_factory.mktemp("shown")
    return beftkit.score(write_model(folder / "pre", seed=1), write_model(folder / "post", seed=2))


@pytest.fixture(scope="module")
def results(scores: Scores) -> list[Shown]:
    """One of each kind, whole results first."""
    run = Run(0, "out", "adapter", "beft", Evaluated(3, 1.0, {"f1": 0.123456}), None, "last", {},
              4, 1.0, False, 8, {}, 1.0, 0.5)  # fmt: skip
    settings = TrainSettings(model="m", task="sst2", lr=0.1, epochs=1)
    trained = TrainResult("m", "sst2", "v", "f1", 8, 2, 100, settings, (run,))
    evaluated = EvaluationResult(NASTY, None, "t", Evaluation({"f1": 0.5}, 1.0, 9, 1.0), {}, (), {})
    common: Any = ("cpu", 1, "sst2", (), {}, {}, "", {}, 128, (), ())
    plan = RunPlan(*common, settings, Choice("v", (), (), 0, 0, 100), 8, None, None)
    wanted = SelectSettings(model="m", task="sst2")
    planned = CellPlan(selection().cells[0].cell, 1e-3, 1, 8, {"probe": None}, 0)
    select = SelectPlan(*common, wanted, (planned,), {"probe": 9}, 2, 100, None, None)
    fisher_plan = FisherPlan(*common, FisherSettings(model="m", task="sst2"), 8, 1, 1, {}, 9)
    timing = Timing("train", "m", "sst2", "cpu", 1, "fp32", "float32", 16, (), (), None, "process")
    texts = ({"text": NASTY, "label": "a"},)
    counted: Any = ({"a": 1}, 0, 0, 0, 0.1, (), texts)
    what: Any = ("m", None, "2 texts", None, ("a", "b"), ("label",), ("text",), 1)
    predicted = PredictionResult(*what, *counted)
    exported = ExportResult("out", "adapter", "m", ("a", "b"), "float32", 100, (), ())
    rounding = Rounding("bfloat16", 3, 0.01, 0, 9)
    named: Any = ("out", NASTY, "adapter", "llama", "bfloat16", 9, ())
    merged = MergeResult(*named, 0, 3, 9, 0, ("attention_bias",), (), (), 5, (rounding,), (), ())
    alike = Alike(None, None, None, None, None, 1, (1.0, 0.0), *[((1.0, None), (None, None))] * 2)
    cosines = CosineResult((NASTY, "b"), None, alike, (), (), ())
    summand = Summand(NASTY, 1.0, 1.0, {"v": 1.0})
    average = AverageResult("out", (summand,), 1.0, 1.0, {}, None, None, "beft", 1, 2, ())
    beside = Beside({NASTY: 1}, (), (), (), 1)
    extract = ExtractResult(
        "out", NASTY, "m", "v", "beft", 1, 2, 0, {}, (), 0, 0, beside, ()
    )  # fmt: skip
    found = selection(model=NASTY)
    cell = CellResult.from_dict(version_one.CELL)
    facts = FisherFacts("exact", "mean", "sst2", 100)
    fisher = replace(scores, settings=facts, method="projection")
    inspection = beftkit.inspect(scores.pre.path)
    whole = [scores, fisher, inspection, trained, evaluated, found, plan]
    more = [select, fisher_plan, timing, predicted, exported, merged, cosines, average, extract]
    paper_plan = PaperPlan(
        "table1", NASTY, (PlannedCell("c", "train", "m", "t", {}, (), (0,)),), {}, ()
    )
    paper_row = PaperRow("c", NASTY, "f1", 80.0, *[None] * 5, (), (0,), *[None] * 4)
    paper = PaperResult("table1", "Table 1", (paper_row,), {}, {}, (), "out", ())
    more += [paper_plan, paper]
    base = survey_head(base=NASTY)
    surveyed = Survey("s", base, tuple(survey_rows(base, 9, names=[NASTY])))
    more += [surveyed]
    [group] = found.groups
    margin = group.projection.margin
    assert margin is not None
    parts: list[Shown] = [alike, summand, beside]
    parts += [scores.roles["v"], scores.sites[0], inspection.roles[0], run, group]
    parts += [margin, cell, group.projection, cell.methods["projection"], *cell.runs.values()]
    return [*whole, *more, *parts]


def kinds(kind: type) -> Iterator[type]:
    for one in kind.__subclasses__():
        yield one
        yield from kinds(one)


def test_a_line_each(results: list[Shown]) -> None:
    for one in results:
        line = repr(one)
        assert line.isprintable() and len(line) < 260, line
        assert line.startswith(f"<{type(one).__name__} ") and line.endswith(">")
    missing = {kind.__name__ for kind in kinds(Shown)} - {type(one).__name__ for one in results}
    assert missing <= {"CellRun", "Plan"}, "a probe is one, and every plan"


def test_what_a_line_says(scores: Scores, results: list[Shown]) -> None:
    best = scores.roles[scores.target or ""].figures["projection"]
    line = repr(scores)
    for words in (f"target={scores.target}", f"projection={best:.4g}", "roles=8", "vectors=16"):
        assert words in line
    assert repr(replace(scores, target=None)).startswith("<Scores target=None projection=None")
    far = replace(scores, post=Identity("/a" * 40 + "/my run", "0"))
    assert repr(far).endswith("/my run'>") and "post='..." in repr(far)
    assert "best=f1:0.1235 last=-" in repr(results[3])
    assert "targets=projection:v,magnitude:q,fisher:v" in repr(results[5])


class Cells(HTMLParser):
    """Tags that are open, and each table's cells, as a browser would have them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.cells: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        self.seen.add(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def test_the_table_in_a_notebook(scores: Scores, results: list[Shown]) -> None:
    for number, one in enumerate(results):
        text = one._repr_html_()
        assert (text is None) == (number >= 19), type(one)
        if text is None:
            continue
        page = Cells(text)
        assert page.open == [] and "script" not in page.seen and "\x1b" not in text
        assert {"div", "style"} < page.seen
    [table] = [b for b in scores_document([scores]).blocks if isinstance(b, Table)]
    wanted = [*table.headings, *(cell for row, _ in table.rows() for cell in row)]
    assert Cells(scores._repr_html_() or "").cells == wanted
    raw = replace(scores, roles={NASTY: scores.roles["v"]}, target=NASTY)
    first = replace(found := selection(), targets={}, groups=(
        replace(found.groups[0], methods={
            name: replace(one, target=None, margin=None, roles={NASTY: one.roles["v"]})
            for name, one in found.groups[0].methods.items()
        }, verified={}),
    ))  # fmt: skip
    for one in (raw, first):
        page = Cells(one._repr_html_() or "")
        assert printable(NASTY) in page.cells and "script" not in page.seen


def test_scores_draw_themselves(scores: Scores, tmp_path: Path) -> None:
    drawn = scores.plot()
    assert drawn._repr_png_().startswith(b"\x89PNG") and len(repr(drawn)) < 40
    path = tmp_path / "scores.svg"
    assert scores.plot(path) == path and b">layer</text>" in path.read_bytes()
    with pytest.raises(beftkit.BeftError, match=r"\.png"):
        scores.plot(tmp_path / "scores.gif")


FUNCTIONS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "train": (TrainSettings, ()), "evaluate": (EvaluateSettings, ()),
    "fisher": (FisherSettings, ()), "fisher_all": (FisherSettings, ()),
    "select": (SelectSettings, SelectSettings.CELLWISE), "load": (PredictSettings, ()),
    "predict": (PredictSettings, ()), "export": (ExportSettings, ()),
    "merge": (MergeSettings, ("model",)),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_help_says_what_can_be_set(name: str) -> None:
    settings, left_out = FUNCTIONS[name]
    function = getattr(beftkit, name)
    assert function is getattr(beftkit, name) and function.__name__ == name
    text = pydoc.render_doc(function, renderer=pydoc.plaintext)
    assert "<function" not in text and " at 0x" not in text
    words = " ".join(text.split())
    parameters = inspect.signature(function).parameters
    assert not any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    doc = inspect.getdoc(function) or ""
    given = doc.partition("Settings:\n")[2]
    assert doc.startswith(
        ("Fine-tune", "Evaluate", "Empirical", "The Fisher", "Choose", "Load", "Answer", "Merge")
    )
    for key, field in settings.model_fields.items():
        if key in left_out and f"  {key}: " not in doc:
            assert key not in parameters
            continue
        assert key in parameters
        if f"{key} (" in given:
            assert parameters[key].default == field.default
            assert parameters[key].annotation == field.annotation
            assert " ".join((field.description or "").split()) in words
        else:
            assert f"  {key}: " in doc, "it is among the function's own"


def test_a_door_that_opens_at_once(tmp_path: Path) -> None:
    code = "import beftkit, sys, json; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert loaded & {"pydantic", "torch", "numpy", "rich", "typer", "transformers"} == set()
    assert {name for name in json.loads(done.stdout) if name.startswith("beftkit")} <= {
        "beftkit", "beftkit.shown",
    }  # fmt: skip
