"""How long it will take: what is timed, what is made of it, and that nothing of it stays."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from beftkit.errors import UsageError
from beftkit.present.timing import timing_document
from beftkit.runs import time_fisher, time_run
from beftkit.runs.pace import Measured, Pace, Stopwatch, mean_width, run_pace
from beftkit.runs.prepare import prepare
from beftkit.runs.timing import filled, run_time
from beftkit.selection import plan_select, time_auto, time_select
from beftkit.settings.fisher import FisherSettings
from beftkit.settings.resolve import resolve, resolve_select, resolve_train, select_for_run
from beftkit.tasks import plan
from beftkit.training import stepper
from beftkit.training.course import Course
from tests.command import Beftkit, tree

OWN: dict[str, Any] = {"model": "base", "train_file": "train.jsonl", "device": "cpu",
                       "validation_file": "dev.jsonl"}  # fmt: skip
QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 8, "eval_batch_size": 8}


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of examples of each update that is made."""
    made: list[int] = []
    plain = stepper.EagerStepper.step

    def step(self: Any, window: Any) -> Any:
        made.append(sum(map(len, window)))
        return plain(self, window)

    monkeypatch.setattr(stepper.EagerStepper, "step", step)
    return made


def test_two_updates_and_one_to_warm_up(workplace: Path, updates: list[int]) -> None:
    before = tree(workplace)
    found = time_run(resolve_train(None, {**OWN, **QUICK, "seeds": (3, 4), "accumulation": 2}))
    assert updates == [16, 16, 16] and tree(workplace) == before
    assert [run.name for run in found.runs] == ["seed 3", "seed 4"]
    (pace,) = found.paces
    for run in found.runs:
        assert (run.steps, run.evaluations) == (12, 3)
        assert run.step_seconds == pytest.approx(12 * pace.step_seconds)
        assert run.evaluation_seconds == pytest.approx(3 * 4 * (pace.batch_seconds or 0))
    assert found.seconds == pytest.approx(sum(run.seconds for run in found.runs)) and pace.what
    assert found.peak_of == "process" and 1e7 < (found.peak_bytes or 0) < 1e11
    assert json.loads(json.dumps(found.to_dict()))["seconds"] == found.seconds


def test_what_trained_is_as_it_was(workplace: Path) -> None:
    s = resolve_train(None, {**OWN, **QUICK, "bias": "all", "precision": "bf16", "lr": 1.0})
    ready = prepare(s, 0)
    before = {name: value.clone() for name, value in ready.model.state_dict().items()}
    s = filled(ready, s)
    biases = [name for name in before if name.endswith("bias")]
    seen: list[bool] = []
    # In between they did move.
    handle = ready.model.register_forward_pre_hook(
        lambda model, _: seen.append(
            all(torch.equal(model.state_dict()[name], before[name]) for name in biases)
        )
    )
    run_pace(ready, s, "bias all")
    handle.remove()
    after = ready.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in biases)
    assert torch.equal(after["classifier.weight"], before["classifier.weight"].to(torch.float32))
    assert seen[0] and not all(seen)


def test_fewer_examples_than_a_batch(workplace: Path, updates: list[int]) -> None:
    found = time_run(resolve_train(None, {**OWN, "train_size": 3, "epochs": 2}))
    assert updates == [3, 3, 3] and found.runs[0].steps == 2
    nothing = {"bias": "none", "freeze_head": True, "validation_file": None}
    found = time_run(resolve_train(None, {**OWN, **QUICK, **nothing}))
    assert found.runs[0].evaluations == 0 and found.paces[0].batch_seconds is None


def test_rows_are_as_long_as_on_average(workplace: Path) -> None:
    ready = prepare(resolve_train(None, {**OWN, **QUICK}), 0)
    train = ready.train
    batches = plan(train.lengths, 8, seed=0, epoch=0)
    widths = [train.batch(batch).inputs["input_ids"].shape for batch in batches]
    mean = sum(rows * width for rows, width in widths) / len(train)
    assert mean_width(train, batches) == pytest.approx(mean)


def test_some_examples_of_many(workplace: Path) -> None:
    train = prepare(resolve_train(None, {**OWN, **QUICK}), 0).train
    chosen = torch.tensor([7, 3, 50])
    part = train.take(chosen)
    assert len(part) == 3 and part.lengths.tolist() == train.lengths[chosen].tolist()
    theirs, ours = train.batch(chosen), part.batch(torch.arange(3))
    assert theirs.inputs.keys() == ours.inputs.keys()
    assert all(torch.equal(theirs.inputs[key], ours.inputs[key]) for key in ours.inputs)
    assert torch.equal(theirs.targets, ours.targets)


def clock(*times: float) -> Callable[[], float]:
    left = iter(times)
    return lambda: next(left)


def test_a_stopwatch_takes_the_mean() -> None:
    watch = Stopwatch(torch.device("cpu"), clock(1, 4, 6, 8))
    watch.started("x", 3, 0)
    for _ in range(3):
        watch.advanced(1)
    assert watch.seconds_a_step == pytest.approx(7 / 3)
    assert watch.seconds_between == 2  # what came before the first step is left out


def test_the_sum(workplace: Path) -> None:
    run = run_time("x", Course(10, 40, 4), Measured(Pace("v", 0.5, 0.25), 6, 9.0), loading=3.0)
    assert (run.step_seconds, run.evaluation_seconds, run.seconds) == (20.0, 6.0, 29.0)
    run = run_time("x", Course(10, 40, 4), Measured(Pace("v", 0.5), 0, 9.0), loading=3.0)
    assert (run.evaluations, run.seconds) == (0, 23.0)


def test_a_selection_is_timed_kind_by_kind(workplace: Path, updates: list[int]) -> None:
    before = tree(workplace)
    given = {**OWN, "lrs": (1e-2, 1e-3), "epochs": (1, 2), "verify": True, "batch_size": 8,
             "candidates": ("v",)}  # fmt: skip
    settings = resolve_select(None, given)
    found = time_select(settings)
    assert tree(workplace) == before
    assert [pace.what for pace in found.paces] == ["probe", "none", "v", "Fisher"]
    assert len(updates) == 3 * 3
    planned = plan_select(settings)
    counted = {f"{c.name}, {run}": c.runs[run] for c in planned.cells for run in c.runs}
    for run in found.runs:
        course = counted.get(run.name)
        assert run.steps == (8 if course is None else course.updates), run.name
    assert len(found.runs) == 4 * 4 and len(counted) == 4 * 3


def test_a_selection_is_timed_in_one_process(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="in one process"):
        time_select(resolve_select(None, OWN))


def test_the_documents_say_how(workplace: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text[text.index("## Before the run") :], re.S)[0]
    given = '{"model": "bert-base-cased", "task": "rte", "regime": "low"}'
    assert given in code
    names: dict[str, Any] = {"mine": {**OWN, **QUICK}}
    exec(code.replace(given, "mine"), names)
    assert names["plan_run"](names["settings"]).course.updates == 24


@pytest.mark.parametrize("variant", ["exact", "batch-mean"])
def test_a_measurement(workplace: Path, variant: str) -> None:
    given = {"model": "base", "train_file": "train.jsonl", "device": "cpu", "variant": variant,
             "batch_size": 7, "head_seeds": (0, 1)}  # fmt: skip
    found = time_fisher(resolve(FisherSettings, None, given))
    assert [(run.name, run.steps) for run in found.runs] == [("head seed 0", 9), ("head seed 1", 9)]
    assert found.paces[0].step_seconds > 0 and found.command == "fisher"


def test_the_command(workplace: Path, beftkit: Beftkit) -> None:
    words = ("--train-file", "train.jsonl", "--device", "cpu", "--time")
    for command in ("train", "select", "fisher"):
        ran = beftkit(command, "base", *words)
        assert ran.code == 0 and ran.err == "", ran
        assert ran.out.startswith(f"{command} base on train: about ")
        assert "on cpu, fp32" in ran.out and "memory of the process" in ran.out
    document = json.loads(beftkit("train", "base", *words, "--format", "json").out)
    assert document["command"] == "train" and document["runs"][0]["steps"] == 64


def test_a_bias_that_is_chosen_first(workplace: Path, beftkit: Beftkit) -> None:
    """The selection's runs and then the target's, of which one candidate stands for all."""
    s = resolve_train(None, {**OWN, **QUICK, "bias": "auto", "seeds": (0, 1)})
    before = tree(workplace)
    found = time_auto(s)
    wanted = time_select(select_for_run(s)).runs
    own = [(run.name, run.what, run.steps, run.evaluations) for run in found.runs]
    assert own[:-2] == [(run.name, run.what, run.steps, run.evaluations) for run in wanted]
    assert [name for name, *_ in own[-2:]] == ["seed 0", "seed 1"] and len(own) == 6
    assert "v was timed in its place, of q, k, v" in found.notes[0] and tree(workplace) == before
    assert found.seconds == pytest.approx(sum(run.seconds for run in found.runs))
    words = ("--train-file", "train.jsonl", "--device", "cpu", "--bias", "auto")
    ran = beftkit("train", "base", *words, "--time")
    assert ran.code == 0 and "train base on train: about" in ran.out and "probe" in ran.out


def test_a_plan_of_a_bias_that_is_chosen_first(workplace: Path, beftkit: Beftkit) -> None:
    words = ("train", "base", "--train-file", "train.jsonl", "--validation-file", "dev.jsonl",
             "--device", "cpu", "--epochs", "3", "--batch-size", "8", "--lr", "1e-2")  # fmt: skip
    before = tree(workplace)
    ran = beftkit(*words, "--bias", "auto", "-o", "out", "--dry-run", "--format", "json")
    assert ran.code == 0 and tree(workplace) == before
    found = json.loads(ran.out)
    alone = json.loads(beftkit(*words, "--bias", "v", "--dry-run", "--format", "json").out)
    probe = json.loads(beftkit(*words, "--bias", "all", "--dry-run", "--format", "json").out)
    assert found["settings"]["bias"] == "auto"
    assert (found["scalars"], found["course"]) == (alone["scalars"], alone["course"])
    said = f"({probe['scalars']:,} scalars, {probe['course']['updates']} updates and 8 batches"
    assert (
        said in found["notes"][0]
        and "in out/select) and chooses among q, k, v" in found["notes"][0]
    )
    shown = beftkit(*words, "--bias", "auto", "--dry-run").out
    assert "bias auto: a plan, nothing is trained" in shown and "shown for v" in shown
    # It is what then comes: the probe's updates, and those of what trains.
    ran = beftkit(*words, "--bias", "auto", "-o", "out", "--format", "json", "-q")
    assert ran.code == 0, ran
    done = json.loads(Path("out/select/select.json").read_text())
    assert done["cells"][0]["runs"]["probe"]["steps"] == probe["course"]["updates"]
    assert json.loads(ran.out)["runs"][0]["steps"] == found["course"]["updates"]
    assert json.loads(ran.out)["scalars"] == found["scalars"]


def test_steps_are_timed_eagerly_and_that_is_said(workplace: Path, updates: list[int]) -> None:
    """Two updates would be recordings and no replays; what is said holds at most."""
    for way, count in (("on", 1), ("auto", 0), ("off", 0)):
        found = time_run(resolve_train(None, {**OWN, **QUICK, "bias": "v", "graphs": way}))
        assert len(found.notes) == count and updates, way
        document = str(timing_document(found).blocks[0])
        assert ("timed eagerly" in document) == bool(count)
        updates.clear()
