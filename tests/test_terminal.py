"""Tables on terminals of any width: whole columns go and are named; elsewhere all is there."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from rich.cells import cell_len

import beftkit as package
from beftkit.app.common import Format, show
from beftkit.present.demo import demo_document
from beftkit.present.document import Column, Document, Lines, Table, numbers, texts
from beftkit.present.evaluation import evaluation_document
from beftkit.present.fisher import fisher_document
from beftkit.present.inspection import inspection_document
from beftkit.present.predictions import predictions_document
from beftkit.present.scores import scores_document
from beftkit.present.selection import selection_document
from beftkit.present.terminal import fitted, terminal_text
from beftkit.present.training import train_document
from beftkit.runs import EvaluationResult, PredictionResult
from beftkit.runs.results import Run, TrainResult
from beftkit.scores import FisherFacts, RoleScore, Scores
from beftkit.settings import TrainSettings
from beftkit.training.evaluation import Evaluated, Evaluation
from tests.builders import write_model
from tests.command import Beftkit
from tests.selections import ROLES, selection

WIDTHS = (60, 80, 120)
METRICS = ("accuracy", "accuracy_mismatched", "f1_mismatched", "./metrics/of/our_own.py")


@contextmanager
def terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Standard output on a terminal of that many columns; gives what it was shown."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    said: list[bytes] = []

    def listen() -> None:
        try:
            while data := os.read(master, 4096):
                said.append(data)
        except OSError:  # the last one has closed it
            pass

    listener = threading.Thread(target=listen)
    listener.start()
    screen = os.fdopen(slave, "w", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        patch.setenv("TERM", "xterm-256color")
        patch.setattr(sys, "stdout", screen)
        patch.setattr(sys, "__stdout__", screen)

        def ended() -> str:
            screen.close()
            listener.join()
            text = b"".join(said).decode().replace("\r\n", "\n")
            return re.sub(r"\x1b\[[\d;]*m", "", text)

        yield ended
    os.close(master)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    folder = tmp_path_factory.mktemp("scored")
    return package.score(write_model(folder / "pre", seed=1), write_model(folder / "post", seed=2))


@pytest.fixture(scope="module")
def documents(scored: Scores) -> dict[str, Document]:
    """One of each command's, each with a wide table."""

    def fisher(role: RoleScore) -> RoleScore:
        sites = tuple(replace(s, figures={**s.figures, "fisher": 1.5e-18}) for s in role.sites)
        return replace(role, figures={**role.figures, "fisher": 1.5e-18}, sites=sites)

    roles = {name: fisher(role) for name, role in scored.roles.items()}
    heads = {seed: dict.fromkeys(roles, 2.5e-18 * (1 + int(seed))) for seed in "01"}
    facts = FisherFacts("exact", "mean", "sst2", 1000, by_head_seed=heads)
    measured = replace(scored, roles=roles, method="fisher", settings=facts)
    metrics = {name: 0.8 + n / 7 for n, name in enumerate(METRICS)}
    seen = Evaluated(2105, 1.25, metrics)
    run = Run(0, "out", "adapter", "beft", seen, seen, "last", {"v": 0.5}, 33680, 16.0, False,
              67349, {}, 4210.5, 31.2)  # fmt: skip
    settings = TrainSettings(model="base", task="mnli", lr=1e-3, epochs=16)
    trained = TrainResult("base", "mnli", "v", METRICS[0], 9216, 592130, 108_000_000, settings,
                          (run, replace(run, seed=1)))  # fmt: skip
    evaluated = EvaluationResult(
        "base", "out/adapter", "mnli", Evaluation(metrics, 0.5, 9815, 3.0), {}, (), {}
    )
    found = selection(regimes=("low", "medium"), seeds=(0, 1, 2))
    other = replace(
        scored.post, path=f"{scored.post.path}/a-rather-long-name-of-a-checkpoint-in-words"
    )
    return {
        "score": scores_document([scored]),
        "several": scores_document([scored, replace(scored, post=other)]),
        "inspect": inspection_document(package.inspect(scored.pre.path)),
        "fisher": fisher_document([measured]),
        "train": train_document(trained),
        "evaluate": evaluation_document(evaluated),
        "select": selection_document(found),
        "demo": demo_document(scored, found, "beftkit-demo", (0.5, 0.9, 0.6), 200, 100),
    }


def tables(text: str) -> Iterator[list[str]]:
    """Tables in a text: heading, rule, rows, what was left out."""
    for part in text.split("\n\n"):
        lines = part.splitlines()
        for n, line in enumerate(lines):
            if line.strip() and set(line.strip()) == {"─"}:
                yield lines[n - 1 :]


def numbers_of(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w.])-?\d+\.?\d*(?:e[+-]\d+)?", text))


NAMES = "score several inspect fisher train evaluate select demo".split()


@pytest.mark.parametrize("name", NAMES)
def test_no_number_and_no_role_is_cut(
    name: str, documents: dict[str, Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = documents[name]
    whole = terminal_text(document.blocks, "utf-8", False)
    for width in WIDTHS:
        with terminal(width, monkeypatch) as ended:
            show(document, Format.table)
            text = ended()
        assert "…" not in text and "..." not in text
        found = [*tables(text)]
        assert len(found) == len([*tables(whole)]) > 0
        for lines, wide in zip(found, tables(whole), strict=True):
            assert max(map(cell_len, lines)) <= width, lines
            assert numbers_of("\n".join(lines[2:])) <= numbers_of("\n".join(wide[2:]))
        if name in ("fisher", "select", "demo", "score", "several", "inspect"):
            words = {word for lines in found for line in lines for word in line.split()}
            assert set(ROLES) <= words
        fits = max(map(cell_len, (line for wide in tables(whole) for line in wide))) <= width
        assert not (fits and "left out" in text)
        assert width > 60 or ("left out for width" in text) is (name != "evaluate")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_out_is_named(
    name: str, documents: dict[str, Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    for block in documents[name].blocks:
        if not isinstance(block, Table):
            continue
        names = [column.name or column.heading for column in block.columns]
        for width in WIDTHS:
            shown, left_out = fitted(block, width)
            kept = [column.name or column.heading for column in shown.columns]
            assert sorted([*kept, *left_out]) == sorted(names)
            assert kept[0] == names[0], "what names the rows stays"


def test_the_least_important_go_first(documents: dict[str, Document]) -> None:
    def left(name: str, width: int) -> list[str]:
        table = next(one for one in documents[name].blocks if isinstance(one, Table))
        return fitted(table, width)[1]

    train = [left("train", width) for width in (280, 235, 170, 100, 30)]
    assert train[0] == []
    assert train[1] == ["train s", "examples/s"]
    last = [f"{name} last" for name in METRICS[1:]]
    assert train[2] == [*last, "best at", "steps", "train s", "examples/s"]
    assert (
        set(last) < set(train[3])
        and "accuracy_mismatched best" in train[3]
        and "accuracy last" not in train[3]
    )
    assert "accuracy best" not in train[4] and "accuracy last" in train[4]
    assert left("score", 60)[-1] == "width" and "projection" not in left("score", 60)
    assert left("inspect", 60)[-2:] == ["min", "max"]
    assert left("select", 95)[:2] == ["Fisher", "Fisher rank"], "a score goes with its rank"


def test_a_target_s_row_is_one_line(documents: dict[str, Document]) -> None:
    """Two methods' choice is named in fewer letters before any column goes."""
    table = next(one for one in documents["select"].blocks if isinstance(one, Table))
    body = [list(row) for row in table.body]
    body[0][-1], body[1][-1], body[2][-1] = "<- projection, Fisher", "<- magnitude", ""
    table = replace(table, body=body)
    few = [row[-1] for row in fitted(table, 80)[0].body]
    assert few[:3] == ["<- proj,Fisher", "<- magnitude", ""], "no more than is needed"
    assert fitted(table, 300)[0].body[0][-1] == "<- projection, Fisher"
    for width in (60, 80, 120):
        shown = fitted(table, width)[0]
        text = terminal_text([shown], "utf-8", False)
        assert len(text.splitlines()) == 2 + len(ROLES), text
        assert max(map(cell_len, text.splitlines())) <= width


def test_answers_stay_where_texts_fold() -> None:
    row = {"text": "word " * 9, "label": "good", "probability": 0.75, "probability_good": 0.75}
    columns = ("label", "probability", "probability_good")
    found = PredictionResult("m", None, "the texts", None, ("good",), columns, ("text",), 1, {},
                             0, 0, 0, 0.1, (), (row,))  # fmt: skip
    table = next(one for one in predictions_document(found).blocks if isinstance(one, Table))
    shown, left_out = fitted(table, 40)
    assert left_out == ["probability_good"] and shown.headings == ["text", "label", "probability"]


def test_a_file_or_a_pipe_has_all_of_it(
    documents: dict[str, Document], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    for name, document in documents.items():
        pipe = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        monkeypatch.setattr(sys, "stdout", pipe)
        show(document, Format.table)
        pipe.seek(0)
        text = pipe.read()
        assert "left out" not in text and "…" not in text
        for block in document.blocks:
            for row in block.body if isinstance(block, Table) else ():
                assert any(all(("-" if cell is None else cell) in line for cell in row) for line in
                           text.splitlines()), row  # fmt: skip
        show(document, Format.table, tmp_path / name)
        assert (tmp_path / name).read_text("utf-8") == text


def test_commands_on_a_terminal(
    folder: Path, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (["score", "pre", "post"], ["inspect", "pre"]):
        with terminal(60, monkeypatch) as ended:
            assert beftkit(*command).code == 0
            text = ended()
        [lines] = tables(text)
        assert max(map(cell_len, lines)) <= 60
        assert "left out for width: " in text


def test_columns_of_the_environment_win_on_a_terminal(
    documents: dict[str, Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(60, monkeypatch) as ended:
        monkeypatch.setenv("COLUMNS", "200")
        show(documents["score"], Format.table)
        assert "left out" not in ended()


TEXT = some.text("ab /", min_size=0, max_size=40)
CELL = some.sampled_from(["1", "0.1234", "12.5e-10 ±1e-12", "‖v‖", "中文"])


@settings(max_examples=40)
@given(some.data(), some.integers(20, 130))
def test_any_table_fits(data: some.DataObject, room: int) -> None:
    columns = [
        *texts("role"),
        *data.draw(
            some.lists(
                some.builds(
                    Column,
                    some.sampled_from(["rank", "accuracy_mismatched last", "a"]),
                    spare=some.integers(0, 3),
                ),
                max_size=8,
            )
        ),
        *texts("why", folds=True),
    ]
    body = [["v", *(data.draw(CELL) for _ in columns[2:]), data.draw(TEXT)] for _ in range(3)]
    table = Table(columns, body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(room))
        text = re.sub(r"\x1b\[[\d;]*m", "", terminal_text([table], "utf-8", True))
    assert max(map(cell_len, text.splitlines())) <= room
    shown, left_out = fitted(table, room)
    assert bool(left_out) is ("left out" in text)
    for row in shown.body:
        for cell in (row if len(shown.columns) == 1 or shown.columns[-1].heading != "why"
                     else row[:-1]):  # fmt: skip
            assert str(cell) in text
    spares = {column.spare for column in shown.columns[1:]}
    gone = [column.spare for column in columns if column not in shown.columns]
    assert not gone or max(spares, default=0) <= max(gone)


def test_a_terminal_that_says_nothing_of_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table([*texts("role"), *numbers("x" * 70, "y")], [["v", "1", "2"]])
    with terminal(0, monkeypatch) as ended:
        show(Document({}, [], [Lines(["a sentence " * 12]), table]), Format.table)
        text = ended()
    assert "left out for width: y" in " ".join(text.split()), "80 columns are taken for granted"
    assert ("a sentence " * 12).rstrip() in text, "a sentence is the terminal's to break"
