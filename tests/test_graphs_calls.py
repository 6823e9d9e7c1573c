"""What recording asks of CUDA, and in what order, seen without a GPU: all of it is a stand-in."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from beftkit.graphs import NotCaptured, Pool, capture

GPU = torch.device("cuda", 0)


class Cuda:
    """Stands in for `torch.cuda`; keeps the names of what was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.free, self.reserved, self.on = 100, 50, "current"
        self.recording = False
        self.mode = "default"
        outer = self

        class Stream:
            def __init__(self, name: str = "side") -> None:
                self.name = name

            def wait_stream(self, other: Any) -> None:
                outer.calls.append(f"{self.name} waits for {other.name}")

        class Graph:
            def capture_begin(self, pool: Any, **_: Any) -> None:
                outer.recording = True
                outer.calls.append(f"begin on {outer.on}")

            def capture_end(self) -> None:
                outer.calls.append("end" if outer.recording else "end again")
                outer.recording = False

            def reset(self) -> None:
                outer.calls.append("reset")

            def replay(self) -> None:
                outer.calls.append(f"replay on {outer.on}")

        @contextmanager
        def stream(one: Any) -> Iterator[None]:
            before, self.on = self.on, one.name
            try:
                yield
            finally:
                self.on = before

        @contextmanager
        def device(one: Any) -> Iterator[None]:
            yield

        given: dict[str, Any] = {
            "Stream": Stream, "CUDAGraph": Graph, "stream": stream, "device": device,
            "current_stream": lambda: Stream("current"), "current_device": lambda: 0,
            "synchronize": lambda: self.calls.append("synchronize"),
            "memory_reserved": lambda: self.reserved, "memory_allocated": lambda: 10,
            "mem_get_info": lambda: (self.free, 1000),
            "empty_cache": lambda: self.calls.append("empty"),
            "get_sync_debug_mode": lambda: self.mode,
            "set_sync_debug_mode": lambda mode: setattr(self, "mode", mode),
            "default_generators": [torch.Generator()],
            "is_current_stream_capturing": lambda: self.recording,
        }  # fmt: skip
        for name, one in given.items():
            monkeypatch.setattr(torch.cuda, name, one, raising=False)
        monkeypatch.setattr("beftkit.graphs._SIDES", {})

    def capture(self, work: Callable[[], Any]) -> Any:
        self.pool = Pool(lambda: object())
        self.first = self.pool.id
        return capture(work, device=GPU, pool=self.pool)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return Cuda(monkeypatch)


def test_streams_wait_for_each_other(cuda: Cuda) -> None:
    """Warm-ups and recording on a stream of their own; replays on the caller's."""
    seen: list[tuple[str, str, bool, bool]] = []

    def work() -> str:
        assumed = torch.cuda.is_current_stream_capturing()
        seen.append((cuda.on, cuda.mode, assumed, cuda.recording))
        assert not (cuda.recording and gc.isenabled())
        return "made"

    graph = cuda.capture(work)
    assert graph.replay() == "made"
    assert cuda.calls == [
        "side waits for current", "current waits for side", "synchronize",
        "begin on side", "end", "current waits for side", "replay on current",
    ]  # fmt: skip
    plain, tried = ("side", "default", False, False), ("side", "error", True, False)
    assert seen[:3] == [plain, plain, tried] and seen[3][3]
    assert cuda.mode == "default" and gc.isenabled() and cuda.pool.id == cuda.first


@pytest.mark.parametrize("error", [RuntimeError("not so"), KeyboardInterrupt(), MemoryError()])
def test_a_recording_that_is_broken_off_is_ended(cuda: Cuda, error: BaseException) -> None:
    """Ctrl-C too: in a notebook the process goes on, and its GPU is to be usable."""

    def work() -> None:
        if cuda.recording:
            raise error

    expected = NotCaptured if isinstance(error, Exception) else KeyboardInterrupt
    with pytest.raises(expected):
        cuda.capture(work)
    assert cuda.calls.count("end") == 1 and "reset" in cuda.calls
    assert cuda.on == "current" and gc.isenabled() and cuda.mode == "default"
    assert cuda.pool.id is not cuda.first


@pytest.mark.parametrize("trial", [True, False])
def test_what_is_put_back_waits_for_a_warm_up_that_failed(cuda: Cuda, trial: bool) -> None:
    def work() -> None:
        if (cuda.mode == "error") == trial:
            raise RuntimeError("not so")

    with pytest.raises(NotCaptured if trial else RuntimeError, match="not so"):
        cuda.capture(work)
    assert cuda.calls[-1] == "current waits for side" and cuda.mode == "default"


@pytest.mark.parametrize(("free", "given"), [(39, True), (40, False)])
def test_memory_is_given_back_where_little_is_free(cuda: Cuda, free: int, given: bool) -> None:
    """What others cached, 40 here, no recording can take."""
    cuda.free = free
    cuda.capture(lambda: None)
    assert ("empty" in cuda.calls) == given
    if given:
        assert cuda.calls.index("empty") < cuda.calls.index("begin on side")
