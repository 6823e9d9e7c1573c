"""Which passes a graph stands for: what batches must agree in, and when none is recorded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from beftkit.gradients import captured, example_squares
from beftkit.tasks import Batch
from tests.test_fisher_captured import Counted, apart, counted
from tests.test_fisher_modules import WIDTH, drawn, likelihoods, token_batches

__all__ = ["counted"]  # a fixture


class Plain(nn.Module):
    """Scores ``[R, D]`` of tokens ``[R, T]``."""

    def __init__(self, keeps: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, WIDTH)
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.keeps = keeps
        self.last: Tensor | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """The scores; with ``keeps`` those of the call before count, too."""
        x = self.first(self.embedding(ids).double()).tanh()
        out: Tensor = self.second(x.sum(1))
        if self.keeps:
            self.last = out.detach()
        return out


NAMES = ["first.bias", "second.bias"]


def of_examples(model: Any, batch: Batch) -> Tensor:
    """The sum over the rows of each example."""
    targets = batch.targets if batch.index is None else batch.targets[batch.index]
    rows = likelihoods(model, {"ids": batch.inputs["input_ids"], "labels": targets})
    if batch.index is None:
        return rows
    return rows.new_zeros(batch.examples).index_add(0, batch.index, rows)


def test_rows_of_other_examples_are_another_graph(counted: Counted) -> None:
    """Of one shape, though: who owns a row stands in the graph."""
    model = drawn(Plain())
    owners = ([0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1])
    batches = [
        Batch({"input_ids": one["ids"]}, one["labels"][:2], torch.tensor(index))
        for one, index in zip(token_batches((4, 3), (4, 3), (4, 3)), owners, strict=True)
    ]
    wanted = example_squares(model, NAMES, batches, of_examples, graphs="off")
    found = example_squares(model, NAMES, batches, of_examples, graphs="on")
    assert (counted.graphs, counted.replays) == (2, 3)
    assert apart(found, wanted) < 1e-13


def test_so_many_shapes_are_recorded_at_most(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "MOST", 2)
    model, batches = drawn(Plain()), token_batches((2, 3), (2, 4), (2, 5), (2, 3), (2, 5))
    wanted = example_squares(model, NAMES, batches, likelihoods, graphs="off")
    found = example_squares(model, NAMES, batches, likelihoods, graphs="on")
    assert (counted.graphs, counted.replays) == (2, 3)
    assert apart(found, wanted) < 1e-13


def test_modules_that_keep_tensors_are_tried_once(counted: Counted) -> None:
    """Made by a replay they would lie in its memory. Said once, and not tried again."""
    model, batches = drawn(Plain(keeps=True)), token_batches((2, 3), (2, 4), (2, 3), (2, 4))
    wanted = example_squares(model, NAMES, batches, likelihoods, graphs="off")
    notes = counted.notes.append
    found = example_squares(model, NAMES, batches, likelihoods, graphs="on", note=notes)
    assert (counted.graphs, counted.replays) == (1, 0)  # a recording, let go
    assert len(counted.notes) == 1 and "keep tensors from one call to the next" in counted.notes[0]
    assert apart(found, wanted) == 0


def test_batches_stay_as_they_were(counted: Counted) -> None:
    """A graph reads tensors of its own."""
    model, batches = drawn(Plain()), token_batches((2, 3), (2, 3))
    before = [one["ids"].clone() for one in batches]
    example_squares(model, NAMES, batches, likelihoods, graphs="on")
    assert counted.replays == 2
    for one, ids in zip(batches, before, strict=True):
        assert torch.equal(one["ids"], ids)


def test_a_model_on_several_devices_is_eager() -> None:
    model = Plain()
    assert captured.hindrance(model, torch.float32) is None
    model.second.to("meta")
    assert "several devices" in str(captured.hindrance(model, torch.float32))
    assert "no such graphs on meta" in str(captured.hindrance(model.to("meta"), torch.float32))
