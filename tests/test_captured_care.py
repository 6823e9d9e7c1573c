"""What a captured run must not meet unseen: Ctrl-C while it records, lots of the host, a LoRA."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import beftkit
from beftkit.errors import BeftError
from beftkit.graphs import capture, kept_tensors
from beftkit.tasks import plan, plan_evaluation
from beftkit.tasks.resident import widths_of
from beftkit.training.captured import CapturedStepper
from beftkit.training.evaluation import evaluate_model
from beftkit.training.fitness import hindrance
from beftkit.training.forwards import Forwards, Replays
from beftkit.training.trainer import Trainer
from beftkit.tuning import LoraTuner, choose_lora
from tests.graphs_run import Told
from tests.test_trainer import encoded, job, model, values
from tests.tiny_run import QUICK


def ran(net: Any, graphs: str, **more: Any) -> Trainer:
    """A run to its end, from one seed."""
    trainer = Trainer(job(net, graphs=graphs, watcher=Told(), **more))
    torch.manual_seed(3)
    trainer.run()
    return trainer


@pytest.mark.parametrize("kept", [lambda made: [made], lambda made: {"one": (made,)}])
def test_tensors_kept_in_lists_and_dicts_are_no_graphs(kept: Any) -> None:
    net = model()
    layer = net.bert.encoder.layer[0]
    layer.register_forward_hook(
        lambda module, _, out: setattr(module, "kept", kept(out[0].detach()))
    )
    trainer = ran(net, "on")
    assert {*trainer.stepper.graphs} <= {("scores", 0)}  # type: ignore[attr-defined]
    assert "keep tensors from one call to the next" in trainer.job.watcher.notes[0]  # type: ignore[attr-defined]


def test_a_list_that_holds_itself_is_looked_through() -> None:
    net, kept = torch.nn.Linear(1, 1), torch.zeros(1)
    loop: list[Any] = [kept]
    loop.append({"again": loop})
    net.loop = loop  # type: ignore[assignment]
    [found] = kept_tensors(net).values()
    assert found is kept


def test_what_a_first_call_makes_is_no_hindrance() -> None:
    """As CTRL moves its table of positions to the device, at the first of all calls."""
    net = model()

    def make(module: Any, _: Any, out: Any) -> None:
        if module.training not in vars(module).setdefault("kept", {}):
            module.kept[module.training] = out[0].detach()

    net.bert.encoder.layer[0].register_forward_hook(make)
    trainer = ran(net, "on")
    stepper, forwards = trainer.stepper, trainer.replays.held["validation"]
    assert isinstance(stepper, CapturedStepper) and not trainer.job.watcher.notes  # type: ignore[attr-defined]
    assert not stepper.eager and {*stepper.widths.chosen} <= {width for _, width in stepper.graphs}
    assert not forwards.eager and {*forwards.graphs} == {*forwards.widths.chosen}
    # Graphs read them: they stay, whatever the module does with them later.
    kept = net.bert.encoder.layer[0].kept
    for held, one in ((stepper.held, kept[True]), (forwards.held, kept[False])):
        assert any(other is one for other in held)


def test_lots_drawn_by_numpy_are_no_graphs() -> None:
    """A graph would hold what came; those drawn while that was tried are put back."""

    def draw(module: Any, *_: Any) -> None:
        if module.training:
            np.random.rand()

    ends = []
    for graphs in ("on", "off"):
        net = model()
        net.register_forward_pre_hook(draw)
        np.random.seed(0)
        trainer = ran(net, graphs, epochs=1)
        ends.append(np.random.rand())
        if graphs == "on":
            assert "draws lots on the host" in trainer.job.watcher.notes[0]  # type: ignore[attr-defined]
            assert {*trainer.stepper.graphs} <= {("scores", 0)}  # type: ignore[attr-defined]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("calls", [1, 3, 4])
def test_broken_off_while_it_records(calls: int) -> None:
    """Ctrl-C in a warm-up, the trial, or the recording: all is as before, and it can go on."""
    net = model(dropout=0.2)
    made = job(net, graphs="on", watcher=Told())
    trainer, count = Trainer(made), 0
    stepper = trainer.stepper
    assert isinstance(stepper, CapturedStepper)

    def stop(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == calls:
            raise KeyboardInterrupt

    handle = net.classifier.register_forward_hook(stop)
    torch.manual_seed(3)
    random = torch.get_rng_state()
    before = [tensor.clone() for tensor in stepper._moving()]
    parameters = {name: one.detach().clone() for name, one in net.named_parameters()}
    asked = torch.cuda.is_current_stream_capturing
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert torch.cuda.is_current_stream_capturing is asked and gc.isenabled()
    assert torch.equal(random, torch.get_rng_state()) and not stepper.graphs
    for name, one in net.named_parameters():
        assert torch.equal(one, parameters[name]), name
    for one, other in zip(stepper._moving(), before, strict=True):
        assert torch.equal(one, other)
    handle.remove()
    trainer.run()  # as from a notebook's next cell
    assert torch.equal(values(made.tuner), values(ran(model(dropout=0.2), "on").job.tuner))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_lora_is_captured_too(precision: str) -> None:
    pytest.importorskip("peft")
    found = []
    for graphs in ("on", "off"):
        net, told = model(), Told()
        ours = job(net, "head", graphs=graphs, watcher=told, precision=precision, max_grad_norm=0.5)
        ours.tuner.close()
        tuner = LoraTuner(net, choose_lora(net), torch.device("cpu"), task_type="SEQ_CLS")
        start = values(tuner).clone()
        trainer = Trainer(replace(ours, tuner=tuner))
        trainer.run()
        found.append(values(tuner) - start)
        if graphs == "on":
            stepper = trainer.stepper
            assert isinstance(stepper, CapturedStepper)
            assert stepper.graphs and not stepper.eager and not told.notes
    gap = float((found[0] - found[1]).norm() / found[1].norm())
    assert gap < (1e-3 if precision == "fp32" else 3e-2)


def test_a_bad_update_is_named_as_the_eager_run_names_it() -> None:
    """Found at the end of an epoch, counted where it went bad."""
    said = []
    for graphs in ("on", "off"):
        net = model()
        trainer = Trainer(job(net, graphs=graphs, epochs=1))

        def spoil(module: Any, given: Any, trainer: Trainer = trainer) -> Any:
            # By what is on the device, so that a replay meets it too.
            bad = trainer.stepper.done >= 3 if graphs == "on" else trainer.progress.step >= 3  # type: ignore[attr-defined]  # noqa: B023
            return (given[0] * torch.where(torch.as_tensor(bad), torch.nan, 1.0),)

        net.classifier.register_forward_pre_hook(spoil)
        with pytest.raises(BeftError, match="not finite at update") as error:
            trainer.run()
        said.append(str(error.value))
    assert said[0] == said[1] and "at update 4" in said[0]


def test_captured_passes_compute_in_half_precision() -> None:
    """Autocast stands within what is recorded, in updates and in evaluations."""
    net, seen = model(), set[tuple[bool, torch.dtype]]()
    layer = net.bert.encoder.layer[0].intermediate.dense
    layer.register_forward_hook(lambda module, _, out: seen.add((module.training, out.dtype)))
    trainer = ran(net, "on", precision="bf16")
    assert trainer.replays.held["validation"].graphs and trainer.stepper.graphs  # type: ignore[attr-defined]
    assert seen == {(True, torch.bfloat16), (False, torch.bfloat16)}


def test_the_state_keeps_what_could_not_be_captured() -> None:
    """Else a run taken up would try again, and where that then works, replay what was eager."""
    (one, other) = (Trainer(job(model(), graphs="on")).stepper for _ in range(2))
    assert isinstance(one, CapturedStepper) and isinstance(other, CapturedStepper)
    one.eager = {5, 9}
    other.restore(*one.state())
    assert other.eager == {5, 9}


def test_widths_of_batches() -> None:
    rows = encoded(50, 5)
    for multiple in (None, 8):
        ours = replace(rows, pad_to_multiple_of=multiple)
        batches = plan(ours.lengths, 8, seed=0, epoch=0)
        expected = [ours.batch(batch).inputs["input_ids"].shape[1] for batch in batches]
        assert widths_of(ours, batches) == expected
    assert widths_of(rows, []) == []


def passes(graphs: str, times: int) -> Forwards:
    """Of an evaluation of 31 rows in one batch, as a GPU would have them."""
    made = job(model())
    rows = made.validation["validation"]
    return Forwards(
        Replays(graphs, times, print), made.model, rows, plan_evaluation(rows.lengths, 31),
        made.accelerator, made.objective.evaluated,
    )  # fmt: skip


def test_an_evaluation_is_captured_where_it_pays() -> None:
    """Left to itself: a recording of .1 s pays from 53 replays on, which save 1.9 ms each."""
    assert passes("auto", 1).widths.chosen == passes("auto", 50).widths.chosen == ()
    assert passes("auto", 60).widths.chosen == passes("on", 1).widths.chosen == (9,)


def test_evaluations_of_models_that_read_padding_are_not_captured() -> None:
    made = job(model())
    rows = made.validation["validation"]
    for by_length in (False, True):
        split = {"validation": replace(rows, by_length=by_length)}
        replays = Replays("on", 3, print)
        evaluate_model(
            made.model, split, made.objective, ["accuracy"], made.accelerator, 8, replays=replays
        )
        assert bool(replays.held) != by_length


@pytest.mark.parametrize(
    ("processes", "device", "said"),
    [
        (2, "cpu", "several processes add up their gradients"),
        (1, "mps", "there are no such graphs on mps"),
        (1, "cpu", "examples have different numbers of answers"),
    ],
)
def test_what_no_run_captures(processes: int, device: str, said: str) -> None:
    """Nor do its evaluations: what other processes have a share of is no part of a graph."""
    made = job(model(), graphs="on")
    rows = made.train
    if said.startswith("examples"):
        uneven = torch.tensor([0, 1, 3, *range(5, len(rows) + 1)])
        rows = replace(rows, first_row=uneven, targets=rows.targets[: len(uneven) - 1])
    known: Any = {"num_processes": processes, "device": torch.device(device)}
    other: Any = SimpleNamespace(**known, mixed_precision="no")
    assert hindrance(replace(made, train=rows, accelerator=other)) == said
    replays, batches = Replays("on", 3, print), plan_evaluation(rows.lengths, 8)
    what = made.model, rows, batches, made.objective, other, made.objective.evaluated
    assert replays.of("validation", *what) is None and not replays.held


def test_no_cast_outlives_a_recording(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast around a recording would remember a weight that lies in the graph's memory."""
    outside: list[bool] = []

    def looked(*given: Any, **how: Any) -> Any:
        outside.append(torch.is_autocast_enabled("cpu"))
        return capture(*given, **how)

    for module in ("forwards", "captured"):
        monkeypatch.setattr(f"beftkit.training.{module}.capture", looked)
    data = {"train_file": "train.jsonl", "validation_file": "dev.jsonl"}
    how: dict[str, Any] = {"device": "cpu", "precision": "bf16", "graphs": "on"}
    short = {**QUICK, "epochs": 1, "train_size": 16}
    beftkit.train("base", **data, **short, **how, output="run")
    trained = len(outside)
    assert beftkit.load("run", **how)("good film")
    assert 2 < trained < len(outside) and not any(outside)
