"""Time `beftkit.train` against the obvious ways to fine-tune b_v of an encoder.

Each contestant runs in a process of its own, on the same sentences of SST-2's lengths; they take
turns within one run, and what counts is the ratio of their CPU times, from the first update to the
end: imports, loading and tokenising are left out. First, losses and gradients have to agree with
plain autograd. See bench/README.md for results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

from bench import train_baselines as baselines  # noqa: E402
from bench.material import BATCH, SEED, write_data, write_model  # noqa: E402
from bench.score_cli import cpu_name  # noqa: E402
from bench.train_baselines import LR, Cost, Figures  # noqa: E402

TITLES = {
    "ours": "`beftkit.train`",
    "ours-bf16": "`beftkit.train`, bf16",
    "recipe": "(a) the published recipe",
    "trainer": "(b) Trainer, biases alone",
    "peft_beft": "(c) PEFT's BEFT, Trainer",
    "peft_lora": "(c) PEFT's LoRA r=8, Trainer",
    "floor": "(d) forward and backward alone",
}
#: contestant -> how many times our CPU time it has to take at least, evaluation included
GOALS = {"recipe": 4.5, "trainer": 1.5, "peft_beft": 1.5, "peft_lora": 1.5}
GOAL_BF16, GOAL_FLOOR = 9.0, 1.10
QUIET = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip


class Size(NamedTuple):
    """How much one epoch is: SST-2 low has 1000 examples and is evaluated on 872."""

    train: int
    repeats: int

    @property
    def dev(self) -> int:
        """Validation examples in SST-2's proportion."""
        return round(self.train * 0.872)


#: sizes for BERT-base and for MiniLM
SIZES = {
    "quick": (Size(32, 1), Size(128, 1)),
    "default": (Size(192, 2), Size(512, 3)),
    "full": (Size(1000, 1), Size(1000, 3)),
}


# --- contestants, each in a process of its own


class Stopwatch:
    """Watches a run through the public API; training and evaluation end with a line of the log."""

    def __init__(self) -> None:
        self.lines: list[Mapping[str, Any]] = []
        self.evaluation = Cost(0, 0)
        self.begin = self.since = Cost.now()

    def started(self, title: str, steps: int, done: int) -> None:
        """The first update is next."""
        self.begin = self.since = Cost.now()

    def advanced(self, steps: int) -> None:
        """Nothing."""

    def inside(self, title: str, done: int, steps: int) -> None:
        """Nothing."""

    def reached(self, run: int, runs: int, behind: int, steps: int) -> None:
        """Nothing."""

    def logged(self, record: Mapping[str, Any]) -> None:
        """Of training or of evaluation; the latter follows at once."""
        now = Cost.now()
        if "metrics" in record:
            self.evaluation += now - self.since
        self.since = now
        self.lines.append(record)

    def note(self, text: str) -> None:
        """Nothing."""


def ours(folder: Path, precision: str = "fp32") -> Figures:
    """As a user calls it, files written."""
    import beftkit

    watch = Stopwatch()
    result = beftkit.train(
        folder / "model", task="sst2", data_dir=str(folder / "data"), bias="v", lr=LR,
        batch_size=BATCH, epochs=1, seeds=(SEED,), device="cpu", precision=precision,
        output=str(folder / "run"), overwrite=True, watcher=watch,
    )  # fmt: skip
    total = Cost.now() - watch.begin
    return Figures(total, watch.evaluation, result.runs[0].last.metrics["accuracy"])


CONTESTANTS = {
    "ours": ours,
    "ours-bf16": lambda folder: ours(folder, "bf16"),
    "recipe": baselines.recipe,
    "trainer": baselines.trainer,
    "peft_beft": baselines.peft_beft,
    "peft_lora": baselines.peft_lora,
    "floor": baselines.floor,
}


def check(folder: Path) -> float:
    """Loss and gradients of the first batch, ours and the floor's, against plain autograd.

    Dropout is on: from one seed, the three draw the same masks.

    Returns:
        The largest difference, relative to the largest value of the same tensor.
    """
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    import beftkit
    from beftkit.tasks import load_task, plan

    # The judge: all of the model differentiated, tokens and padding by the tokenizer itself.
    model, tokenizer = baselines.load(folder)
    model.train()
    split = load_task("sst2", data_dir=folder / "data").train
    lengths = torch.tensor([len(row) for row in tokenizer(split.texts[0])["input_ids"]])
    first = split.take(plan(lengths, BATCH, seed=SEED, epoch=0)[0])
    rows = tokenizer(first.texts[0], padding=True, return_tensors="pt")
    torch.manual_seed(SEED)
    loss = model(**rows, labels=torch.from_numpy(first.targets)).loss
    loss.backward()
    trained = {name: p.grad for name, p in model.named_parameters()}
    wanted = [loss.detach(), *(trained[name] for name in names_that_train(folder))]

    model, mean_loss, batches = baselines.plain_loop(folder)
    torch.manual_seed(SEED)
    loss = mean_loss(*batches[0])
    loss.backward()
    named = dict(model.named_parameters())
    found = {"floor": [loss.detach(), *(named[name].grad for name in names_that_train(folder))]}

    caught: list[Any] = []

    def catch(optimizer: Any, *_: Any) -> None:
        for group in optimizer.param_groups:
            caught.extend(value.grad.clone() for value in group["params"])

    handle = register_optimizer_step_pre_hook(catch)
    watch = Stopwatch()
    beftkit.train(
        folder / "model", task="sst2", data_dir=str(folder / "data"), bias="v", max_steps=1,
        max_grad_norm=0, validation_size=BATCH, device="cpu", watcher=watch,
    )  # fmt: skip
    handle.remove()
    found["ours"] = [torch.tensor(watch.lines[0]["loss"]), *caught]
    worst = 0.0
    for values in found.values():
        for value, judge in zip(values, wanted, strict=True):
            worst = max(worst, float((value - judge).abs().max() / judge.abs().max()))
    return worst


def names_that_train(folder: Path) -> list[str]:
    """In the order of our optimiser: layers, then classifier and pooler."""
    layers = json.loads((folder / "model" / "config.json").read_text())["num_hidden_layers"]
    values = [f"bert.encoder.layer.{i}.attention.self.value.bias" for i in range(layers)]
    return [*values, "classifier.weight", "classifier.bias", "bert.pooler.dense.bias"]


def contestant(name: str, folder: Path) -> None:
    """Run one and print its figures; the kernel's peak of resident memory begins with exec."""
    if name == "check":
        print(json.dumps(check(folder)))
        return
    figures = CONTESTANTS[name](folder)
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps([figures.total, figures.evaluation, figures.accuracy, peak]))


# --- measuring


def run(name: str, folder: Path) -> Any:
    """What a contestant prints."""
    done = subprocess.run(
        [sys.executable, __file__, "--contestant", name, "--folder", str(folder)],
        env=os.environ | QUIET, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


class Row(NamedTuple):
    """Medians of a contestant."""

    wall: float
    cpu: float
    training: float
    accuracy: float | None
    peak: float


def measure(contestants: Sequence[str], folder: Path, size: Size) -> dict[str, Row]:
    """Run them all, then in turns those again whose ratio is close to 1."""
    runs: dict[str, list[Row]] = {name: [] for name in contestants}
    for turn in range(size.repeats):
        for name in contestants if turn == 0 else ("ours", "floor"):
            total, evaluation, accuracy, peak = run(name, folder)
            runs[name].append(Row(*total, total[1] - evaluation[1], accuracy, peak))
            print(f"{name}: {runs[name][-1]}", file=sys.stderr, flush=True)
    return {name: Row(*map(middle, zip(*found, strict=True))) for name, found in runs.items()}


def middle(column: Sequence[Any]) -> Any:
    """The median; None where there is nothing."""
    return None if None in column else statistics.median(column)


def bench(title: str, folder: Path, size: Size, contestants: Sequence[str]) -> None:
    """Print the tables of one model."""
    print(f"#### {title}\n", flush=True)
    worst = run("check", folder)
    if not worst < 1e-5:
        raise SystemExit(f"losses or gradients differ from plain autograd by {worst:.1e}")
    rows = measure(contestants, folder, size)
    own = rows["ours"]
    print(
        f"{size.train} training and {size.dev} validation sentences; first loss and gradients "
        f"differ from plain autograd's by {worst:.0e}; ours and (d): medians of {size.repeats}.\n"
    )
    print("| | wall s | CPU s | ratio | training CPU s | ratio | peak MiB | accuracy |")
    print("|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        total = f"{row.wall:.1f} | {row.cpu:.1f} | {row.cpu / own.cpu:.2f}"
        print(
            f"| {TITLES[name]} | {'- | - | -' if name == 'floor' else total} "
            f"| {row.training:.1f} | {row.training / own.training:.2f} | {row.peak:.0f} "
            f"| {'-' if row.accuracy is None else format(row.accuracy, '.3f')} |"
        )
    print("\n| goal | reached |\n|---|---|")
    for name, factor in GOALS.items():
        print(f"| {factor}x over {TITLES[name]} | {rows[name].cpu / own.cpu:.2f}x |")
    if "ours-bf16" in rows:
        ratio = rows["recipe"].cpu / rows["ours-bf16"].cpu
        print(f"| {GOAL_BF16}x over (a) with bf16 | {ratio:.2f}x |")
    ratio = own.training / rows["floor"].training
    print(f"| within {GOAL_FLOOR:.2f}x of {TITLES['floor']} | {ratio:.2f}x |")
    print(f"| peak below (b)'s {rows['trainer'].peak:.0f} MiB | {own.peak:.0f} MiB |\n", flush=True)


def has_bf16() -> bool:
    """Whether the CPU computes in bf16; otherwise torch does it in float32, piece by piece."""
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def main() -> None:
    """Print Markdown for bench/README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="few sentences, one run: two minutes")
    sizes.add_argument("--full", action="store_true", help="all of SST-2 low: half an hour")
    parser.add_argument("--bf16", action="store_true", help="bf16 even where the CPU has none")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.contestant:
        contestant(chosen.contestant, chosen.folder)
        return
    names = [name for name in TITLES if name != "ours-bf16" or chosen.bf16 or has_bf16()]
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate", "peft")
    )
    print(f"    python {' '.join(sys.argv)}\n")
    print(
        f"{date.today()}, {platform.platform()}, {os.cpu_count()} x {cpu_name()}; "
        f"python {platform.python_version()}, {libraries}.\n"
    )
    if "ours-bf16" not in names:
        print("bf16 was not measured: this CPU computes in float32 only.\n")
    given = os.environ.get("BEFTKIT_DATA")
    data = Path(given) if given else None
    weights = data and data / "weights" / "all-MiniLM-L6-v2-fp16"
    small, large = SIZES["quick" if chosen.quick else "full" if chosen.full else "default"]
    folder = Path(tempfile.mkdtemp(prefix="beftkit-bench-"))
    try:
        bert = folder / "bert"
        write_data(bert, data, small.train, small.dev)
        write_model(bert / "model", weights)
        bench("BERT-base, drawn", bert, small, names)
        if weights is not None:
            real = folder / "minilm"
            write_data(real, data, large.train, large.dev)
            (real / "model").symlink_to(weights.resolve())
            bench("all-MiniLM-L6-v2", real, large, names)
        else:
            print("all-MiniLM-L6-v2 was not measured: BEFTKIT_DATA names no material.")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
