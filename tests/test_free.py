"""Methods that cost nothing more, and what any method's picks cost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import beftkit
from beftkit.biases import Site
from beftkit.errors import BeftError
from beftkit.selection.free import moments_of
from beftkit.selection.regret import mean_regret, regret_of
from beftkit.tuning import Choice
from beftkit.tuning.choice import Part


@pytest.fixture(scope="module")
def gradients() -> list[list[torch.Tensor]]:
    """Of each update of the probe, as Adam was given them."""
    return []


@pytest.fixture(scope="module")
def found(
    tiny: Path, tmp_path_factory: pytest.TempPathFactory, gradients: list[list[torch.Tensor]]
) -> beftkit.Selection:
    """A verified selection, seed 0."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def catch(optimizer: Any, *_: Any) -> None:
        [group] = optimizer.param_groups
        if len(group["params"]) > 15:  # the probe: all biases train
            gradients.append([value.grad.double().clone() for value in group["params"]])

    handle = register_optimizer_step_pre_hook(catch)
    data = {"train_file": str(tiny / "train.jsonl"), "validation_file": str(tiny / "dev.jsonl")}
    how = {**data, "device": "cpu", "batch_size": 8, "epochs": 1, "lrs": 1e-2, "fisher": False}
    try:
        output = tmp_path_factory.mktemp("free") / "out"
        return beftkit.select(str(tiny / "base"), output=output, verify=True, **how)
    finally:
        handle.remove()


def test_adams_second_moment_is_the_running_mean_of_squares(
    found: beftkit.Selection, gradients: list[list[torch.Tensor]], tiny: Path
) -> None:
    from transformers import BertModel

    table = found.cells[0].free["adam"]
    assert len(gradients) == 8
    moments = [torch.zeros_like(one) for one in gradients[0]]
    for update in gradients:
        for moment, gradient in zip(moments, update, strict=True):
            moment.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    # The only vectors of 40 are m2's, and they train in the order of the layers.
    wide = [one for one in moments if one.shape == (40,)]
    judge = [float(one.mean()) / (1 - 0.999**8) for one in wide]
    assert table.roles["m2"].layers == pytest.approx(judge, rel=1e-5)
    names = [
        n for n, _ in BertModel.from_pretrained(tiny / "base").named_parameters() if "bias" in n
    ]
    at = [n for n, name in enumerate(names) if "self.value.bias" in name]
    judge = [float(moments[n].mean()) / (1 - 0.999**8) for n in at]
    assert table.roles["v"].layers == pytest.approx(judge, rel=1e-5)
    assert table.roles["k"].rank == 8 and table.target in ("q", "v")


def test_the_base_alone_and_always_v(found: beftkit.Selection, tiny: Path) -> None:
    from transformers import BertModel

    free = found.cells[0].free
    named = dict(BertModel.from_pretrained(tiny / "base").named_parameters())
    for role, word in (("q", "query"), ("v", "value")):
        norms = [
            float(named[f"encoder.layer.{n}.attention.self.{word}.bias"].detach().norm())
            for n in (0, 1)
        ]
        assert free["norm"].roles[role].layers == pytest.approx(norms, rel=1e-6)
        assert free["norm"].roles[role].score == pytest.approx(np.mean(norms), rel=1e-6)
    scores = {role: free["norm"].roles[role].score or 0 for role in ("q", "v")}
    assert free["norm"].target == max(scores, key=lambda role: scores[role])
    assert free["always-v"].target == "v" and not free["always-v"].roles


def test_a_selection_tells_what_its_picks_cost(found: beftkit.Selection) -> None:
    [cell] = found.cells
    alone = {role: cell.runs[role].best["accuracy"] for role in ("q", "v")}
    for name, one in found.regret.items():
        pick = {**cell.methods, **cell.free}[name].target
        assert one.mean == pytest.approx(max(alone.values()) - alone[pick])  # type: ignore[type-var, operator, index]
        assert one.low is None and one.cells == 1
    assert list(found.regret) == ["projection", "magnitude", "adam", "norm", "always-v"]
    again = beftkit.Selection.from_dict(found.to_dict())
    assert again == found


def test_regret_is_the_mean_shortfall_with_students_interval() -> None:
    cells = [{"q": 0.7, "v": 0.8}, {"q": 0.9, "v": 0.6}, {"q": 0.5, "v": 0.5}]
    one = mean_regret(regret_of(cell, "v") for cell in cells)
    short = [0.0, 0.3, 0.0]
    low, high = stats.t.interval(0.95, 2, np.mean(short), stats.sem(short))
    assert one is not None and one.low is not None and one.high is not None
    assert math.isclose(one.mean, 0.1)
    assert (one.low, one.high) == pytest.approx((low, high))
    assert (one.cells, one.best) == (3, 2)
    assert regret_of(cells[0], None) is None and regret_of(cells[0], "m1") is None
    assert mean_regret([None, None]) is None


def test_slices_that_train_alone_have_values_of_their_own() -> None:
    def site(role: str) -> Site:
        return Site(role, "attn.bias", "h", (0,), "attn.bias", 0, "self", 2, "float32")

    part = Part("attn.bias", 4, (site("k"), site("v")), positions=(2, 3, 4, 5))
    choice = Choice("k,v", (Part("head", 3, kind="head"), part), part.sites, 4, 3, 9)
    tensors = {"adam.1.exp_avg_sq": torch.tensor([1.0, 3.0, 10.0, 20.0])}
    found = moments_of(choice, tensors, 0.5)
    assert {place[0]: value for place, value in found.items()} == {"k": 4.0, "v": 30.0}
    with pytest.raises(BeftError, match="no second moment of its size"):
        moments_of(choice, {"adam.1.exp_avg_sq": torch.ones(3)}, 1.0)
