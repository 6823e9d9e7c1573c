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
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

from bench.rates_cells import (  # noqa: E402
    CELLS,
    COLUMNS,
    FIRST,
    FISHER,
    KEY,
    PARTS,
    PROBES,
    REST,
    Cell,
    cells,
    key_of,
)
from bench.rates_runs import settings_of, train  # noqa: E402


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

#: cells that fail one after the other, after which no more are handed out
GIVE_UP = 12


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

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write them down at once."""
        if rows and not self.path.is_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(",".join(self.columns) + "\n", encoding="utf-8")
        if not rows:
            return
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

    fast = any(worker.device != "cpu" for worker in workers)
    failures = 0

    def hand_out(worker: Worker) -> None:
        known = took.get(worker.device)
        needed = statistics.median(known) if known else 0.0
        worker.cell = None
        # A probe takes minutes on a CPU: it waits for a GPU, where there is one.
        fit = [one for one in todo if one.brief or worker.device != "cpu" or not fast][:1]
        if fit and time.monotonic() + needed < end and failures < GIVE_UP:
            todo.remove(fit[0])
            worker.cell, worker.since = fit[0], time.monotonic()
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
            kept = tables[2 if row["role"] == "fisher" else 1]
            kept.add(scores)  # first: the cell counts as done by its own row
            tables[0].add([row])
            took.setdefault(worker.device, []).append(time.monotonic() - worker.since)
            done += 1
            failures = failures + 1 if failed(row) else 0
            left = (time.monotonic() - began) / done * (total - done)
            what = " ".join(str(row[name]) for name in (*KEY, "device"))
            told = row.get("error") or f"{row['metric']} {row['best']}"
            print(f"{done} of {total}: {what}: {told}; {left:.0f} s left", flush=True)
            hand_out(worker)
    return done


def failed(row: Mapping[str, Any]) -> bool:
    """Whether a cell came to nothing; one that diverged came to that."""
    return bool(row.get("error")) and "not finite" not in str(row["error"])


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
    tables = [Table(chosen.output / name) for name in (CELLS, PROBES, FISHER)]
    there = {key_of(row) for row in tables[0].rows if not failed(row)}
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
