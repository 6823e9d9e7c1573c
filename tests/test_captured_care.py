"""What a captured run must not meet unseen: Ctrl-C while it records, lots of the host, a LoRA."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from beftkit.training.captured import CapturedStepper
from beftkit.training.trainer import Trainer
from beftkit.tuning import LoraTuner, choose_lora
from tests.graphs_run import Told
from tests.test_trainer import job, model, values


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
