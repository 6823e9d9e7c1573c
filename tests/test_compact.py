"""Prompts whose answers are one token each: a row for each example in training and Fisher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import beftkit as package
from beftkit.gradients import example_squares
from beftkit.objectives import make_objective
from beftkit.objectives.choice import Choice
from beftkit.registry import TASKS
from beftkit.runs.prepare import prepare
from beftkit.settings.train import TrainSettings
from beftkit.tasks import Encoded
from beftkit.tasks.resident import Resident
from tests import saved_states
from tests.causal_models import write_model, write_sst2
from tests.test_choice import LABELS, alone, examples
from tests.tiny_models import build

#: tokens of prompts, each with three answers of one token
SIZES = tuple((size, (1, 1, 1)) for size in (7, 3, 12, 1))
OBJECTIVE = make_objective("choice", LABELS)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", ["opt", "gpt2", "gpt-neox", "qwen2", "llama"])
def test_a_row_tells_what_three_do(family: str, side: str) -> None:
    """Losses, scores and gradients, held to each row by itself and all logits."""
    network, found = build(family, torch.float64), replace(examples(SIZES), padding_side=side)
    compact = OBJECTIVE.compact(found)
    assert (len(found.row_lengths), len(compact.row_lengths)) == (12, 4)
    assert compact.lengths.tolist() == [7, 3, 12, 1] and len(compact.ids) == 23
    scores, wanted = alone(network, found)
    losses, outputs = OBJECTIVE.losses(network, compact.batch(torch.arange(4)))
    torch.testing.assert_close(losses, torch.stack(wanted), rtol=0, atol=1e-10)
    each = torch.stack([torch.stack(one) for one in scores])
    torch.testing.assert_close(outputs, each, rtol=0, atol=1e-10)
    value = next(network.parameters())
    grads = [torch.autograd.grad(torch.stack([*one]).sum(), value)[0] for one in (losses, wanted)]
    rounds = family in ("qwen2", "llama")  # their norms compute in float32
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-6 if rounds else 1e-12)
    taken = compact.take(torch.tensor([2, 0])).batch(torch.tensor([0, 1]))
    again = OBJECTIVE.losses(network, taken)[0]
    torch.testing.assert_close(again, torch.stack(wanted)[[2, 0]], rtol=0, atol=1e-10)


def test_the_fisher_of_a_row_is_that_of_three() -> None:
    network = build("opt", torch.float64)
    name = "model.decoder.layers.0.self_attn.v_proj.bias"

    def squares(found: Encoded) -> Any:
        given = [found.batch(torch.arange(4))]
        sums = example_squares(
            network, [name], given, lambda model, batch: OBJECTIVE.losses(model, batch)[0]
        )
        return sums.sums[name]

    found = examples(SIZES)
    wanted = squares(found)
    torch.testing.assert_close(squares(OBJECTIVE.compact(found)), wanted, rtol=1e-9, atol=1e-20)


@pytest.mark.parametrize("side", ["right", "left"])
def test_cut_on_a_device_the_batches_are_the_same(side: str) -> None:
    compact = OBJECTIVE.compact(replace(examples(SIZES), padding_side=side))
    some = torch.tensor([3, 0])
    ours = compact.batch(some, pad_to=9)
    found = Resident(compact, torch.device("cpu")).batch(some, 9)
    assert ours.inputs.keys() == found.inputs.keys() == {"input_ids", "attention_mask", "among"}
    for name, one in ours.inputs.items():
        assert torch.equal(one, found.inputs[name])
    network = build("gpt2", torch.float64)
    wider = OBJECTIVE.losses(network, found)[0]
    losses = OBJECTIVE.losses(network, compact.batch(some))[0]
    torch.testing.assert_close(wider, losses, rtol=0, atol=1e-10)


def test_what_does_not_fit_stays_as_it_is() -> None:
    found = examples(SIZES)
    other = replace(found, ids=found.ids.clone())
    other.ids[8 + 2] = 49  # the second row of the first example has another prompt
    for one in (
        examples(((7, (1, 2, 1)), (3, (1, 1, 1)))),
        examples(((7, (1, 1, 1)), (3, (1, 1)))),
        other,
    ):
        assert OBJECTIVE.compact(one) is one
    right = OBJECTIVE.asking(TASKS["copa"].prompt)
    assert right.compact(found) is found


def test_a_run_trains_on_prompts_alone_as_on_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "opt", "opt", dropout=0.0)
    write_sst2(tmp_path, train=20, validation=4)
    given: dict[str, Any] = {"task": "sst2", "data_dir": str(tmp_path), "device": "cpu"}
    ready = prepare(TrainSettings(model=str(tmp_path / "opt"), **given), 0)
    assert (len(ready.train), len(ready.train.row_lengths)) == (20, 20)
    assert len(next(iter(ready.validation.values())).row_lengths) == 8
    monkeypatch.chdir(tmp_path)
    kept = []
    for name in ("prompts", "rows"):
        package.train("opt", bias="v", epochs=2, lr=1e-2, log_steps=1, output=name, **given)
        kept.append([line["loss"] for line in saved_states.log(tmp_path / name) if "loss" in line])
        monkeypatch.setattr(Choice, "compact", lambda self, encoded: encoded)
    assert len(kept[0]) == len(kept[1]) >= 6
    assert kept[0] == pytest.approx(kept[1], rel=1e-4)
    assert 0 < saved_states.largest_difference(tmp_path / "prompts", tmp_path / "rows") < 1e-4
