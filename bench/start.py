"""Where a run's time goes before its first update and after its last: CPU seconds, stage by stage.

    python bench/start.py [--source CHECKOUT] [--model FOLDER] [--repeats 5]

BERT-base, drawn, 1000 examples at SST-2's lengths, two updates, 16 examples evaluated, on the CPU.
Each repeat is a process of its own that trains twice: the first call imports everything, the second
has it. Figures are of the main thread, which is what a user waits for, and hold on a busy machine,
too; what other threads do beside it is a line of its own. *obvious* is the shortest script that has
the same model, tokenizer and optimiser. ``--source``: another checkout, for before and after.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: stage -> functions, of which each counts without what another one has within
STAGES = {
    "device": ["beftkit.runs.training:make_accelerator"],
    "data": ["beftkit.runs.training:load_data"],
    "model, tokenizer": ["beftkit.runs.training:prepare"],
    "metrics tried": ["beftkit.runs.training:check_metrics"],
    "what trains": ["beftkit.runs.training:choose_parts", "beftkit.runs.training:make_tuner"],
    "folder, provenance": ["beftkit.runs.folders:opened", "beftkit.runs.training:begun"],
    "tokenising": ["beftkit.runs.prepare:Prepared._encode"],
    "digests": ["beftkit.runs.training:inputs_of"],
    "loop made": ["beftkit.training.trainer:Trainer.__init__"],
}
OBVIOUS = """
import sys, time, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging
logging.set_verbosity_error()
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], dtype=torch.float32)
AutoTokenizer.from_pretrained(sys.argv[1])
torch.optim.AdamW(model.parameters(), lr=1e-3)
print(time.thread_time())
"""


class Stages:
    """Seconds of the main thread, by stage."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.within = ["all else"]
        self.since = time.thread_time()

    def switch(self) -> None:
        """What was spent since the last switch is the innermost stage's."""
        now = time.thread_time()
        here = self.within[-1]
        self.spent[here] = self.spent.get(here, 0.0) + now - self.since
        self.since = now

    def watch(self, place: str, stage: str) -> None:
        """Count a function as of a stage."""
        module, _, path = place.partition(":")
        owner: Any = importlib.import_module(module)
        *owners, name = path.split(".")
        for one in owners:
            owner = getattr(owner, one)
        function = getattr(owner, name)

        @functools.wraps(function)
        def counted(*args: Any, **options: Any) -> Any:
            self.switch()
            self.within.append(stage)
            try:
                return function(*args, **options)
            finally:
                self.switch()
                self.within.pop()

        setattr(owner, name, counted)


def measured(model: str, data: str, own: str) -> dict[str, dict[str, float]]:
    """In this process: a first call and a second one, of its settings' own files or SST-2's."""

    stages = Stages()
    import beftkit
    from beftkit.watching import Unwatched

    class Watcher(Unwatched):
        """Switches at the first update and behind the last one."""

        def started(self, title: str, steps: int, done: int) -> None:
            stages.switch()
            stages.within[0] = "updates, evaluation"

        def logged(self, record: Any) -> None:
            if "metrics" in record:
                stages.switch()
                stages.within[0] = "afterwards"

    with_files: dict[str, Any] = {"train_file": own, "validation_file": own}
    given = with_files if own else {"task": "sst2", "data_dir": data}
    found = {}
    import beftkit.runs.training

    for stage, places in STAGES.items():
        for place in places:
            stages.watch(place, stage)
    for call in ("first call", "second call"):
        process, main = time.process_time(), time.thread_time()
        with tempfile.TemporaryDirectory() as folder:
            beftkit.train(
                model, bias="v", max_steps=2, epochs=1, validation_size=16, device="cpu",
                output=f"{folder}/run", watcher=Watcher(), new_head=True, **given,
            )  # fmt: skip
        stages.switch()
        beside = time.process_time() - process - (time.thread_time() - main)
        found[call] = {**stages.spent, "(other threads)": beside}
        stages.spent, stages.within = {}, ["all else"]
    return found


def main() -> None:
    """A table of stages."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--source", type=Path, default=ROOT, help="a checkout of beftkit")
    parser.add_argument("--model", type=Path, help="a folder in place of a drawn BERT-base")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)  # model, data, own files
    chosen = parser.parse_args()
    if chosen.row:
        print(json.dumps(measured(*chosen.row)))
        return
    sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]
    from bench import material

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        material.write_data(folder, None, 1000, 872)
        model = chosen.model or folder / "model"
        if chosen.model is None:
            material.write_model(model)
        lines = (folder / "data" / "SST-2" / "train.tsv").read_text("utf-8").splitlines()
        (folder / "own.tsv").write_text("\n".join(["text\tlabel", *lines[1:]]) + "\n")
        paths = os.pathsep.join(str(chosen.source / one) for one in ("", "kernels"))
        surroundings = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}

        def run(*command: str) -> str:
            done = subprocess.run(
                [sys.executable, *command], env=surroundings, capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(done.stderr)
            return done.stdout.strip().splitlines()[-1]

        cases = {"SST-2": "", "own files": str(folder / "own.tsv")}
        rows: dict[str, list[float]] = {}
        for _ in range(chosen.repeats):
            rows.setdefault("obvious", []).append(float(run("-c", OBVIOUS, str(model))))
            for case, own in cases.items():
                row = ("--row", str(model), str(folder / "data"), own)
                for call, spent in json.loads(run(__file__, *row)).items():
                    before = {"updates, evaluation", "afterwards", "(other threads)"}
                    total = sum(one for name, one in spent.items() if name not in before)
                    for name, one in {"to the first update": total, **spent}.items():
                        rows.setdefault(f"{case}, {call}: {name}", []).append(one)
    print(f"{chosen.source}, medians of {chosen.repeats}, CPU seconds\n")
    for name, values in rows.items():
        print(f"{statistics.median(values):7.3f}  {name}")


if __name__ == "__main__":
    main()
