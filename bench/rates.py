"""Train biases alone over learning rates, tasks and seeds: the figures behind docs/results.md.

Every cell is one call of `beftkit.train`, every probe one of `beftkit.select`. Workers take the
next cell that is lacking, the most important first, and each result is a row of a CSV at once, so
that a run that is cut loses only the cells that were being trained:

    python bench/rates.py --model all-MiniLM-L6-v2-fp16 --data-dir data -o docs/results \\
        --device cuda --processes 8 --cpu-processes 6 --stop-after 400

``--data-dir`` holds ``glue/`` and ``superglue/`` in their original layouts.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

#: those that are looked at first, then the rest
FIRST, REST = ("sst2", "rte", "cb"), ("cola", "wic", "mrpc", "stsb")
SMALL = ("mrpc", "stsb", "cb")  # few examples: more passes
FOLDERS = {"cb": "superglue", "wic": "superglue"}  # the others: glue
RATES = (4e-4, 1e-3, 4e-3, 1e-2, 2e-2)
INERT_RATES = (4e-4, 1e-2)  # enough to hold k against none
ALONE = ("v", "q", "none", "m1")
BATCH, EVERY = 16, 3
GRID, PUBLISHED = "grid", "published"
PARTS = ("grid", "published", "probes", "rate-probes")
#: what tells a row apart from others
KEY = ("protocol", "task", "role", "rate", "seed")
CELLS, PROBES = "rates.csv", "probes.csv"
COLUMNS = {
    CELLS: (
        *(*KEY, "precision", "device", "epochs", "examples", "scalars", "metric", "best"),
        *("best_epoch", "last", "baseline", "standard_error", "stayed", "evaluations", "score"),
        *("train_seconds", "seconds", "versions", "error"),
    ),
    PROBES: (
        *("protocol", "task", "rate", "seed", "precision", "device", "epochs", "steps", "method"),
        *("role", "score", "rank", "target", "inert", "width", "norm_pre", "layers"),
        *("settled_target", "settled_ranking"),
    ),
}


@dataclass(frozen=True)
class Cell:
    """One thing to train; ``rate`` None: the published one. ``all`` is a probe, its scores kept."""

    protocol: str
    task: str
    role: str
    rate: float | None
    seed: int

    @property
    def key(self) -> tuple[str, ...]:
        """As a row has it."""
        return key_of(vars(self))


def key_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells a row apart from others; a published rate is no part of that."""
    rate = "" if row["protocol"] == PUBLISHED else f"{float(row['rate']):g}"
    return str(row["protocol"]), str(row["task"]), str(row["role"]), rate, str(row["seed"])


def cells(tasks: Sequence[str], seeds: Sequence[int], parts: Sequence[str]) -> list[Cell]:
    """All cells, the most important first: tasks, seeds and parts are no more than asked for."""
    first, *others = (0, 1, 2)
    order = [
        *_stage("probes", FIRST, (first,)),
        *_stage("grid", FIRST, (first,)),
        *_stage("probes", REST, (first,)),
        *_stage("grid", REST, (first,)),
        *_stage("grid", FIRST, others),
        *_stage("published", FIRST, (first,)),
        *_stage("probes", FIRST, others),
        *_stage("rate-probes", FIRST, (first,)),
        *_stage("grid", REST, others),
        *_stage("rate-probes", REST, (first,)),
        *_stage("probes", REST, others),
        *_stage("published", FIRST, others),
        *_stage("rate-probes", (*FIRST, *REST), others),
    ]
    wanted = [
        cell for part, cell in order if part in parts and cell.task in tasks and cell.seed in seeds
    ]
    return list(dict.fromkeys(wanted))


def _stage(part: str, tasks: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, Cell]]:
    """The cells of a part, seed by seed, the roles to be compared side by side."""
    for seed in seeds:
        for task in tasks:
            if part == "grid":
                places = [(role, rate) for rate in RATES for role in ALONE]
                places += [("k", rate) for rate in INERT_RATES]
                yield from ((part, Cell(GRID, task, role, rate, seed)) for role, rate in places)
            elif part == "published":
                roles = (*ALONE, "k")
                yield from ((part, Cell(PUBLISHED, task, role, None, seed)) for role in roles)
            elif part == "probes":
                yield part, Cell(PUBLISHED, task, "all", None, seed)
            else:
                yield from ((part, Cell(GRID, task, "all", rate, seed)) for rate in RATES)


# --- one cell, in a worker


def settings_of(cell: Cell, model: str, data_dir: str, device: str) -> dict[str, Any]:
    """What `beftkit.train` and `beftkit.select` are both called with."""
    from beftkit.registry import TASKS

    row = TASKS[cell.task]
    published = cell.protocol == PUBLISHED
    epochs = row.epochs if published else 20 if cell.task in SMALL else 12
    return {
        "model": model,
        "task": cell.task,
        "data_dir": str(Path(data_dir) / FOLDERS.get(cell.task, "glue")),
        "batch_size": BATCH,
        "epochs": epochs,
        "eval_steps": EVERY * -(-row.sizes["low"] // BATCH),
        "seeds": (cell.seed,),
        "precision": "fp32" if published else "bf16",
        "device": device,
    }


def train(cell: Cell, how: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A row of figures; of a probe also its scores."""
    if cell.role == "all":
        return probe(cell, how)
    import beftkit

    class Watch(beftkit.Unwatched):
        """Keeps the lines of evaluations."""

        def __init__(self) -> None:
            self.lines: list[Mapping[str, Any]] = []

        def logged(self, record: Mapping[str, Any]) -> None:
            if "metrics" in record:
                self.lines.append(record)

    watch = Watch()
    where = {"regime": "low", "bias": cell.role, "lr": cell.rate}
    found = beftkit.train(**how, **where, watcher=watch)
    run, metric = found.runs[0], found.metric
    figures = {
        "rate": found.settings.lr,
        "examples": run.train_examples,
        "scalars": found.scalars,
        "metric": metric,
        "best": run.best.metrics[metric],
        "best_epoch": run.best.epoch,
        "last": run.last.metrics[metric],
        "baseline": run.best.baselines.get(metric),
        "standard_error": run.best.standard_errors.get(metric),
        "stayed": run.stayed,
        "evaluations": evaluations(watch.lines),
        "score": run.scores.get(cell.role),
        "train_seconds": run.train_seconds,
    }
    return figures, []


def probe(cell: Cell, how: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """All biases trained, as a selection does it, and what its methods say."""
    import beftkit

    published = cell.protocol == PUBLISHED
    lrs = {} if published else {"lrs": (cell.rate,)}
    how = {**how, "epochs": (how["epochs"],)}
    with tempfile.TemporaryDirectory() as folder:
        # The Fisher score is of the model before training: the same at every rate.
        found = beftkit.select(**how, **lrs, regimes=("low",), output=folder, fisher=published)
        [result] = found.cells
        log = Path(folder) / result.folder / "probe" / "log.jsonl"
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    run, metric = result.runs["probe"], str(found.metric)
    figures = {
        "rate": result.cell.lr,
        "examples": result.examples,
        "scalars": run.scalars,
        "metric": metric,
        "best": run.best[metric],
        "best_epoch": run.best_epoch,
        "last": run.last[metric],
        "baseline": run.baselines.get(metric),
        "standard_error": run.standard_errors.get(metric),
        "stayed": run.stayed,
        "evaluations": evaluations(line for line in lines if "metrics" in line),
        "train_seconds": run.train_seconds,
    }
    when = result.settled
    settled = {"settled_target": when and when.target, "settled_ranking": when and when.ranking}
    rows = [
        {
            "steps": run.steps,
            "method": method,
            "role": role,
            **{name: getattr(one, name) for name in ("score", "rank", "inert", "width")},
            "target": role == table.target,
            "norm_pre": one.norm_pre,
            "layers": json.dumps(one.layers),
            **settled,
        }
        for method, table in {**result.methods, **result.free}.items()
        for role, one in table.roles.items()
    ]
    return figures, rows


def evaluations(lines: Iterable[Mapping[str, Any]]) -> str:
    """Epoch and metrics of each, as JSON."""
    return json.dumps([{"epoch": line["epoch"], **line["metrics"]} for line in lines])


def work(pipe: Connection, model: str, data_dir: str, device: str, more: Mapping[str, Any]) -> None:
    """Take cells until there is none, in a process of its own."""
    from importlib.metadata import version

    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    versions = " ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    while (cell := pipe.recv()) is not None:
        began = time.perf_counter()
        figures: dict[str, Any] = {}
        rows: list[dict[str, Any]] = []
        how = {**settings_of(cell, model, data_dir, device), **more}
        try:
            figures, rows = train(cell, how)
        except Exception as error:  # a rate may be too high: that is a result as well
            figures = {"rate": cell.rate, "error": f"{type(error).__name__}: {error}"}
        common = {name: how[name] for name in ("precision", "device", "epochs")}
        common |= {name: getattr(cell, name) for name in ("protocol", "task", "seed")}
        common["rate"] = figures["rate"]
        seconds = round(time.perf_counter() - began, 2)
        row = {**common, "role": cell.role, **figures, "seconds": seconds, "versions": versions}
        pipe.send((row, [{**common, **one} for one in rows]))


# --- all of them


class Table:
    """A CSV that grows row by row; what a kill cut off is dropped."""

    def __init__(self, path: Path) -> None:
        self.path, self.columns = path, COLUMNS[path.name]
        self.rows: list[dict[str, str]] = []
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                path.write_text(whole, encoding="utf-8")
            self.rows = list(csv.DictReader(whole.splitlines()))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(",".join(self.columns) + "\n", encoding="utf-8")

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write them down at once."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="", lineterminator="\n")
            writer.writerows(rows)


@dataclass
class Worker:
    """A process, and what it is at."""

    device: str
    process: Any
    pipe: Connection
    since: float = 0.0
    cell: Cell | None = None


def start(device: str, arguments: argparse.Namespace) -> Worker:
    """Have a worker on a device begin to load its libraries."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    more = dict(one.split("=", 1) for one in arguments.set)
    what = (theirs, str(arguments.model), str(arguments.data_dir), device, more)
    process = context.Process(target=work, args=what, daemon=True)
    process.start()
    return Worker(device, process, ours)


def run(todo: list[Cell], workers: Sequence[Worker], tables: Sequence[Table], end: float) -> int:
    """Hand out cells until there are none or the time is over; how many were done."""
    total, done = len(todo), 0
    took: dict[str, list[float]] = {}
    began = time.monotonic()

    def hand_out(worker: Worker) -> None:
        known = took.get(worker.device)
        needed = statistics.median(known) if known else 0.0
        worker.cell = None
        if todo and time.monotonic() + needed < end:
            worker.cell, worker.since = todo.pop(0), time.monotonic()
            worker.pipe.send(worker.cell)

    for worker in workers:
        hand_out(worker)
    while busy := {worker.pipe: worker for worker in workers if worker.cell is not None}:
        ready = wait(list(busy), timeout=min(60.0, max(0.0, end - time.monotonic())))
        if not ready and time.monotonic() > end:
            break
        for pipe in ready:
            worker = busy[pipe]  # type: ignore[index]
            try:
                row, scores = worker.pipe.recv()
            except (EOFError, OSError):  # killed, or it could not import
                print(f"a worker on {worker.device} died at {worker.cell}", file=sys.stderr)
                worker.cell = None
                continue
            tables[1].add(scores)  # first: the cell counts as done by its own row
            tables[0].add([row])
            took.setdefault(worker.device, []).append(time.monotonic() - worker.since)
            done += 1
            left = (time.monotonic() - began) / done * (total - done)
            what = " ".join(str(row[name]) for name in (*KEY, "device"))
            told = row.get("error") or f"{row['metric']} {row['best']}"
            print(f"{done} of {total}: {what}: {told}; {left:.0f} s left", flush=True)
            hand_out(worker)
    return done


def main() -> None:
    """Train what is lacking."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, type=Path, help="an encoder's folder")
    parser.add_argument("--data-dir", required=True, type=Path, help="has glue/ and superglue/")
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder of the CSVs")
    parser.add_argument("--device", default="cpu", help="of --processes: cpu, cuda, cuda:1")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--cpu-processes", type=int, default=0, help="more of them, on the CPU")
    parser.add_argument("--tasks", nargs="*", default=[*FIRST, *REST])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="more settings")
    parser.add_argument("--first", type=int, help="no more than so many of the lacking cells")
    parser.add_argument("--stop-after", type=float, default=1e6, help="seconds")
    parser.add_argument("--list", action="store_true", help="show what is lacking, train nothing")
    chosen = parser.parse_args()
    end = time.monotonic() + chosen.stop_after
    tables = [Table(chosen.output / name) for name in (CELLS, PROBES)]
    there = {key_of(row) for row in tables[0].rows}
    todo = cells(chosen.tasks, chosen.seeds, chosen.parts)
    todo = [cell for cell in todo if cell.key not in there][: chosen.first]
    if chosen.list or not todo:
        for cell in todo:
            print(*cell.key)
        print(f"{len(there)} cells are there, {len(todo)} lacking", file=sys.stderr)
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    devices = [chosen.device] * chosen.processes + ["cpu"] * chosen.cpu_processes
    workers = [start(device, chosen) for device in devices[: len(todo)]]
    try:
        done = run(todo, workers, tables, end)
    finally:
        for worker in workers:
            worker.process.kill()
    print(f"{done} cells done, {len(todo)} not begun", file=sys.stderr)


if __name__ == "__main__":
    main()
