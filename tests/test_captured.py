"""Captured updates on the CPU, with the stand-in that records and replays the same calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from beftkit.errors import Refusal
from beftkit.tasks import Encoded, plan
from beftkit.tasks.resident import Resident, rows_each
from beftkit.tasks.widths import Widths
from beftkit.training import captured
from beftkit.training.captured import CapturedStepper
from beftkit.training.stepper import EagerStepper
from beftkit.training.trainer import Trainer
from beftkit.tuning import checkpoint_activations
from tests.graphs_run import Told
from tests.test_trainer import encoded, job, model, values

HARD = {"schedule": "linear", "warmup": 3, "max_grad_norm": 0.5, "weight_decay": 0.1}


def ran(graphs: str, net: Any = None, **more: Any) -> tuple[Trainer, Told]:
    """A run to its end, from one seed; what it said."""
    told = Told()
    trainer = Trainer(job(model() if net is None else net, graphs=graphs, watcher=told, **more))
    torch.manual_seed(3)
    trainer.run()
    return trainer, told


def close(one: Trainer, other: Trainer) -> float:
    """How far apart two runs' values are, as a share of how far they went."""
    mine, others = values(one.job.tuner), values(other.job.tuner)
    start = values(job(model()).tuner)
    if len(start) != len(mine):
        start = torch.zeros_like(mine)
    return float((mine - others).norm() / (others - start).norm())


@pytest.mark.parametrize("bias", ["v", "full", "rand:40"])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_it_is_the_eager_run(accumulation: int, bias: str) -> None:
    """50 examples in batches of 8: the last is filled with rows of weight 0."""
    how: dict[str, Any] = {"accumulation": accumulation, "bias": bias, "log_steps": 1, **HARD}
    how["track_steps"] = 2
    (one, told), (other, before) = ran("on", **how), ran("off", **how)
    assert isinstance(one.stepper, CapturedStepper) and isinstance(other.stepper, EagerStepper)
    assert not told.notes and not one.stepper.eager and one.stepper.graphs
    assert close(one, other) < 1e-4
    for mine, theirs in zip(told.records, before.records, strict=True):
        for key in ("loss", "grad_norm", "lr"):
            if key in mine:
                assert mine[key] == pytest.approx(theirs[key], rel=2e-4), (key, mine["step"])
        assert {*mine.get("scores", ())} == {*theirs.get("scores", ())}
        for role, score in mine.get("scores", {}).items():
            assert score == pytest.approx(theirs["scores"][role], rel=1e-3, abs=1e-5), mine["step"]


@pytest.mark.parametrize("way", ["bf16", "bfloat16 model", "checkpointing"])
def test_half_precision_and_checkpointing(way: str) -> None:
    def net() -> Any:
        made = model()
        if way == "checkpointing":
            checkpoint_activations(made)
        return made.to(torch.bfloat16) if way == "bfloat16 model" else made

    how: dict[str, Any] = {"gradient_checkpointing": way == "checkpointing"}
    how["precision"] = "fp32" if way == "checkpointing" else "bf16"
    (one, told), (other, _) = (ran(graphs, net(), bias="q,v", **how) for graphs in ("on", "off"))
    assert not told.notes and len(one.stepper.graphs) > 1  # type: ignore[attr-defined]
    assert close(one, other) < (1e-4 if way == "checkpointing" else 3e-2)


def test_auto_leaves_the_cpu_as_it_is() -> None:
    (one, _), (other, _) = ran("auto"), ran("off")
    assert isinstance(one.stepper, EagerStepper)
    assert torch.equal(values(one.job.tuner), values(other.job.tuner))


def test_widths_are_rounded_and_rows_filled() -> None:
    """What goes into the model: rows fixed, widths of those that were chosen."""
    net, seen = model(), set()

    def look(module: Any, given: Any, named: Any) -> None:
        if module.training:
            seen.add(tuple(named["input_ids"].shape))

    net.register_forward_pre_hook(look, with_kwargs=True)
    trainer, _ = ran("on", net)
    assert isinstance(trainer.stepper, CapturedStepper)
    widths = trainer.stepper.widths
    assert {rows for rows, _ in seen} == {8}
    assert {width for _, width in seen} == {*widths.chosen} and widths.added < 0.1


def test_same_seed_same_bits_with_dropout() -> None:
    found = [values(ran("on", model(dropout=0.2))[0].job.tuner) for _ in range(2)]
    assert torch.equal(*found)
    eager = values(ran("off", model(dropout=0.2))[0].job.tuner)
    assert not torch.equal(found[0], eager)


@pytest.mark.parametrize("bias", ["v", "rand:40"])
def test_recording_leaves_no_trace(bias: str) -> None:
    """Warm-up and recording move values, moments, sums and generators; all is put back."""
    trainer = Trainer(job(model(dropout=0.2), bias, graphs="on"))
    stepper = trainer.stepper
    assert isinstance(stepper, CapturedStepper)
    net = trainer.job.model.train()
    stepper.planned(plan(trainer.job.train.lengths, 8, seed=0, epoch=0), 0)
    before = [tensor.clone() for tensor in stepper._moving()]
    # Those clones keep the nodes that gradients are added up by, made on another stream on a GPU.
    node = torch.autograd.graph.get_gradient_edge
    node(stepper.values[0]).node.metadata["kept"] = True
    assert "kept" in node(stepper.values[0]).node.metadata
    parameters = {name: one.detach().clone() for name, one in net.named_parameters()}
    random = torch.get_rng_state()
    stepper._record("update", 9, stepper._update)
    assert ("update", 9) in stepper.graphs
    assert "kept" not in node(stepper.values[0]).node.metadata
    for one, other in zip(stepper._moving(), before, strict=True):
        assert torch.equal(one, other)
    for name, one in net.named_parameters():
        assert torch.equal(one, parameters[name]), name
    assert torch.equal(random, torch.get_rng_state())


def test_what_the_host_waits_for_goes_on_eagerly() -> None:
    """A forward that looks at a value; said once, and from the same state."""

    def waiting(net: Any) -> Any:
        def look(*_: Any) -> None:
            bool(net.classifier.weight.sum() > 0)

        net.register_forward_pre_hook(look)
        return net

    (one, told), (other, _) = ran("on", waiting(model())), ran("off")
    stepper = one.stepper
    assert isinstance(stepper, CapturedStepper)
    assert {*stepper.eager} == {*stepper.widths.chosen}
    assert {*stepper.graphs} <= {("scores", 0)}
    (note,) = (one for one in told.notes if one.startswith("updates"))
    assert "go on eagerly, not captured: _local_scalar_dense" in note
    assert close(one, other) < 1e-5


def test_tensors_kept_by_a_module_are_no_graphs() -> None:
    net = model()

    def keep(module: Any, _: Any, out: Any) -> None:
        module.kept = out[0].detach()

    net.bert.encoder.layer[0].register_forward_hook(keep)
    trainer, told = ran("on", net)
    assert {*trainer.stepper.graphs} <= {("scores", 0)}  # type: ignore[attr-defined]
    assert "keep tensors from one call to the next" in told.notes[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: setattr(one.model.config, "encoder_layerdrop", 0.1), "encoder_layerdrop 0.1"),
        (lambda one: one.model.add_module("n", torch.nn.BatchNorm1d(2)), "over the rows of a b"),
        (lambda one: object.__setattr__(one.train, "by_length", True), "reads padding"),
    ],
)
def test_what_stands_in_the_way_is_said(change: Any, said: str) -> None:
    told = Told()
    ours = job(model(), graphs="on", watcher=told)
    change(ours)
    assert isinstance(Trainer(ours).stepper, EagerStepper)
    assert len(told.notes) == 1 and said in told.notes[0]


def resumed(folder: Path, graphs: str, steps: int | None, before: str | None = None) -> Trainer:
    """A run in a folder, its state saved at each update; begun, or taken up and ended."""
    from dataclasses import replace

    how = {"graphs": graphs, "save_steps": 1}
    ours = replace(job(model(dropout=0.2), bias="q,v", **how), folder=folder)
    trainer = Trainer(ours)
    torch.manual_seed(3)
    if before is not None:
        trainer.resume()
    if steps is not None:
        trainer.total_steps = steps
    trainer.run()
    return trainer


def test_a_run_taken_up_gives_the_same_bits(tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = resumed(tmp_path / "whole", "on", None)
    resumed(tmp_path / "parts", "on", 4)
    torch.randn(5)
    parts = resumed(tmp_path / "parts", "on", None, before="on")
    assert parts.progress.step == whole.progress.step == 14
    assert torch.equal(values(whole.job.tuner), values(parts.job.tuner))


def test_a_run_taken_up_keeps_its_widths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU `--graphs on` chooses others than auto did, which would round otherwise."""
    few = Widths((5, 9), (False, True), 0.01)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(captured, "choose_widths", lambda *_, **__: few)
        whole = resumed(tmp_path / "whole", "on", None)
        resumed(tmp_path / "parts", "on", 4)
    parts = resumed(tmp_path / "parts", "on", None, before="on")
    assert parts.stepper.widths == few  # type: ignore[attr-defined]
    assert torch.equal(values(whole.job.tuner), values(parts.job.tuner))


@pytest.mark.parametrize(("before", "now"), [("on", "auto"), ("off", "on")])
def test_another_mode_is_refused(before: str, now: str, tmp_path: Path) -> None:
    resumed(tmp_path, before, 3)
    with pytest.raises(Refusal, match=f"resume with graphs='{before}'"):
        resumed(tmp_path, now, None, before=before)


def rows_of(count: int, **more: Any) -> Encoded:
    from dataclasses import replace

    return replace(encoded(count, 5), **more)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["plain", "types", "answers", "learnt"])
def test_batches_cut_on_the_device_are_the_same(kind: str, side: str) -> None:
    plain = rows_of(12)
    generator = torch.Generator().manual_seed(1)
    marks = torch.randint(0, 2, plain.ids.shape, generator=generator).to(torch.uint8)
    marks[plain.starts[1:] - 1] = 1
    counts = torch.minimum(plain.row_lengths, torch.tensor(2))
    more: dict[str, Any] = {
        "plain": {},
        "types": {"type_ids": marks, "pad_type_id": 1},
        "answers": {"answers": counts},
        "learnt": {"learnt": marks},
    }[kind]
    ours = rows_of(12, padding_side=side, **more)
    resident = Resident(ours, torch.device("cpu"))
    for examples in (torch.tensor([3, 1, 4]), torch.arange(12)):
        width = resident.width(examples) + 2
        expected = ours.batch(examples, pad_to=width)
        found = resident.batch(examples, width)
        assert {*found.inputs} == {*expected.inputs}
        for name, one in expected.inputs.items():
            other = found.inputs[name]
            if name == "answer_at":  # as many as a row of this width may have
                assert bool((other[:, one.shape[1] :] == -1).all())
                other = other[:, : one.shape[1]]
            assert torch.equal(one, other), name
        assert torch.equal(found.targets, expected.targets)


def test_examples_of_several_rows() -> None:
    from dataclasses import replace

    plain = rows_of(12)
    two = replace(plain, first_row=torch.arange(0, 13, 2), targets=plain.targets[:6])
    resident = Resident(two, torch.device("cpu"))
    examples = torch.tensor([5, 0, 2])
    expected = two.batch(examples, pad_to=9)
    found = resident.batch(examples, 9)
    assert torch.equal(found.inputs["input_ids"], expected.inputs["input_ids"])
    assert found.index is not None and expected.index is not None
    assert torch.equal(found.index, expected.index)
    uneven = replace(plain, first_row=torch.tensor([0, 1, 3, 12]), targets=plain.targets[:3])
    assert rows_each(uneven) is None
    with pytest.raises(ValueError, match="different numbers of rows"):
        Resident(uneven, torch.device("cpu"))


def test_evaluations_are_captured_too() -> None:
    """The same metrics, to rounding; rows of the last batch filled up, and left out again."""
    (one, told), (other, before) = (
        ran(way, eval_batch_size=8, bias="q,v") for way in ("on", "off")
    )
    forwards = one.replays.held["validation"]
    assert forwards.graphs and not forwards.eager and not other.replays.held
    assert {*forwards.graphs} == {*forwards.widths.chosen}
    mine, theirs = ([r for r in seen.records if "metrics" in r] for seen in (told, before))
    assert len(mine) == len(theirs) == 2
    for found, expected in zip(mine, theirs, strict=True):
        assert found["metrics"] == expected["metrics"] and found["examples"] == 31
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_an_evaluation_that_cannot_be_captured_goes_on() -> None:
    net = model()

    def look(module: Any, *_: Any) -> None:
        assert module.training or bool(module.weight.sum() < 1e9)

    net.classifier.register_forward_hook(look)
    (one, told), (other, _) = ran("on", net), ran("off")
    forwards = one.replays.held["validation"]
    assert not forwards.graphs and forwards.eager
    assert [note for note in told.notes if "evaluation goes on eagerly" in note]
    assert one.progress.last is not None and other.progress.last is not None
    assert one.progress.last.metrics == other.progress.last.metrics
