"""What is shown and told while something goes on: bars, lines, watchers."""

from __future__ import annotations

import io
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import beftkit as api
from beftkit.errors import UsageError
from beftkit.progress import Display, displayed, duration
from beftkit.watching import Inside
from tests.command import Beftkit
from tests.forked import Command, until

DOCS = Path(__file__).parents[1] / "docs" / "training.md"
QUICK: dict[str, Any] = {
    "train_file": "train.jsonl", "validation_file": "dev.jsonl", "device": "cpu", "batch_size": 8,
    "lr": 1e-2, "epochs": 1,
}  # fmt: skip


class Told(api.Unwatched):
    """Keeps all it is told, but for the log."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def reached(self, run: int, runs: int, behind: int, steps: int) -> None:
        self.calls.append(("reached", run, runs, behind, steps))

    def started(self, title: str, steps: int, done: int) -> None:
        self.calls.append(("started", title, steps, done))

    def advanced(self, steps: int) -> None:
        self.calls.append(("advanced", steps))

    def inside(self, title: str, done: int, steps: int) -> None:
        self.calls.append(("inside", title, done, steps))

    def all(self, what: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == what]


def fake(stream: Any = None, **options: Any) -> tuple[Display, Any, list[float]]:
    """Lines on a stream, by a clock that stands where it is put."""
    now, out = [0.0], stream or io.StringIO()
    return Display(out, clock=lambda: now[0], **options), out, now


def test_lines_are_few_and_say_what_is_left() -> None:
    watcher, out, now = fake()
    watcher.started("rte, bias v", 10_000, 0)
    for step in range(1, 10_001):
        now[0] = step / 10
        watcher.advanced(1)
    lines = out.getvalue().splitlines()
    assert lines[0] == "rte, bias v: 300 of 10,000, 3 %, 16 min left"
    assert 20 <= len(lines) <= 34
    assert re.fullmatch(r"rte, bias v: 9,\d+ of 10,000, 9\d %, \d+ s left", lines[-1])


def test_a_short_run_says_nothing_and_a_very_long_one_something() -> None:
    watcher, out, now = fake()
    watcher.started("short", 100, 0)
    for step in range(100):
        now[0] = step / 5
        watcher.advanced(1)
    assert out.getvalue() == ""
    watcher, out, now = fake()
    watcher.started("long", 10**9, 0)
    for step in range(3600):
        now[0] = float(step)
        watcher.advanced(1)
    assert len(out.getvalue().splitlines()) == 5


def test_of_a_selection_all_of_it_is_told() -> None:
    watcher, out, now = fake()
    watcher.reached(1, 2, 0, 300)
    watcher.started("rte, bias all", 200, 0)
    for step in range(1, 201):
        now[0] = float(step)
        watcher.advanced(1)
    watcher.inside("evaluation", 1, 5)
    watcher.reached(2, 2, 200, 300)
    watcher.started("rte, bias q", 100, 0)
    now[0] = 240.0
    watcher.advanced(40)
    watcher.inside("evaluation", 3, 5)
    now[0] = 290.0
    watcher.advanced(50)
    lines = out.getvalue().splitlines()
    assert lines[0] == "run 1 of 2: rte, bias all"
    assert lines[1] == "run 1 of 2: 30 of 300, 10 %, 4 min 30 s left; " \
                       "rte, bias all: 30 of 200, 15 %, 2 min 50 s left"  # fmt: skip
    assert "run 2 of 2: rte, bias q (all of it: 1 min 40 s left)" in lines
    assert lines[-1] == "run 2 of 2: 290 of 300, 97 %, 10 s left; rte, bias q: 90 of 100, 90 %, " \
                        "10 s left; evaluation: 3 of 5, 60 %, 33 s left"  # fmt: skip
    watcher.reached(2, 2, 300, 300)  # over: what comes next is no part of it
    watcher.started("rte, bias q", 10, 0)
    assert out.getvalue().splitlines() == lines


def test_steps_that_a_run_had_before_do_not_count_for_its_speed() -> None:
    watcher, out, now = fake()
    watcher.started("taken up", 1000, 900)
    now[0] = 40.0
    watcher.advanced(40)
    assert out.getvalue() == "taken up: 940 of 1,000, 94 %, 1 min 00 s left\n"


def test_quiet_says_nothing() -> None:
    watcher, out, now = fake(quiet=True)
    watcher.started("quiet", 10, 0)
    now[0] = 1e6
    watcher.advanced(5)
    watcher.note("a note")
    watcher.logged({"step": 1, "metrics": {"accuracy": 1.0}})
    assert out.getvalue() == ""


def test_bars_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    watcher, out, now = fake(Terminal())
    watcher.reached(1, 3, 0, 60)
    watcher.started("[red]own\x1b[2J, bias v", 20, 0)  # a name out of a file
    now[0] = 10.0
    watcher.advanced(10)
    watcher.inside("evaluation", 1, 4)
    now[0] = 12.0
    watcher.inside("evaluation", 2, 4)
    watcher.note("a note")
    print("a result")
    assert capsys.readouterr().out == "a result\n"
    watcher._bars.refresh()
    text = out.getvalue()
    watcher.close()
    assert "run 1 of 3" in text and "[red]own?[2J, bias v" in text and "\x1b[2J" not in text
    assert "10 of 20" in text and "2 of 4" in text and "a note" in text
    assert "1 min 00 s" in text  # the whole: 50 of 60 are left, and 10 took 12 seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01, "0 s"), (3.25, "3.2 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (640, "11 min"),
     (7499, "2 h 05 min")],
)  # fmt: skip
def test_times_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_watchers_are_told(workplace: Path) -> None:
    told = Told()
    api.train("base", **QUICK, bias="v", seeds=(0, 1), output="out", watcher=told)
    assert told.all("reached") == [(1, 2, 0, 16), (2, 2, 8, 16)]
    assert told.all("started") == [(f"train, seed {seed}, bias v", 8, 0) for seed in (0, 1)]
    assert told.all("advanced") == 16 * [(1,)]  # the evaluations' batches are none of its steps
    assert told.all("inside") == 2 * [("evaluation", 0, 1), ("evaluation", 1, 1)]

    told = Told()
    how = {"validation_file": "dev.jsonl", "device": "cpu", "batch_size": 8}
    plain = api.evaluate(adapter="out/seed-0/adapter", **how)
    found = api.evaluate(adapter="out/seed-0/adapter", **how, watcher=told)
    assert found.evaluation.metrics == plain.evaluation.metrics
    assert found.evaluation.loss == plain.evaluation.loss
    assert told.all("started") == [("evaluation", 4, 0)] and len(told.all("advanced")) == 4

    told = Told()
    data: dict[str, Any] = {"train_file": "train.jsonl", "device": "cpu"}
    api.fisher_all("base", **data, head_seeds=(0, 1), watcher=told)
    assert told.all("reached") == [(1, 2, 0, 8), (2, 2, 4, 8)]
    assert told.all("started") == 2 * [("Fisher", 4, 0)] and len(told.all("advanced")) == 8
    told = Told()
    api.fisher("base", **data, variant="batch-mean", watcher=told)
    assert told.all("started") == [("Fisher", 8, 0)] and len(told.all("advanced")) == 8


def test_a_selection_tells_of_all_its_runs(workplace: Path) -> None:
    told = Told()
    given = {**QUICK, "epochs": (1, 2), "lr": None, "lrs": (1e-2,), "probe_steps": 3}
    api.select("base", output="out", **given, watcher=told)
    # two probes of 3 updates, after each of which 8 Fisher batches come
    assert told.all("reached") == [(1, 2, 0, 22), (2, 2, 11, 22), (2, 2, 22, 22)]
    assert told.all("started")[:2] == [("train, bias all", 3, 0), ("Fisher", 8, 0)]
    assert len(told.all("advanced")) == 22
    told = Told()
    api.select("base", output="out", resume=True, watcher=told)
    assert told.all("advanced") == [] and told.all("reached") == [(2, 2, 22, 22)]


def test_progress_from_python(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {**QUICK, "bias": "v"}
    api.train("base", **given, output="silent")
    api.evaluate(adapter="silent/adapter", validation_file="dev.jsonl", device="cpu")
    assert capsys.readouterr() == ("", "")
    api.train("base", **given, output="loud", progress=True)
    said = capsys.readouterr()
    assert "step 8, epoch 1: loss" in said.err and said.out == ""
    api.select("base", output="s", **QUICK | {"lr": None}, fisher=False, progress=True)
    assert "run 1 of 1: train, bias all" in capsys.readouterr().err
    with pytest.raises(UsageError, match="progress and watcher were both given"):
        api.evaluate("base", validation_file="dev.jsonl", progress=True, watcher=Told())


def test_the_first_of_several_processes_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank, said in (("0", "here\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        with displayed(True) as watcher:
            watcher.note("here")
        assert capsys.readouterr().err == said


def test_work_inside_a_run_is_no_step_of_it() -> None:
    told = Told()
    inside = Inside(told)
    inside.started("evaluation", 2, 0)
    inside.advanced(1)
    inside.advanced(1)
    assert told.calls == [("inside", "evaluation", n, 2) for n in range(3)]


def test_the_watcher_in_the_documents(workplace: Path) -> None:
    text = DOCS.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text[text.index("## Looking on") :], re.S)[:1]
    given = '"bert-base-cased", task="rte", regime="low", '
    assert given in code
    names: dict[str, Any] = {"more": {**QUICK, "epochs": 3}}
    exec(code.replace(given, '"base", **more, '), names)
    losses = names["watcher"].losses
    assert len(losses) == 3 and all(isinstance(one, float) for one in losses)


def patient() -> None:
    """Let a batch take its time, and say so."""
    import time

    from beftkit.objectives.heads import HeadObjective

    # A shell starts what runs in its background with Ctrl-C ignored, and tests may be run there.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def slow(*_: object) -> object:
        print("a batch", file=sys.stderr, flush=True)
        time.sleep(60)
        return None

    HeadObjective.logits = slow  # type: ignore[method-assign, assignment]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "fisher"])
def test_ctrl_c_ends_what_leaves_nothing_behind(workplace: Path, command: str) -> None:
    if command == "evaluate":
        api.train("base", **QUICK, bias="v", output="run")
        words = ["evaluate", "--adapter", "run/adapter", "--validation-file", "dev.jsonl"]
    else:
        words = ["fisher", "base", "--train-file", "train.jsonl"]
    before = {path.name for path in workplace.iterdir()}
    ran = Command(workplace, [*words, "--device", "cpu", "-o", "found.txt"], before=patient)
    assert until(lambda: "a batch" in ran.said, ran), ran.said
    ran.send(signal.SIGINT)
    assert ran.wait(20) == 130
    assert ran.said == "a batch\n" and ran.out.read_text() == ""
    left = {path.name for path in workplace.iterdir()} - before
    assert left == {"run.out", "run.err"}


def test_the_command_shows_or_is_quiet(workplace: Path, beftkit: Beftkit) -> None:
    words = ("select", "base", "--train-file", "train.jsonl", "--epochs", "1", "--no-fisher",
             "--device", "cpu", "--batch-size", "8")  # fmt: skip
    assert "run 1 of 1: train, bias all" in beftkit(*words, "-o", "one").err
    assert beftkit(*words, "-o", "two", "-q").err == ""
