"""The rows of `bench/gpu.py`: each measures one thing in a process of its own and gives figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.material import BATCH, SEED

LR = 4e-4
#: what a row found: name -> number; or a word, where there is none
Figures = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """What rows are told.

    Attributes:
        folder: with ``model`` and ``data``.
        device: ``cuda``, or ``cpu`` for a dry run.
        out: folder of results.
        epochs: of the task.
        graphs: whether the setting of captured updates is there.
    """

    folder: Path
    device: str
    out: Path
    epochs: int
    graphs: bool

    @property
    def dry(self) -> bool:
        """On the CPU, with a tiny model: whether it runs, not how fast."""
        return self.device == "cpu"


# --- training


class Enough(Exception):
    """A row has had its time."""


class Laps:
    """Watches a run through the public API: wall seconds of epochs, and of evaluations in them.

    What there is of `before`, seconds up to the first update, is in no epoch: Trainer's clock
    begins at its `on_train_begin`, too, with model, examples and optimiser where they belong.
    """

    def __init__(self, seconds: float) -> None:
        self.most, self.each, self.paces, self.before = seconds, [], [], 0.0
        self.begin = self.since = self.trained = time.perf_counter()

    def started(self, title: str, steps: int, done: int) -> None:
        """The first update is next; evaluations within a run are told of otherwise."""
        now = _now()
        self.before = now - self.begin
        self.begin = self.since = self.trained = now

    def advanced(self, steps: int) -> None:
        """Nothing."""

    def inside(self, title: str, done: int, steps: int) -> None:
        """Nothing."""

    def reached(self, run: int, runs: int, behind: int, steps: int) -> None:
        """Nothing."""

    def logged(self, record: Mapping[str, Any]) -> None:
        """Of training, or of the evaluation that follows at once."""
        now = time.perf_counter()
        if "metrics" not in record:
            self.trained = now
            self.paces.append(record.get("examples_per_second"))
            return
        self.each.append((now - self.since, now - self.trained))
        self.since = now
        if now - self.begin > self.most:
            raise Enough

    def note(self, text: str) -> None:
        """For the log."""
        print("note:", text, flush=True)


def ours(
    precision: str, captured: bool, place: Place, seconds: float, epochs: int | None = None
) -> Figures:
    """`beftkit.train` as a user calls it, files written; ``epochs``: of the run, or the task's."""
    import beftkit

    more: dict[str, Any] = {}
    if place.graphs:
        more["graphs"] = {True: "on" if place.dry else "auto", False: "off"}[captured]
    laps = Laps(seconds)
    try:
        beftkit.train(
            str(place.folder / "model"), task="sst2", data_dir=str(place.folder / "data"), bias="v",
            lr=LR, batch_size=BATCH, eval_batch_size=BATCH, epochs=epochs or place.epochs,
            seeds=(SEED,), device=place.device, precision=precision, overwrite=True, watcher=laps,
            output=str(place.folder / "run"), **more,
        )  # fmt: skip
    except Enough:
        pass
    found = course(laps.each, place, laps.before)
    if epochs:  # a run by itself: nothing is said of the task's epochs
        return {key: found[key] for key in ("before s", "first epoch s")}
    # The run's own clock leaves out what an epoch writes.
    if paces := [one for one in laps.paces[1:] if one]:
        updates = -(-examples(place) // BATCH)
        usual = statistics.median(paces[len(paces) // 2 :])
        found["step ms"] = 1e3 * examples(place) / usual / updates
    return found


def trainer(
    name: str, options: Mapping[str, Any], place: Place, seconds: float, steady: bool = False
) -> Figures:
    """transformers' Trainer: biases alone, or PEFT's methods.

    Its batches are of like lengths as ours are, and as large in evaluation, too; nothing is saved.
    The rest is as it comes: no workers, pinned memory, AdamW fused. ``steady``: attention without
    cuDNN's backend, as ours has it and Trainer has not.
    """
    import torch

    from beftkit.accelerator import steady_attention
    from bench import train_baselines as baselines

    way: Callable[..., Any] = getattr(baselines, name)
    how = {"device": place.device, "epochs": place.epochs, "seconds": seconds, **options}
    called = time.perf_counter()
    with steady_attention(torch.device(place.device)) if steady else nullcontext():
        made = way(place.folder, **how, **grouped())
    return course(made.epochs, place, made.began - called)


def grouped() -> dict[str, Any]:
    """What this version of TrainingArguments calls batches of like lengths."""
    from transformers import TrainingArguments

    if "train_sampling_strategy" in TrainingArguments.__dataclass_fields__:
        return {"train_sampling_strategy": "group_by_length"}
    return {"group_by_length": True}


def warm(device: Any) -> None:
    """Use the device once for what a run does.

    What a machine does but once, reading libraries from its disk above all, would be in the first
    epoch of whichever row is first; what each process does anew stays in every row's.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    size = {"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForSequenceClassification(BertConfig(intermediate_size=128, **size)).to(device)
    adam = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.ones((BATCH, 24), dtype=torch.int64, device=device)
    for half in (False, True):
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = model(input_ids=ids, labels=ids[:, 0]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
    wait(device)


def _now() -> float:
    """The clock, once all that was asked of a GPU is done."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def course(each: Sequence[tuple[float, float]], place: Place, before: float) -> Figures:
    """What epochs come to: those that were not run take as long as the later half of the others.

    The first one holds what is done but once, so from it alone nothing follows for later ones.

    ``before``: seconds from the call to the first update (weights read, texts tokenised, all of it
    brought to the device); imports went before where rows are forked.
    """
    walls = [wall for wall, _ in each]
    found: Figures = {"before s": before, "first epoch s": walls[0], "epochs run": len(walls)}
    if not (later := walls[1:]):
        return found
    usual = statistics.median(later[len(later) // 2 :])
    evaluation = statistics.median([one for _, one in each[1:]])
    updates = -(-examples(place) // BATCH)
    return found | {
        "later epoch s": usual,
        "all epochs s": sum(walls) + usual * (place.epochs - len(walls)),
        "evaluation s": evaluation,
        "step ms": 1e3 * (usual - evaluation) / updates,
    }


def examples(place: Place) -> int:
    """Training examples."""
    lines = (place.folder / "data" / "SST-2" / "train.tsv").read_text("utf-8").splitlines()
    return len(lines) - 1


def floor(place: Place, seconds: float) -> Figures:
    """A captured update by hand, one graph for each width there is: milliseconds an update.

    Forward, backward, clipping, AdamW; batches lie on the device and are copied into the graph's.
    """
    precisions = ["fp32", "bf16"] if place.dry else ["bf16", "fp32", "tf32"]
    found: Figures = {}
    begin = time.perf_counter()
    for precision in precisions:
        if time.perf_counter() - begin > seconds:
            found[f"{precision} step ms"] = "no time"
            continue
        found |= {f"{precision} {k}": v for k, v in _floor(place, precision).items()}
    return found


def _floor(place: Place, precision: str) -> Figures:
    import torch

    from beftkit.graphs import capture, memory_pool
    from bench import train_baselines as baselines

    device = torch.device(place.device, 0) if not place.dry else torch.device("cpu")
    model, mean_loss, cut = baselines.plain_loop(place.folder)
    model.to(device)
    if precision == "bf16":
        from beftkit.tuning.tuner import store_for_autocast

        store_for_autocast(model, torch.bfloat16)
    batches = [
        ({key: value.to(device) for key, value in inputs.items()}, targets.to(device))
        for inputs, targets in cut
        if len(targets) == BATCH
    ]
    trained = [one for one in model.parameters() if one.requires_grad]
    adam = torch.optim.AdamW(
        trained, lr=LR, eps=1e-6, weight_decay=0.0, fused=True, capturable=not place.dry
    )
    for one in trained:
        one.grad = torch.zeros_like(one)

    def update(inputs: Any, targets: Any) -> Any:
        half = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
        with half:
            loss = mean_loss(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
        adam.step()
        for one in trained:
            one.grad.zero_()
        return loss.detach()

    with flags(device, precision):
        pool = memory_pool(device)
        made: dict[int, Any] = {}
        begin = time.perf_counter()
        for inputs, targets in batches:
            width = inputs["input_ids"].shape[1]
            if width not in made:
                held = {key: value.clone() for key, value in inputs.items()}, targets.clone()
                graph = capture(partial(update, *held), device=device, warmups=2, pool=pool)
                made[width] = held, graph
        wait(device)
        captured = time.perf_counter() - begin
        times = []
        for _ in range(4):
            begin = time.perf_counter()
            for inputs, targets in batches:
                (held, target), graph = made[inputs["input_ids"].shape[1]]
                for key, value in inputs.items():
                    held[key].copy_(value)
                target.copy_(targets)
                graph.replay()
            wait(device)
            times.append((time.perf_counter() - begin) / len(batches))
    return {"step ms": 1e3 * min(times), "widths": len(made), "captures s": captured}


@contextmanager
def flags(device: Any, precision: str) -> Any:
    """As `beftkit.accelerator.arithmetic` sets them."""
    from types import SimpleNamespace

    from beftkit.accelerator import arithmetic

    named: Any = SimpleNamespace(
        device=device, mixed_precision="no", allow_tf32=precision == "tf32"
    )
    with arithmetic(named):
        yield


def wait(device: Any) -> None:
    """Until all is done."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()
