"""The row of `bench/gpu.py` that measures Fisher."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

from bench.gpu_rows import Figures, Place, flags, wait
from bench.material import BATCH

#: passes over all examples, of which the first is not timed: it records
ROUNDS = 4


class Passes:
    """The command's own work on the same batches several times; the later ones are timed.

    What is timed lies between two points of one call, after all recordings and between waits for
    the device, so nothing is subtracted.

    Args:
        device: waited for.
        planned: gives the batches of one pass, as `beftkit.tasks.plan_evaluation`.
    """

    def __init__(self, device: Any, planned: Any) -> None:
        self.device, self.planned = device, planned
        self.batches = self.done = 0
        self.begun = self.ended = 0.0

    def plan(self, *what: Any, **how: Any) -> list[Any]:
        """So many passes, one after another."""
        once = self.planned(*what, **how)
        self.batches = len(once)
        return [*once] * ROUNDS

    def note(self, text: str) -> None:
        """For the log."""
        print("note:", text, flush=True)

    def started(self, title: str, steps: int, done: int) -> None:
        """Nothing."""

    def advanced(self, steps: int) -> None:
        """A batch is through, as far as the host knows."""
        self.done += steps
        if self.done in (self.batches, self.batches * ROUNDS):
            wait(self.device)
            self.begun, self.ended = self.ended, time.perf_counter()

    @property
    def each(self) -> float:
        """Seconds a pass."""
        return (self.ended - self.begun) / (ROUNDS - 1)


def whole(call: Callable[[], Any], device: Any) -> float:
    """Seconds of a call, from rest to rest; nothing within it is waited for."""
    wait(device)
    begin = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - begin


def parts(call: Callable[[], Any], device: Any) -> Figures:
    """Where the time of a call goes, of another one than is timed as a whole.

    Recordings, the trial of two examples, and batches that go on eagerly: each from rest to rest,
    or it would hold what passes before it left to do.
    """
    from beftkit.gradients import captured, exact

    spent: dict[str, list[float]] = {"recordings": [], "trials": [], "eager batches": []}
    within = list[str]()

    def timed(owner: Any, name: str, what: str) -> Any:
        real = getattr(owner, name)

        def run(*given: Any, **how: Any) -> Any:
            if within:  # the trial makes passes, too
                return real(*given, **how)
            within.append(what)
            try:
                found = list[Any]()
                spent[what].append(whole(lambda: found.append(real(*given, **how)), device))
                return found[0]
            finally:
                within.clear()

        return patch.object(owner, name, run)

    with (
        timed(captured, "capture", "recordings"),
        timed(exact, "_drop_unfit", "trials"),
        timed(exact._Measure, "tapped", "eager batches"),
    ):
        call()
    counted: Figures = {what: len(some) for what, some in spent.items() if what != "trials"}
    return counted | {f"{what} s": sum(some) for what, some in spent.items()}


def fisher(place: Place, seconds: float) -> Figures:
    """Seconds for all examples: ours as the command does it, the loop on some of them, floors.

    A *pass* is one over all examples in a call that has recorded all widths before (`Passes`),
    batches made and copied included. The floor: forward and backward of the same biases for the
    same batches, one graph for each of the same widths, replayed where ours are.
    """
    import torch

    from beftkit.accelerator import make_accelerator
    from beftkit.gradients import means, sites_of
    from beftkit.objectives import make_objective
    from beftkit.tasks import encode, load_task
    from bench import fisher_baselines as ways
    from bench import train_baselines as baselines

    device = torch.device(place.device, 0) if not place.dry else torch.device("cpu")
    model, tokenizer = baselines.load(place.folder)
    model = model.eval().to(device)
    data = load_task("sst2", data_dir=place.folder / "data")
    encoded = encode(data.train, tokenizer, max_length=baselines.MAX_LENGTH)
    accelerator = make_accelerator(str(device))
    names, objective = sites_of(model).names, make_objective("classes", data.labels)

    def call(examples: Any, **how: Any) -> None:
        what = model, names, examples, objective, accelerator
        means.example_means(*what, batch_size=BATCH, **how)

    def measured(examples: Any, **how: Any) -> float:
        return whole(lambda: call(examples, **how), device)

    capturing: dict[str, Any] = {"graphs": "on" if place.dry else "auto"}
    measured(encoded.take(torch.arange(2 * BATCH)), graphs="off")  # first calls
    found: Figures = {"examples": len(encoded)}
    found["ours s"] = measured(encoded, **capturing)
    found |= parts(lambda: call(encoded, **capturing), device)
    passes = Passes(device, means.plan_evaluation)
    with patch.object(means, "plan_evaluation", passes.plan):
        measured(encoded, watcher=passes, **capturing)
    found["ours, pass s"] = passes.each
    with flags(device, "fp32"):
        found |= _captured_losses(model, encoded, accelerator, device)
    eager = measured(encoded, graphs="off")
    found["ours, eager s"] = eager
    found["ours, eager, budget 0 s"] = measured(encoded, graphs="off", budget=0)
    few = [batch for batch, _ in _batches(encoded, None, device)]
    few = few[:: max(1, len(few) // 4)][:4]
    with flags(device, "fp32"):
        ways.loop(model, few[-1:])
        wait(device)
        begin = time.perf_counter()
        ways.loop(model, few)
        wait(device)
    each = (time.perf_counter() - begin) / sum(len(one["labels"]) for one in few)
    found["loop s"] = each * len(encoded)
    found["over the loop"] = found["loop s"] / found["ours s"]
    found["pass over the loop"] = found["loop s"] / found["ours, pass s"]
    found["of captured forward and backward"] = found["ours, pass s"] / found["floor, pass s"]
    return found


def _batches(encoded: Any, widths: Any, device: Any) -> list[tuple[dict[str, Any], bool]]:
    """Batches as `beftkit fisher` makes them, with labels; and whether they are captured."""
    from beftkit.tasks import plan_evaluation
    from beftkit.tasks.resident import widths_of

    made = []
    for plan in plan_evaluation(encoded.lengths, BATCH):
        width, captured = widths_of(encoded, [plan])[0], False
        if widths is not None:
            width, captured = widths.of(width)
        batch = encoded.batch(plan, device=device, pad_to=width)
        made.append(({**batch.inputs, "labels": batch.targets}, captured))
    return made


def _captured_losses(model: Any, encoded: Any, accelerator: Any, device: Any) -> Figures:
    """Forward and backward of biases, replayed where ours are, as often and with as many rounds."""
    import torch

    from beftkit.gradients.means import _widths
    from beftkit.graphs import NotCaptured, capture, memory_pool
    from beftkit.tasks import plan_evaluation
    from bench.fisher_baselines import losses, trainable

    wanted = list(trainable(model).values())
    plans = [*plan_evaluation(encoded.lengths, BATCH)] * ROUNDS
    widths = _widths(model, encoded, plans, accelerator, "auto" if device.type == "cuda" else "on")
    batches = _batches(encoded, widths, device)
    pool, made = memory_pool(device), {}

    def work(held: Any) -> Any:
        return torch.autograd.grad(losses(model, held), wanted, allow_unused=True)

    try:
        for batch, captured in batches:
            shape = tuple(batch["input_ids"].shape)
            # Nor is the last batch of ours captured, where it is a smaller one.
            if captured and shape not in made and shape[0] == BATCH:
                held = {key: value.clone() for key, value in batch.items()}
                made[shape] = held, capture(partial(work, held), device=device, pool=pool)
    except NotCaptured as error:
        return {"floor": f"not captured: {error}", "floor, pass s": float("nan")}
    wait(device)
    begin = time.perf_counter()
    for batch, _ in batches * (ROUNDS - 1):
        if tuple(batch["input_ids"].shape) not in made:
            work(batch)
            continue
        held, graph = made[tuple(batch["input_ids"].shape)]
        for key, value in batch.items():
            held[key].copy_(value)
        graph.replay()
    wait(device)
    took = (time.perf_counter() - begin) / (ROUNDS - 1)
    model.requires_grad_(False)
    return {"floor, pass s": took, "widths": len(made), "batches": len(batches)}
