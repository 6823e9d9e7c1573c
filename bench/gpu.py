"""What only a GPU can decide, in minutes: tests, epochs, Fisher, kernels; most valuable rows first.

    python bench/gpu.py [--minutes 6] [--only NAME,NAME] [--output FOLDER]
    python bench/gpu.py --only open --minutes 4

Needs neither a network nor `datasets` nor `evaluate`. BERT-base, drawn, batch 16, 1000 examples at
SST-2's lengths and an evaluation of 872 after each epoch, the task's 16 epochs; what a row has no
time for is taken to go on as its last epochs did. Each row is a process of its own, forked from
one that has imported everything (or begun anew, where a fork cannot use the GPU), and is printed
when it is measured; the files are written anew after each, so that a run that is cut off leaves
what it had. ``--only open`` runs what the goals of training and Fisher need, and no more. ``--dry``
runs all of it on a CPU with a tiny model: whether it works, not how fast.

Both sides train the same biases of the same model by the same AdamW on the same examples, batches
of like lengths, dropout on, and evaluate in batches as large after each epoch. Clocks begin with
the first update; what goes before it is a column of its own. Trainer is as it comes but for the
batches, and saves nothing (we save our state after each epoch); in bf16 it is timed without cuDNN's
attention as well, which it would not know to leave out.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]
# Whether there is a GPU is asked without beginning to use it: what has cannot be forked.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
os.environ |= {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip

from bench import gpu_fisher  # noqa: E402
from bench import gpu_process as process  # noqa: E402
from bench import gpu_programs as programs  # noqa: E402
from bench import gpu_rows as rows  # noqa: E402
from bench.gpu_goals import STEADY, goals  # noqa: E402
from bench.gpu_rows import Figures, Place  # noqa: E402

EPOCHS = 16  # SST-2's
#: seconds that are kept for the start and the last files
SPARE = 6.0


class Row(NamedTuple):
    """One row.

    Attributes:
        name: for ``--only``.
        title: what is measured.
        run: in a process of its own, given a place and seconds.
        seconds: for its measurement, once everything is loaded; it is killed after `most` of them.
    """

    name: str
    title: str
    run: Callable[[Place, float], Figures]
    seconds: float

    @property
    def most(self) -> float:
        """Seconds altogether."""
        return 1.5 * self.seconds + 20


def all_rows(graphs: bool, tf32: bool = True) -> list[Row]:
    """Most valuable first.

    Args:
        graphs: without captured updates their rows are left out.
        tf32: whether the device has it.
    """
    bf16 = {"bf16": True}

    def once(precision: str) -> Row:
        run = partial(rows.ours, precision, graphs, epochs=1)
        return Row(f"once-{precision}", f"beftkit, {precision}, a run of one epoch", run, 4)

    steady = partial(rows.trainer, "trainer", bf16, steady=True)
    captured = [
        Row("ours-fp32", "beftkit, fp32, captured", partial(rows.ours, "fp32", True), 16),
        Row("ours-bf16", "beftkit, bf16, captured", partial(rows.ours, "bf16", True), 12),
    ]
    captured_tf32 = [
        Row("ours-tf32", "beftkit, tf32, captured", partial(rows.ours, "tf32", True), 8)
    ]
    eager = [
        Row("eager-fp32", "beftkit, fp32, eager", partial(rows.ours, "fp32", False), 8),
        Row("eager-bf16", "beftkit, bf16, eager", partial(rows.ours, "bf16", False), 8),
    ]
    return [
        *(captured if graphs else eager),
        Row("trainer-fp32", "Trainer, biases, fp32", partial(rows.trainer, "trainer", {}), 14),
        Row("trainer-bf16", "Trainer, biases, bf16", partial(rows.trainer, "trainer", bf16), 30),
        Row("floor", "captured update by hand", rows.floor, 12),
        Row("fisher", "Fisher", gpu_fisher.fisher, 20),
        once("fp32"),
        once("bf16"),
        Row(STEADY, "Trainer, biases, bf16, attention without cuDNN", steady, 14),
        Row("tests", "pytest -m gpu", programs.tests, 60),
        *(captured_tf32 if graphs and tf32 else []),
        Row("kernels", "bench/gpu_kernels.py", programs.kernels, 45),
        *(eager if graphs else []),
        Row("peft-lora", "PEFT LoRA, Trainer, fp32", partial(rows.trainer, "peft_lora", {}), 6),
        Row("peft-beft", "PEFT BEFT, Trainer, fp32", partial(rows.trainer, "peft_beft", {}), 6),
    ]


#: what ``--only open`` stands for
OPEN = (
    *("ours-fp32", "ours-bf16", "trainer-fp32", "trainer-bf16", "floor", "fisher"),
    *("once-fp32", "once-bf16", STEADY),
)


def surroundings(dry: bool) -> dict[str, str]:
    """Machine and versions."""
    import torch
    import transformers

    def first(*command: str) -> str:
        if shutil.which(command[0]) is None:
            return ""
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip().partition("\n")[0]

    card = "" if dry else first("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return {
        "card": card or ("CPU, dry" if dry else "GPU"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "commit": first("git", "describe", "--always", "--dirty"),
        "date": datetime.now(UTC).date().isoformat(),
    }


def material(dry: bool, place: Place, seconds: float) -> Figures:
    """A model and data for all rows."""
    import torch

    from bench import material as made

    folder = place.folder
    rows.warm(torch.device(place.device))  # fails where no process like this one can use it
    made.write_data(folder, None, 64 if dry else 1000, 40 if dry else 872)
    if not dry:
        made.write_model(folder / "model")
        return {}
    from transformers import BertConfig

    made.write_model(folder / "model", config=BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    ))  # fmt: skip
    return {}


def making(dry: bool) -> Row:
    """What all other rows need."""
    return Row("material", "model and data", partial(material, dry), 60)


def one(name: str, seconds: str, told: str) -> None:
    """A row in this process, which was begun for it."""
    place = process.place_of(told)
    there = [making(place.dry), *all_rows(place.graphs, not place.dry)]
    row = next(row for row in there if row.name == name)
    process.run(row, place, float(seconds))


def chosen_rows(there: Sequence[Row], only: str | None) -> list[Row]:
    """Those that ``--only`` names, in the order of all."""
    if not only:
        return [*there]
    names = [row.name for row in there]
    asked = {one for word in only.split(",") for one in (OPEN if word == "open" else [word])}
    if unknown := sorted(asked - {*names}):
        raise SystemExit(f"--only: no row {unknown[0]}; there are open, {', '.join(sorted(names))}")
    return [row for row in there if row.name in asked]


def shown(value: Any) -> str:
    """A figure in a cell."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write(
    out: Path, stem: str, found: dict[str, Figures], titles: dict[str, str], where: dict[str, str]
) -> str:
    """Both files; returns the Markdown."""
    with (out / f"{stem}.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["row", "figure", "value", *where])
        for name, figures in found.items():
            for figure, value in figures.items():
                table.writerow([name, figure, value, *where.values()])
    columns = "before s|first epoch s|later epoch s|all epochs s|epochs run|evaluation s|step ms"
    columns = columns.split("|")
    lines = [
        f"    python {' '.join(sys.argv)}",
        "",
        ", ".join(f"{k} {v}" for k, v in where.items()),
    ]
    runs = {name: one for name, one in found.items() if "first epoch s" in one}
    if runs:
        lines += ["", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for name, one in runs.items():
            cells = " | ".join(shown(one.get(column, "-")) for column in columns)
            lines.append(f"| {titles[name]} | {cells} |")
    if reached := goals(found):
        lines += ["", "| goal | | reached |", "|---|---|---|"]
        lines += [f"| {words} | {goal} | {got} |" for words, goal, got in reached]
    for name, one in found.items():
        if name not in runs:
            cells = "; ".join(f"{figure}: {shown(value)}" for figure, value in one.items())
            lines += ["", f"{titles[name]}: {cells}"]
    text = "\n".join(lines) + "\n"
    (out / f"{stem}.md").write_text(text, encoding="utf-8")
    return text


def main() -> None:
    """Measure row after row."""
    begin = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=6.0, help="of all rows together")
    parser.add_argument("--only", help="names of rows, with commas between them; open")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--dry", action="store_true", help="on the CPU, tiny: does it run?")
    parser.add_argument("--anew", action="store_true", help="begin rows anew, fork nothing")
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)  # name, seconds, a place
    chosen = parser.parse_args()
    if chosen.row:
        one(*chosen.row)
        return
    import torch
    import transformers

    import beftkit
    from beftkit.settings import TrainSettings

    if not chosen.dry and not torch.cuda.is_available():
        raise SystemExit("gpu: needs a CUDA device, there is none; --dry runs on the CPU")
    # Imported before the forks: rows begin at once. Threads that were begun here would be missing
    # in the forks, and waited for.
    torch.set_num_threads(1)
    from transformers import BertForSequenceClassification, BertTokenizer, Trainer, get_scheduler

    import beftkit.runs.training  # with all that a run needs

    assert all((beftkit.train, BertForSequenceClassification, BertTokenizer, Trainer))
    assert transformers and get_scheduler
    graphs = "graphs" in TrainSettings.model_fields
    wanted = chosen_rows(all_rows(graphs, not chosen.dry), chosen.only)
    chosen.output.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="beftkit-gpu-"))
    where = surroundings(chosen.dry)
    stem = "gpu-" + re.sub(r"\W+", "-", where["card"].lower()).strip("-")
    titles = {row.name: row.title for row in wanted}
    device, epochs = ("cpu", 3) if chosen.dry else ("cuda", EPOCHS)
    place = Place(folder, device, chosen.output.resolve(), epochs, graphs)
    found: dict[str, Figures] = {}
    text = ""
    try:
        forked = not chosen.anew
        failed = process.measure(making(chosen.dry), place, 60, 90, forked).get("failed")
        if failed and forked:
            print(f"rows begin anew: {failed}", flush=True)
            forked = False
            failed = process.measure(making(chosen.dry), place, 60, 90, forked).get("failed")
        if failed:
            raise SystemExit(f"gpu: no model and data: {failed}")
        print(f"{where}; ready after {time.perf_counter() - begin:.1f} s", flush=True)
        for row in wanted:
            left = 60 * chosen.minutes - SPARE - (time.perf_counter() - begin)
            if left < 10:
                found[row.name] = {"skipped": "no time left"}
            else:
                since = time.perf_counter()
                limit = min(row.most, left)
                most = min(row.seconds, left - 5)
                found[row.name] = process.measure(row, place, most, limit, forked)
                found[row.name]["row s"] = time.perf_counter() - since
            cells = "; ".join(f"{key}: {shown(one)}" for key, one in found[row.name].items())
            print(f"{row.title}: {cells}", flush=True)
            text = write(chosen.output, stem, found, titles, where)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{text}\n{time.perf_counter() - begin:.0f} s; {chosen.output / stem}.md, .csv")


if __name__ == "__main__":
    main()
