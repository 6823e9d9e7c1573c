"""Forward, backward and square sums of a batch as one CUDA graph, one for each shape that recurs.

Eagerly a batch of few tokens waits for Python to launch its kernels. A graph launches them at once;
the kernel's table of addresses is then built once for each shape, and only the batch is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from beftkit.gradients.rows import Rows
from beftkit.gradients.taps import Taps
from beftkit.graphs import WARMUPS, Graph, NotCaptured, capture, kept_tensors, memory_pool
from beftkit.tasks import Batch

Graphs = Literal["auto", "on", "off"]
#: shapes that are captured at most, each of which holds its own launches
MOST = 12
#: so often a shape was met before it is captured, where nobody knows how often it will come again
MET = 4


@dataclass
class _Held:
    """A shape's own batch, which a graph reads."""

    rows: Rows
    graph: Graph


class Captured:
    """Replays passes of batches whose shape recurs.

    What cannot be captured (losses that wait for a value, modules that keep tensors from one call
    to the next) is found out at the first shape; everything goes on eagerly then.

    Args:
        model: frozen, on one device.
        taps: of the biases that one pass tells.
        losses: of a batch, ``[N]``; as the eager pass takes them.
        recurring: rows and width of batches that will come often; None: see how often they come.
        at_once: capture every shape when it is first met.

    Attributes:
        why: what was in the way, if anything was.
        reached: some replayed loss depends on some of the biases.
    """

    def __init__(
        self,
        model: nn.Module,
        taps: Taps,
        losses: Callable[[Rows], Tensor],
        recurring: Collection[tuple[int, int]] | None,
        at_once: bool,
    ) -> None:
        self._model, self._taps, self._losses = model, taps, losses
        self._recurring, self._at_once = recurring, at_once
        self._device = next(model.parameters()).device
        self._pool = memory_pool(self._device)
        self._graphs: dict[Any, _Held] = {}
        self._met: dict[Any, int] = {}
        self._kept: list[Any] = []
        self._sum: Tensor | None = None
        self.why: str | None = None
        self.reached = False

    def add(self, rows: Rows) -> bool:
        """Add a batch by a replay; False: it is for the eager pass."""
        key = _shape(rows)
        if key is None:
            return False
        if key not in self._graphs and not (self._worth(key, rows) and self._record(key, rows)):
            return False
        held = self._graphs[key]
        for name, value in _tensors(held.rows).items():
            value.copy_(_tensors(rows)[name])
        found = held.graph.replay()
        self._sum = found.clone() if self._sum is None else self._sum.add_(found)
        return True

    def close(self) -> None:
        """Hand the sums to the taps, and let the graphs go."""
        if self._sum is not None:
            sizes = [self._width(tap.name) for tap in self._taps.taps]
            for tap, total in zip(self._taps.taps, self._sum.split(sizes), strict=True):
                tap.add(total)
        if self._graphs and self._device.type == "cuda":
            # The last replays may still read what they were recorded with.
            torch.cuda.synchronize(self._device)
        self._graphs.clear()
        self._kept.clear()
        self._sum = None

    def _worth(self, key: Any, rows: Rows) -> bool:
        self._met[key] = self._met.get(key, 0) + 1
        if self.why is not None or len(self._graphs) >= MOST:
            return False
        if self._at_once:
            return True
        if self._recurring is None:
            return self._met[key] > MET
        widest = max(value.shape[1] for value in _tensors(rows).values() if value.dim() > 1)
        return (rows.rows, widest) in self._recurring

    def _record(self, key: Any, rows: Rows) -> bool:
        mine = _copied(rows)
        before = kept_tensors(self._model)
        try:
            with self._taps.preparing() as prepared:
                graph = capture(
                    lambda: self._squares(mine),
                    device=self._device,
                    warmups=1 if self._graphs else WARMUPS,
                    pool=self._pool,
                )
            after = kept_tensors(self._model)
            self._kept += [before, after, prepared]  # all that the graph reads stays where it is
            if {*map(id, before.values())} != {*map(id, after.values())}:
                raise NotCaptured("its modules keep tensors from one call to the next")
        except NotCaptured as error:
            self.why = str(error)
            return False
        self._graphs[key] = _Held(mine, graph)
        return True

    def _squares(self, rows: Rows) -> Tensor:
        """Sums of squares of all taps side by side, float64."""
        taps = self._taps
        eager = [tap.total for tap in taps.taps]
        for tap in taps.taps:
            tap.total = None
        try:
            with taps.catching(rows.rows, rows.index, rows.examples):
                loss = self._losses(rows).sum()
                if loss.requires_grad:
                    loss.backward()
            self.reached |= any(tap.total is not None for tap in taps.taps)
            zeros: dict[str, Any] = {"dtype": torch.float64, "device": self._device}
            return torch.cat(
                [
                    torch.zeros(self._width(tap.name), **zeros) if tap.total is None else tap.total
                    for tap in taps.taps
                ]
            )
        finally:
            for tap, total in zip(taps.taps, eager, strict=True):
                tap.total = total

    def _width(self, name: str) -> int:
        return len(self._model.get_parameter(name))


def of_gpu(device: torch.device) -> bool:
    """Whether graphs pay here, unless asked for: elsewhere they are stand-ins."""
    return device.type == "cuda"


def hindrance(model: nn.Module, dtype: torch.dtype) -> str | None:
    """Why no pass of this model can be captured; None: nothing is known."""
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) > 1:
        return "the model lies on several devices"
    if next(iter(devices)).type not in ("cpu", "cuda"):
        return f"there are no such graphs on {next(iter(devices)).type}"
    if dtype == torch.float16:
        return "float16's gradients have a scale that is found on the host"
    return None


def _tensors(rows: Rows) -> dict[str, Tensor]:
    """What a batch holds, by name."""
    if isinstance(rows.given, Batch):
        return {**rows.given.inputs, "": rows.given.targets}
    return {key: one for key, one in rows.given.items() if isinstance(one, Tensor)}


def _shape(rows: Rows) -> Any:
    """What batches of one graph agree in; None: they hold something that is no tensor."""
    if not isinstance(rows.given, Batch) and len(_tensors(rows)) < len(rows.given):
        return None
    index = None if rows.index is None else tuple(rows.index.tolist())
    shapes = {key: (one.shape, one.dtype) for key, one in _tensors(rows).items()}
    return rows.rows, rows.examples, index, tuple(sorted(shapes.items()))


def _copied(rows: Rows) -> Rows:
    """A batch of its own tensors."""
    given = rows.given
    if isinstance(given, Batch):
        inputs = {key: value.clone() for key, value in given.inputs.items()}
        own: Any = Batch(inputs, given.targets.clone(), given.index, given.tokenizer)
    else:
        own = {key: value.clone() for key, value in given.items()}
    return Rows(own, rows.rows, rows.examples, rows.index)
