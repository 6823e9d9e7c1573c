"""Forward passes of an evaluation or a prediction, replayed where a width comes often enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from beftkit.accelerator import precision_of
from beftkit.graphs import Graph, NotCaptured, capture, kept_tensors, memory_pool
from beftkit.tasks.costs import costs_of
from beftkit.tasks.resident import Resident, rows_each, widths_of
from beftkit.tasks.widths import Widths, choose_widths

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from beftkit.objectives import Objective
    from beftkit.tasks import Encoded


@dataclass
class Replays:
    """What passes over the same batches have in common, from one evaluation to the next.

    Attributes:
        graphs: ``auto``, ``on`` or ``off``, as in settings.
        times: how many passes over all batches there will be.
        note: told why a width goes on eagerly.
        what: the passes are for, in that note.
        held: passes by split.
    """

    graphs: str
    times: int
    note: Callable[[str], None]
    what: str = "evaluation"
    held: dict[str, Forwards] = field(default_factory=dict)

    def of(
        self,
        name: str,
        model: Any,
        encoded: Encoded,
        batches: Sequence[Tensor],
        objective: Objective,
        accelerator: Accelerator,
        call: Callable[[Any, Any], Any],
    ) -> Forwards | None:
        """The passes over a split, whose batches are the same each time; None: all are eager.

        Args:
            name: of the split.
            model: evaluated.
            encoded: its examples.
            batches: their numbers, int64 [B].
            objective: whether its passes are always the same operations (`Objective.steady`).
            accelerator: device, precision, processes.
            call: a pass over a batch: tensors [B, ...], or tuples of them.
        """
        device = accelerator.device
        wanted = self.graphs == "on" or (self.graphs == "auto" and device.type == "cuda")
        able = objective.steady and accelerator.num_processes == 1
        able = able and device.type in ("cpu", "cuda") and not encoded.by_length
        spread = len({*map(str, getattr(model, "hf_device_map", {}).values())}) > 1
        if not wanted or not able or spread or not batches or rows_each(encoded) is None:
            return None
        if name not in self.held:
            self.held[name] = Forwards(self, model, encoded, batches, accelerator, call)
        return self.held[name]


class Forwards:
    """Passes over planned batches of one split.

    Attributes:
        widths: which are captured.
        graphs: what was recorded, by width.
        eager: chosen widths that could not be.
    """

    def __init__(
        self,
        replays: Replays,
        model: Any,
        encoded: Encoded,
        batches: Sequence[Tensor],
        accelerator: Accelerator,
        call: Callable[[Any, Any], Any],
    ) -> None:
        import torch

        self.replays, self.model, self.encoded = replays, model, encoded
        self.batches, self.accelerator, self.call = batches, accelerator, call
        self.device = accelerator.device
        rows = max(map(len, batches))
        self.own = widths_of(encoded, batches)
        counts: dict[int, float] = {}
        for width in self.own:
            counts[width] = counts.get(width, 0.0) + replays.times
        half = precision_of(accelerator) != "fp32"
        costs = costs_of(model, half=half, trains=False)
        each = rows_each(encoded) or 1
        everything = replays.graphs == "on"
        self.widths: Widths = choose_widths(counts, rows * each, costs, everything=everything)
        self.graphs: dict[int, Graph] = {}
        self.eager: set[int] = set()
        self.held: list[Any] = []  # what graphs read stays where it is, whatever modules do later
        if not self.widths.chosen:
            return
        self.resident = Resident(encoded, self.device)
        plan = torch.zeros((len(batches), rows), dtype=torch.int64)
        for number, batch in enumerate(batches):
            plan[number] = batch[0]  # a short batch is filled up with one of its own
            plan[number, : len(batch)] = batch
        self.plan = plan.to(self.device)
        self.at = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.pool = memory_pool(self.device)

    def __call__(self, number: int) -> Any:
        """The pass over this batch: new tensors."""
        examples = self.batches[number]
        width, captured = self.widths.of(self.own[number])
        if captured and width not in self.eager:
            self.at.fill_(number)
            if width in self.graphs or self._record(width):
                return _first(self.graphs[width].replay(), len(examples))
        with self.accelerator.autocast():
            return self.call(self.model, self.encoded.batch(examples, device=self.device))

    def _record(self, width: int) -> bool:
        def work() -> Any:
            examples = self.plan.index_select(0, self.at).squeeze(0)
            batch = self.resident.batch(examples, width)
            # Within what is recorded: what trains is cast anew by each replay.
            with self.accelerator.autocast():
                return self.call(self.model, batch)

        try:
            for _ in range(1 if self.graphs else 2):  # a first call makes what others find
                before = kept_tensors(self.model)
                tries = 1 if self.graphs else 2
                made = capture(work, device=self.device, warmups=tries, pool=self.pool)
                after = kept_tensors(self.model)
                self.held += [*before.values(), *after.values()]
                if {*map(id, after.values())} == {*map(id, before.values())}:
                    break
            else:
                raise NotCaptured("its modules keep tensors from one call to the next")
        except NotCaptured as error:
            if not self.eager:
                self.replays.note(f"{self.replays.what} goes on eagerly, not captured: {error}")
            self.eager |= {*self.widths.chosen} - {*self.graphs}
            return False
        self.graphs[width] = made
        return True


def _first(found: Any, count: int) -> Any:
    """Copies of the first rows: the next replay writes over what it was given."""
    if isinstance(found, tuple):
        return tuple(_first(one, count) for one in found)
    return found[:count].clone()
