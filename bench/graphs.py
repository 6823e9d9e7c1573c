"""Milliseconds an update of BERT-base, eager, captured, and as a bare captured floor.

``python bench/graphs.py`` on a GPU: under a minute, each row printed when it is measured. Random
weights, b_v and the head, batches of 16 at SST-2's lengths. Needs torch, transformers, accelerate
and pydantic; no data. Wall time of whole epochs, which end with the device being waited for.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

import numpy as np  # noqa: E402
import torch  # noqa: E402

from beftkit.accelerator import arithmetic, make_accelerator  # noqa: E402
from beftkit.objectives import make_objective  # noqa: E402
from beftkit.settings.train import TrainSettings  # noqa: E402
from beftkit.tasks import Encoded, plan  # noqa: E402
from beftkit.training.captured import CapturedStepper  # noqa: E402
from beftkit.training.evaluation import evaluate_model  # noqa: E402
from beftkit.training.forwards import Replays  # noqa: E402
from beftkit.training.job import Job  # noqa: E402
from beftkit.training.trainer import Trainer  # noqa: E402
from beftkit.tuning import Tuner, choose, store_for_autocast  # noqa: E402
from beftkit.watching import Unwatched  # noqa: E402
from bench.material import BATCH, PERCENTILES, SEED, TOKENS  # noqa: E402

HALF = {"bf16": torch.bfloat16}


class Notes(Unwatched):
    """Prints notes."""

    def note(self, text: str) -> None:
        """At once."""
        print(f"note: {text}", flush=True)


def examples(count: int, vocabulary: int, split: str = "train") -> Encoded:
    """Random tokens at the lengths of SST-2's sentences, spread evenly, shuffled."""
    random = np.random.default_rng(SEED)
    even = (np.arange(count) + 0.5) / count * 100
    drawn = np.interp(even, PERCENTILES, TOKENS[split]).round().astype(np.int64)
    lengths = torch.from_numpy(random.permutation(drawn))
    ids = torch.from_numpy(random.integers(999, vocabulary, int(lengths.sum()))).to(torch.int32)
    return Encoded(
        ids=ids, type_ids=None, first_row=torch.arange(count + 1), truncated=0, pad_id=0,
        starts=torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        targets=torch.from_numpy(random.integers(2, size=count)),
    )  # fmt: skip


def build(device: str, **options: Any) -> Any:
    """BERT-base as its configuration has it, dropout on, drawn on the device."""
    from transformers import AutoModelForSequenceClassification, BertConfig

    torch.manual_seed(SEED)
    with torch.device(device):
        model = AutoModelForSequenceClassification.from_config(BertConfig(**options))
    return model.train()


def trainer_of(
    model: Any, data: Encoded, device: str, precision: str, way: str, epochs: int
) -> Any:
    """A run in memory, nothing logged between two epochs."""
    settings = TrainSettings(
        model="m", train_file="none", bias="v", lr=4e-4, epochs=epochs, batch_size=BATCH,
        precision=precision, graphs=way,
    )  # fmt: skip
    accelerator = make_accelerator(device, precision)
    tuner = Tuner(model, choose(model, "v"), accelerator.device)
    if precision in HALF:
        store_for_autocast(model, HALF[precision])
    job = Job(
        settings=settings, seed=SEED, model=model, tuner=tuner, train=data, validation={},
        objective=make_objective("classes", ("no", "yes")), metrics=("accuracy",), better=True,
        accelerator=accelerator, folder=None, watcher=Notes(),
    )  # fmt: skip
    return Trainer(job)


def epochs_of(trainer: Any, count: int) -> list[float]:
    """Wall seconds of each of so many epochs."""
    device, found = trainer.job.accelerator.device, []
    for number in range(count):
        synchronize(device)
        begun = time.perf_counter()
        total, trainer.total_steps = trainer.total_steps, (number + 1) * trainer.steps_per_epoch
        trainer.run()
        trainer.total_steps = total
        synchronize(device)
        found.append(time.perf_counter() - begun)
    return found


def synchronize(device: Any) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def floor(trainer: Any, widths: Sequence[int], counts: Sequence[int]) -> float:
    """Milliseconds an update of hand-written captured ones, at these widths, so many of each."""
    model, accelerator = trainer.job.model, trainer.job.accelerator
    device, values = accelerator.device, trainer.stepper.values
    adam = torch.optim.AdamW(values, lr=torch.tensor(4e-4, device=device), fused=True,
                             capturable=device.type == "cuda")  # fmt: skip
    total, kept = 0.0, []
    pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
    for width, count in zip(widths, counts, strict=True):
        ids = torch.randint(999, model.config.vocab_size, (BATCH, width), device=device)
        mask = torch.ones_like(ids)
        mask[1:, -1] = 0
        targets = torch.randint(2, (BATCH,), device=device)

        def update(ids: Any = ids, mask: Any = mask, targets: Any = targets) -> None:
            with accelerator.autocast():
                logits = model(input_ids=ids, attention_mask=mask).logits.float()
            loss = torch.nn.functional.cross_entropy(logits, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(values, 1.0)
            adam.step()
            adam.zero_grad(set_to_none=False)

        kept.append(captured(update, pool) if pool else update)  # a pool ends with its last graph
        total += count * timed(kept[-1])
    return total / sum(counts) * 1e3


def captured(update: Callable[[], None], pool: Any) -> Callable[[], None]:
    """As torch's documentation has it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            update()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        update()
    replay: Callable[[], None] = graph.replay
    return replay


def timed(call: Callable[[], None], times: int = 20) -> float:
    """Seconds a call, of so many in a row."""
    waits = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    for _ in range(2):
        call()
    waits()
    begun = time.perf_counter()
    for _ in range(times):
        call()
    waits()
    return (time.perf_counter() - begun) / times


def measure(device: str, precision: str, count: int, epochs: int, options: dict[str, Any]) -> None:
    """The rows of one precision."""
    data = examples(count, options.get("vocab_size", 30522))
    lengths = data.lengths
    own = [int(lengths[b].max()) for b in plan(lengths, BATCH, seed=SEED, epoch=1)]
    on = "on" if device == "cpu" else "auto"
    ways = [("eager", "off", 2), (f"captured, {epochs} epochs", on, epochs),
            ("captured, 1 epoch", on, 1)]  # fmt: skip
    last = None
    for name, way, of in ways:
        trainer = trainer_of(build(device, **options), data, device, precision, way, of)
        times = epochs_of(trainer, min(of, 3))
        per_update = times[-1] / trainer.steps_per_epoch * 1e3
        later = f"{per_update:.2f} ms an update in the last epoch, " if of > 1 else ""
        print(f"{precision} {name}: {later}first epoch {times[0]:.2f} s", flush=True)
        stepper = trainer.stepper
        if isinstance(stepper, CapturedStepper):
            widths, gone = stepper.widths, [stepper.widths.of(one) for one in own]
            replayed = sum(there for _, there in gone)
            print(f"    {len(stepper.graphs)} graphs of {widths.chosen}, {widths.added:.3f} more "
                  f"tokens, {replayed} of {len(gone)} updates replayed; not captured: "
                  f"{sorted(stepper.eager)}", flush=True)  # fmt: skip
            print(f"    recordings: {', '.join(f'{s * 1e3:.0f}' for s in stepper.recording)} ms")
        if of > 1 and way != "off":
            last = trainer
    if last is not None and isinstance(last.stepper, CapturedStepper):
        used = [last.stepper.widths.of(one)[0] for one in own]
        every = sorted({*used})
        with arithmetic(last.job.accelerator):
            least = floor(last, every, [used.count(one) for one in every])
        print(f"{precision} floor at these widths: {least:.2f} ms an update", flush=True)
        with arithmetic(last.job.accelerator):
            last.stepper.planned(plan(lengths, BATCH, seed=SEED, epoch=1), 0)
            profile(last)
        evaluations(last, 872 if count == 1000 else 100)


def evaluations(trainer: Any, count: int) -> None:
    """Milliseconds of an evaluation of SST-2's size, eager and replayed; 64 examples a batch."""
    job = trainer.job
    split = {"validation": examples(count, job.model.config.vocab_size, "dev")}
    what = job.model, split, job.objective, ["accuracy"], job.accelerator, 64
    on = "auto" if job.accelerator.device.type == "cuda" else "on"
    for name, way in (("eager", "off"), ("captured", on)):
        replays = Replays(way, 16, lambda note: print(f"note: {note}", flush=True))
        found = []
        for _ in range(4):
            begun = time.perf_counter()
            evaluate_model(*what, replays=replays)
            found.append((time.perf_counter() - begun) * 1e3)
        held = replays.held.get("validation")
        graphs = f", graphs of {(*held.graphs,)}" if held else ""
        print(f"evaluation {name}: {min(found):.1f} ms, first {found[0]:.1f}{graphs}", flush=True)


def profile(trainer: Any) -> None:
    """What of an update is Python's: the host's time to ask for replays, and the device's."""
    stepper = trainer.stepper
    if trainer.job.accelerator.device.type != "cuda":
        return
    for (name, width), graph in sorted(stepper.graphs.items()):
        stepper.at.zero_()
        stepper.stride.zero_()  # the same batch again
        alone = timed(lambda graph=graph: graph.replay() and None)
        begun = time.perf_counter()
        for _ in range(20):
            graph.replay()
        asked = (time.perf_counter() - begun) / 20
        torch.cuda.synchronize()
        print(f"    {name} {width}: {alone * 1e3:.2f} ms a replay, host {asked * 1e6:.0f} us")
    stepper.stride.fill_(1)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="a small model, to try it on a CPU")
    parser.add_argument("--precisions", default="fp32,bf16")
    chosen = parser.parse_args()
    card = torch.cuda.get_device_name() if chosen.device != "cpu" else "CPU"
    print(f"{card}; torch {torch.__version__}", flush=True)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 2000}
    options: dict[str, Any] = {**size, "intermediate_size": 64} if chosen.small else {}
    for precision in chosen.precisions.split(","):
        begun = time.perf_counter()
        with contextlib.suppress(KeyboardInterrupt):
            measure(chosen.device, precision, 200 if chosen.small else 1000, 16, options)
        print(f"{precision}: {time.perf_counter() - begun:.1f} s in all", flush=True)


if __name__ == "__main__":
    main()
