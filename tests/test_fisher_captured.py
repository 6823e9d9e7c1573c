"""Replayed passes give the eager sums; on a CPU by a stand-in that refuses what graphs cannot."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import beftkit
from beftkit.gradients import captured, example_squares, sites_of
from tests.fisher_cases import build, classified, classifying
from tests.tiny_models import BY_ID

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
#: rows of each batch with their lengths: shapes that recur, one that does not
LENGTHS = ((7, 3, 5), (4, 4, 2), (7, 7, 1), (4, 1, 2), (5,), (7, 2, 6))


class Counted:
    """How many replays there were, and what was noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.replays, self.graphs, self.notes = 0, 0, []  # type: ignore[var-annotated]
        real = captured.capture

        def capture(*given: Any, **how: Any) -> Any:
            graph = real(*given, **how)
            self.graphs += 1
            replay = graph.replay

            def counted() -> Any:
                self.replays += 1
                return replay()

            graph.replay = counted  # type: ignore[method-assign]
            return graph

        monkeypatch.setattr(captured, "capture", capture)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    yield Counted(monkeypatch)


def apart(found: Any, wanted: Any) -> float:
    """The largest difference of a parameter's sums, of all sums' size."""
    assert found.examples == wanted.examples and found.alone == wanted.alone
    most = max(float(one.norm()) for one in wanted.sums.values())
    return max(float((found.sums[n] - one).norm()) for n, one in wanted.sums.items()) / most


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("id", ["bert", "deberta", "gpt2", "llama", "bart"])
def test_replays_give_the_eager_sums(id: str, device: str, counted: Counted) -> None:
    if id not in BY_ID:
        pytest.skip(f"no case {id}")
    model = build(classifying(id), torch.float64).to(device)
    names = sites_of(model).names
    batches = classified(model, LENGTHS)
    wanted = example_squares(model, names, batches, graphs="off")
    assert counted.graphs == 0
    found = example_squares(model, names, batches, graphs="on", note=counted.notes.append)
    if counted.notes:
        assert counted.replays == 0 and "eagerly" in counted.notes[0]
    else:
        assert (counted.graphs, counted.replays) == (3, len(batches))
    assert id != "bert" or counted.replays, counted.notes
    assert apart(found, wanted) < (1e-13 if device == "cpu" else 1e-10)


@pytest.mark.gpu
@pytest.mark.parametrize("budget", [0, 9000])
def test_a_pass_of_several_launches_is_captured(budget: int, counted: Counted) -> None:
    """However alike they are; tests/test_fisher_launches.py has it for the CPU."""
    model = build(classifying("bert"), torch.float32).to("cuda")
    names, batches = sites_of(model).names, classified(model, LENGTHS)
    how: dict[str, Any] = {"budget": budget, "note": counted.notes.append}
    wanted = example_squares(model, names, batches, graphs="off", **how)
    found = example_squares(model, names, batches, graphs="on", **how)
    assert counted.notes == []
    assert (counted.graphs, counted.replays) == (3, len(batches))
    assert apart(found, wanted) < 1e-5


def test_what_is_in_the_way_is_said_and_goes_on_eagerly(counted: Counted) -> None:
    model = build(classifying("bert"), torch.float64)
    names, batches = sites_of(model).names, classified(model, LENGTHS)

    def waiting(model: Any, batch: Any) -> torch.Tensor:
        width = int(batch["attention_mask"].sum(1).max())  # the host waits for it
        cut = {key: batch[key][:, :width] for key in ("input_ids", "attention_mask")}
        logits = model(**cut).logits
        return torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none")

    wanted = example_squares(model, names, batches, waiting, graphs="off")
    found = example_squares(model, names, batches, waiting, graphs="on", note=counted.notes.append)
    assert counted.replays == 0
    assert len(counted.notes) == 1 and "_local_scalar_dense" in counted.notes[0]
    assert apart(found, wanted) == 0


def test_shapes_that_come_often_are_captured_and_others_not(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "MET", 2)
    model = build(classifying("bert"), torch.float64)
    names, batches = sites_of(model).names, classified(model, (*LENGTHS, (7, 2, 2), (7, 7, 7)))
    wanted = example_squares(model, names, batches, graphs="off")
    # As on a GPU: the third batch of a shape is the first that is replayed.
    monkeypatch.setattr("beftkit.gradients.exact.of_gpu", lambda device: True)
    found = example_squares(model, names, batches)
    assert (counted.graphs, counted.replays) == (1, 3)
    assert apart(found, wanted) < 1e-13
    counted.graphs = counted.replays = 0
    found = example_squares(model, names, batches, recurring={(3, 4)})
    assert (counted.graphs, counted.replays) == (1, 2)
    assert apart(found, wanted) < 1e-13


def test_half_precision_with_a_scale_is_eager(counted: Counted) -> None:
    model = build(classifying("bert"), torch.float16)
    names, batches = sites_of(model).names, classified(model, LENGTHS)
    example_squares(model, names, batches, graphs="on", note=counted.notes.append)
    assert counted.graphs == 0 and "float16" in counted.notes[0]


def test_the_command_fills_batches_up_to_few_widths(workplace: Path, counted: Counted) -> None:
    data: dict[str, Any] = {"train_file": "train.jsonl", "batch_size": 4, "device": "cpu"}
    eager = beftkit.fisher("base", **data, graphs="off")
    assert counted.graphs == 0
    found = beftkit.fisher("base", **data, graphs="on")
    assert 1 <= counted.graphs <= 12 and counted.replays == 15
    for role, one in eager.roles.items():
        assert found.roles[role].figures["fisher"] == pytest.approx(
            one.figures["fisher"], rel=2e-4, abs=1e-12
        )
