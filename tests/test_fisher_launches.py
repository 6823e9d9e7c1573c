"""What a measurement asks of a device: launches that a graph can hold, and few values back."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import beftkit_kernels
from beftkit.gradients import as_batch, captured, example_squares, taps
from beftkit.graphs import _WAITING
from beftkit.tasks import Batch
from tests.fisher_cases import classified, classifier, names_of
from tests.test_fisher_captured import apart

LENGTHS = ((7, 3, 5), (7, 7, 1), (4, 4, 2), (7, 2, 6))


class Launches:
    """Stands for `SquareSums` on a GPU: results in one memory, addresses of one graph once."""

    made: list[weakref.ref[Any]]
    recording: bool
    run_in_this_pass: set[int]

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made, self.recording, self.run_in_this_pass = [], False, set()
        of, real, squares = self, beftkit_kernels.SquareSums, captured.Captured._squares

        class SameMemory:
            def __init__(self, grads: Any, *what: Any, **how: Any) -> None:
                assert how["once"] is not of.recording, "pinned for a graph, and only then"
                self.real, self.held = real(grads, *what, **how), None
                of.made.append(weakref.ref(self))

            def run(self, grads: Any) -> Any:
                if of.recording:
                    assert id(self) not in of.run_in_this_pass, "captured before"
                of.run_in_this_pass.add(id(self))
                found = self.real.run(grads)
                if self.held is None:
                    self.held = found
                for mine, one in zip(self.held, found, strict=True):
                    mine.total.copy_(one.total)
                    if one.examples is not None:
                        mine.examples.copy_(one.examples)
                return list(self.held)

        def passing(this: Any, rows: Any) -> Tensor:
            self.recording, self.run_in_this_pass = this._taps._recording, set()
            try:
                return squares(this, rows)
            finally:
                self.recording = False

        monkeypatch.setattr(beftkit_kernels, "SquareSums", SameMemory)
        monkeypatch.setattr(captured.Captured, "_squares", passing)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launches]:
    yield Launches(monkeypatch)


def layer_bytes(model: Any) -> int:
    """Of the gradients of one layer of the widest batch: launches of which are all alike."""
    config = model.config
    return 3 * 7 * (7 * config.hidden_size + config.intermediate_size) * 8


@pytest.mark.parametrize("budget", ["none", "a gradient", "a layer", "all"])
def test_each_launch_of_a_recorded_pass_is_another(
    budget: str, launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However alike: a graph brings addresses once, so one that ran twice would fail to record."""
    monkeypatch.setattr(taps, "PREPARED", 2)  # or what a graph reads would be let go
    model = classifier("bert")
    size = {"none": 0, "a gradient": 100, "a layer": layer_bytes(model), "all": 64 << 20}[budget]
    names, batches = names_of(model), classified(model, LENGTHS)
    wanted = example_squares(model, names, batches, graphs="off", budget=size)
    alive: list[int] = []
    real = captured.capture

    def capture(*what: Any, **how: Any) -> Any:
        launches.made.clear()
        graph = real(*what, **how)
        alive.append(sum(one() is not None for one in launches.made))
        assert alive[-1] == len(launches.made)
        return graph

    monkeypatch.setattr(captured, "capture", capture)
    notes: list[str] = []
    found = example_squares(model, names, batches, graphs="on", budget=size, note=notes.append)
    assert notes == []
    assert (
        alive
        == [{"none": len(names), "a gradient": len(names), "a layer": 2, "all": 1}[budget]] * 2
    )
    assert apart(found, wanted) < 1e-13


class Counting(TorchDispatchMode):
    """How often each operation was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def waits(model: Any, names: Sequence[str], batches: Any, **how: Any) -> int:
    with Counting() as counted:
        example_squares(model, names, batches, **how)
    return sum(counted.seen[name] for name in _WAITING)


@pytest.mark.parametrize("graphs", ["off", "on"])
def test_nothing_is_waited_for_batch_by_batch(graphs: Any) -> None:
    """Nor bias by bias: a few values of the trial, and one at the end."""
    model = classifier("bert")
    names, batches = names_of(model), classified(model, LENGTHS)
    for one in batches:
        del one["attention_mask"]  # transformers looks whether it could do without
    few, many = (waits(model, names, batches * times, graphs=graphs) for times in (1, 3))
    assert few == many < len(names)
    assert waits(model, names[:2], batches, graphs=graphs) == few


def test_a_recorded_pass_adds_up_in_few_launches(launches: Launches) -> None:
    """Nothing is copied bias by bias: a sum is read where its launch leaves it."""
    model = classifier("bert")
    names, batches = names_of(model), classified(model, LENGTHS[:1])
    passing = captured.Captured._squares
    seen: list[Counter[str]] = []

    def counted(this: Any, rows: Any) -> Tensor:
        with Counting() as counting:
            found = passing(this, rows)
        if this._taps._recording:
            seen.append(counting.seen)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captured.Captured, "_squares", counted)
        example_squares(model, names, batches, graphs="on")
    assert seen and seen[-1]["clone"] == 0 and seen[-1]["cat"] <= 2


def test_eager_sums_are_added_in_few_launches() -> None:
    model = classifier("bert")
    names, batches = names_of(model), classified(model, LENGTHS[:2])
    with Counting() as one:
        example_squares(model, names, batches[:1], graphs="off")
    with Counting() as two:
        example_squares(model, names, batches, graphs="off")
    assert two.seen["clone"] == one.seen["clone"]
    assert two.seen["_foreach_add_"] == one.seen["_foreach_add_"] + 1


def test_rows_of_examples_are_looked_up_where_they_are_named() -> None:
    """On the CPU, without waiting for what lies on the device; which has them, too."""
    ids = torch.ones(3, 4, dtype=torch.int64)
    given = Batch({"input_ids": ids}, torch.zeros(2, dtype=torch.int64), torch.tensor([0, 0, 1]))
    rows = as_batch(given, "meta")
    assert rows.index is given.index
    assert isinstance(rows.given, Batch) and rows.given.index is not None
    assert {x.device.type for x in (rows.given.index, rows.given.targets)} == {"meta"}


@pytest.mark.parametrize("fails", [False, True])
def test_graphs_stay_until_the_device_is_through(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error, too: a replay under way reads tables that are in pinned memory."""
    model = classifier("bert")
    batches = classified(model, LENGTHS)
    held: list[int] = []
    real = captured.Captured.close

    def close(this: Any) -> None:
        this._device = torch.device("cuda")
        monkeypatch.setattr(torch.cuda, "synchronize", lambda _: held.append(len(this._graphs)))
        real(this)
        assert not this._graphs and not this._kept

    monkeypatch.setattr(captured.Captured, "close", close)

    def arriving() -> Iterator[Any]:
        yield from batches
        if fails:
            raise KeyError("in the middle")

    with pytest.raises(KeyError) if fails else nullcontext():
        example_squares(model, names_of(model), arriving(), graphs="on")
    assert held == [2]
