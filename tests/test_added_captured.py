"""Added biases in captured updates: the same as eager ones; on a GPU with its own graphs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from beftkit.training.captured import CapturedStepper
from beftkit.training.trainer import Trainer
from beftkit.tuning import Tuner, choose
from tests.bias_free import BY_ID
from tests.test_trainer import job, values


def trained(id: str, graphs: str, device: str) -> tuple[torch.Tensor, Trainer]:
    """The values of two epochs of an added q and v, the head beside them."""
    net = BY_ID[id].build(num_labels=2)
    ours = job(net, "head", graphs=graphs, device=device)
    ours.tuner.close()
    tuner = Tuner(net, choose(net, "none", add_bias="q,v"), ours.accelerator.device)
    trainer = Trainer(replace(ours, tuner=tuner, validation={}))
    trainer.run()
    return values(tuner).cpu(), trainer


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("id", ["llama-classes", "modernbert"])
def test_captured_updates_are_eager_ones(id: str, device: str) -> None:
    eager, _ = trained(id, "off", device)
    found, trainer = trained(id, "on", device)
    assert isinstance(trainer.stepper, CapturedStepper)
    assert trainer.stepper.graphs and not trainer.stepper.eager
    torch.testing.assert_close(found, eager, rtol=1e-3, atol=1e-5)
    assert eager.abs().max() > 1e-3
