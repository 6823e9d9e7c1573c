"""What `bench/gpu_fisher.py` prints is what a device took: by a clock and a stream of our own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from beftkit.accelerator import make_accelerator
from beftkit.gradients import captured, exact
from beftkit.tasks import Encoded
from beftkit.watching import told
from bench import gpu_fisher
from tests.fisher_cases import classifier


class Stream:
    """A host that asks for work and goes on, and a device that does it in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.free = 100.0, 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(gpu_fisher, "wait", self.wait)

    def launch(self, host: float, device: float) -> None:
        self.now += host
        self.free = max(self.free, self.now) + device

    def wait(self, _: Any = None) -> None:
        self.now = max(self.now, self.free)


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    return Stream(monkeypatch)


@pytest.fixture
def call(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A measurement: a trial with a pass in it, two widths recorded, an eager batch."""

    def tapped(this: Any) -> bool:
        stream.launch(0.25, 0.125)
        return True

    def trial() -> None:
        exact._Measure.tapped(None)  # type: ignore[arg-type, call-arg]
        stream.launch(0.25, 0.0)
        stream.wait()

    def capture() -> str:
        stream.wait()  # as a recording begins
        stream.launch(0.5, 0.0)
        return "a graph"

    monkeypatch.setattr(exact._Measure, "tapped", tapped)
    monkeypatch.setattr(exact, "_drop_unfit", trial)
    monkeypatch.setattr(captured, "capture", capture)

    def run() -> None:
        exact._drop_unfit()  # type: ignore[call-arg]
        for batch in (1, 1, 1, 2, 3, 3):
            if batch == 2:
                assert exact._Measure.tapped(None)  # type: ignore[arg-type, call-arg]
                continue
            if batch not in met:
                assert captured.capture() == "a graph"  # type: ignore[call-arg]
                met.add(batch)
            stream.launch(0.0625, 1.0)

    met = set[int]()
    return run


def test_a_whole_call_holds_all_that_was_asked_for(
    stream: Stream, call: Callable[[], None]
) -> None:
    stream.launch(0.0, 50.0)  # of before
    # Trial .5, recording .5, then the device is the slower one: 3 passes and what is eager; the
    # second recording waits for them, and two passes follow.
    took = gpu_fisher.whole(call, "cuda")
    assert took == 0.5 + 0.5 + 0.0625 + 3 + 0.125 + 0.5 + 0.0625 + 2


def test_parts_hold_nothing_that_was_under_way(stream: Stream, call: Callable[[], None]) -> None:
    stream.launch(0.0, 50.0)
    found = gpu_fisher.parts(call, "cuda")
    assert found == {
        "recordings": 2,
        "recordings s": 1.0,
        "trials s": 0.5,
        "eager batches": 1,
        "eager batches s": 0.375,
    }
    assert captured.capture() == "a graph"  # type: ignore[call-arg]
    assert stream.now < 1e3


@pytest.mark.parametrize(("host", "device", "each"), [(0.0625, 0.5, 1.5), (0.5, 0.25, 1.5)])
def test_a_pass_is_the_device_s_or_the_host_s(
    host: float, device: float, each: float, stream: Stream
) -> None:
    """Whichever is slower; recordings of the first pass and what is then under way are before."""
    passes = gpu_fisher.Passes("cuda", lambda count: [*range(count)])
    met = set[int]()
    for batch in told(passes, passes.plan(3)):
        if batch not in met:
            stream.launch(9.0, 0.0)
            met.add(batch)
        stream.launch(host, device)
    rest = min(host, device)  # of one batch, once for all passes
    assert passes.each == pytest.approx(each + rest / (gpu_fisher.ROUNDS - 1))


def test_the_floor_is_replayed_where_ours_are() -> None:
    """A smaller last batch goes on eagerly in both."""
    lengths = torch.tensor([5] * 16 + [3] * 4)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    encoded = Encoded(
        ids=torch.full((int(starts[-1]),), 7, dtype=torch.int32),
        type_ids=None,
        starts=starts,
        first_row=torch.arange(21),
        targets=torch.arange(20) % 2,
        truncated=0,
        pad_id=0,
    )
    model, device = classifier("bert", torch.float32), torch.device("cpu")
    found = gpu_fisher._captured_losses(model, encoded, make_accelerator("cpu"), device)
    assert (found["widths"], found["batches"]) == (1, 2)
    assert found["floor, pass s"] > 0
