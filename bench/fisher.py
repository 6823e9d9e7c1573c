"""Time `beftkit.fisher` against other ways to per-example gradients of every bias, and the floor.

Each contestant runs in a process of its own, one thread, on the same weights and batches of SST-2's
lengths; they take turns within one run, and what counts is the ratio of their CPU times (with
``--device cuda``: of times between synchronisations) from the first batch to the last. Afterwards
their results have to agree. See bench/README.md for results.
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
import time
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

from bench.fisher_baselines import backpack, floor, loop, opacus, vmap  # noqa: E402
from bench.material import BATCH, SEED, write_batches, write_model  # noqa: E402
from bench.score_cli import cpu_name  # noqa: E402
from bench.train import QUIET  # noqa: E402

TITLES = {
    "ours": "`beftkit.fisher`",
    "ours0": "`beftkit.fisher`, budget 0",
    "loop": "(a) autograd, batch 1",
    "vmap": "(b) `torch.func.vmap(grad)`",
    "opacus": "(c) Opacus",
    "backpack": "(c) BackPACK, linear layers only",
    "floor": "(d) forward and backward alone",
}
#: how many times the floor's CPU time and peak memory we may take; on a GPU
GOAL, GOAL_GPU = 1.05, 1.10
#: how many times our time the loop has to take on a GPU
GOAL_LOOP = 8.0


class Size(NamedTuple):
    """Examples, and how often ours and the floor are timed; the others once."""

    examples: int
    repeats: int


#: seconds on a GPU, all together: what has no time left is not measured
MOST_GPU = 55.0
#: in this order there; what is missing at the end is missed least
ORDER_GPU = ("ours", "floor", "loop", "vmap", "ours0", "opacus", "backpack")
#: for BERT-base and for MiniLM
SIZES = {
    "quick": (Size(32, 1), Size(128, 1)),
    "default": (Size(256, 3), Size(1000, 3)),
    "cuda": (Size(128, 1), Size(0, 0)),
}


# --- contestants, each in a process of its own: a model and batches in, sums of squares out


def ours(model: Any, batches: Sequence[Any], **settings: Any) -> dict[str, Any]:
    """As the command calls it, which tries things out on its shortest examples; means a site."""
    import torch

    import beftkit

    found = beftkit.fisher(model, batches, probe=batches[-1], **settings)
    count = sum(len(batch["labels"]) for batch in batches)
    return {
        site.name: torch.tensor((site.figures["fisher"] or 0.0) * count, dtype=torch.float64)
        for role in found.roles.values()
        for site in role.sites
    }


CONTESTANTS = {
    "ours": ours,
    "ours0": lambda model, batches: ours(model, batches, budget=0),
    "loop": loop,
    "vmap": vmap,
    "opacus": opacus,
    "backpack": backpack,
    "floor": floor,
}


def contestant(name: str, folder: Path, device: str) -> None:
    """Run one and print seconds and MiB: at the start, and at most; results go to a file."""
    import torch
    from transformers import AutoModelForSequenceClassification

    import beftkit_kernels
    from beftkit.models import quiet

    assert beftkit_kernels
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(
            folder / "model", dtype=torch.float32
        )
    model = model.eval().to(device)
    batches = [
        {key: value.to(device) for key, value in batch.items()}
        for batch in torch.load(folder / "batches.pt")
    ]
    run = CONTESTANTS[name]
    run(model, [{key: value[:2] for key, value in batches[-1].items()}])  # imports, first calls
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated() / 2**20
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak begins anew
        start = resident("VmRSS")
    begin = now(cuda)
    sums = run(model, batches)
    seconds = now(cuda) - begin
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else resident("VmHWM")
    means = {key: value.double().cpu() for key, value in sums.items()}
    torch.save(means, folder / f"{name}.pt")
    print(json.dumps([seconds, start, peak]))


def now(cuda: bool) -> float:
    """CPU seconds; with CUDA those of the clock, once all is done."""
    if not cuda:
        return time.process_time()
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def resident(key: str) -> float:
    """MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{key}:")[2].split()[0]) / 1024


# --- measuring


def run(name: str, folder: Path, device: str, seconds: float | None) -> Any:
    """What a contestant prints; None: it could not, or not in so many seconds."""
    if seconds is not None and seconds < 1:
        print(f"{TITLES[name]} was not measured: no time left.\n")
        return None
    try:
        return _run(name, folder, device, seconds)
    except subprocess.TimeoutExpired:
        print(f"{TITLES[name]} was not measured: it took longer than {seconds:.0f} s.\n")
        return None


def _run(name: str, folder: Path, device: str, seconds: float | None) -> Any:
    done = subprocess.run(
        [sys.executable, __file__, "--contestant", name, "--folder", str(folder),
         "--device", device],
        env={**os.environ, **QUIET, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed"])[-1][:200]
        if name in ("ours", "ours0", "loop", "floor"):
            raise SystemExit(f"{name} failed:\n{done.stderr}")
        print(f"{TITLES[name]} was not measured: it fails here ({last}).\n")
        return None
    figures = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {figures}", file=sys.stderr, flush=True)
    return figures


def differences(folder: Path, names: Sequence[str]) -> dict[str, float]:
    """How far sums of squares are from the loop's, relative; ours hold a mean a site."""
    import torch

    judge = torch.load(folder / "loop.pt")
    largest = max(float(one.mean()) for one in judge.values())
    judge = {name: one for name, one in judge.items() if float(one.mean()) > 1e-10 * largest}
    found = {}
    for name in names:
        sums = torch.load(folder / f"{name}.pt")
        errors = []
        for site, expected in judge.items():
            if site in sums:
                expected = expected.mean() if sums[site].dim() == 0 else expected
                errors.append(float((sums[site] - expected).norm() / expected.norm()))
        assert errors, name
        found[name] = max(errors)
    return found


def bench(title: str, folder: Path, size: Size, names: Sequence[str], device: str) -> None:
    """Print the tables of one model."""
    print(f"#### {title}\n", flush=True)
    end = time.perf_counter() + MOST_GPU if device.startswith("cuda") else None
    runs: dict[str, list[Any]] = {name: [] for name in names}
    for turn in range(size.repeats):
        for name in names if turn == 0 else ("ours", "floor", "ours0"):
            left = None if end is None else end - time.perf_counter()
            figures = run(name, folder, device, left)
            if figures is not None:
                runs[name].append(figures)
    rows = {
        name: [statistics.median(column) for column in zip(*found, strict=True)]
        for name, found in runs.items()
        if found
    }
    if not {"ours", "floor", "loop"} <= set(rows):
        raise SystemExit(f"measured {', '.join(rows) or 'nothing'}: too little to compare")
    far = differences(folder, [name for name in rows if name not in ("loop", "floor")])
    if not max(far.values()) < 1e-3:
        raise SystemExit(f"results differ: {far}")
    base, own = rows["floor"], rows["ours"]
    print(
        f"{size.examples} examples, batch {BATCH}; ours and (d): medians of {size.repeats}. "
        "*apart*: largest relative difference of a bias vector's result from (a)'s.\n"
    )
    seconds = "s" if device.startswith("cuda") else "CPU s"
    print(f"| | {seconds} | / ours | / (d) | peak MiB | of it since the start | apart |")
    print("|---|---|---|---|---|---|---|")
    for name, (cpu, start, peak) in rows.items():
        apart = f"{far[name]:.0e}" if name in far else "-"
        print(
            f"| {TITLES[name]} | {cpu:.2f} | {cpu / own[0]:.2f} | {cpu / base[0]:.2f} "
            f"| {peak:.0f} | {peak - start:.0f} | {apart} |"
        )
    goal = GOAL_GPU if device.startswith("cuda") else GOAL
    print("\n| goal | reached |\n|---|---|")
    print(f"| time within {goal:.2f}x of (d) | {own[0] / base[0]:.3f}x |")
    print(f"| peak memory within {goal:.2f}x of (d) | {own[2] / base[2]:.3f}x |")
    if device.startswith("cuda"):
        print(f"| {GOAL_LOOP:.0f}x over (a) | {rows['loop'][0] / own[0]:.1f}x |")
    print(flush=True)


def main() -> None:
    """Print Markdown for bench/README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few examples, one run: three minutes")
    parser.add_argument("--device", default="cpu", help="cpu; cuda: BERT-base alone, a minute")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.contestant:
        contestant(chosen.contestant, chosen.folder, chosen.device)
        return
    peers = {"opacus": "opacus", "backpack": "backpack-for-pytorch"}
    absent = [name for name in peers if find_spec(name) is None]
    names = [name for name in TITLES if name not in absent]
    libraries = ["torch", "transformers", *(peers[name] for name in peers if name not in absent)]
    print(f"    python {' '.join(sys.argv)}\n")
    print(
        f"{date.today()}, {platform.platform()}, {os.cpu_count()} x {cpu_name()}, one thread; "
        f"python {platform.python_version()}, "
        f"{', '.join(f'{name} {version(name)}' for name in libraries)}.\n"
    )
    for name in absent:
        print(f"{TITLES[name]} was not measured: it is not installed.\n")
    given = os.environ.get("BEFTKIT_DATA")
    weights = Path(given) / "weights" / "all-MiniLM-L6-v2-fp16" if given else None
    cuda = chosen.device.startswith("cuda")
    small, large = SIZES["cuda" if cuda else "quick" if chosen.quick else "default"]
    if cuda:
        names.sort(key=ORDER_GPU.index)
    folder = Path(tempfile.mkdtemp(prefix="beftkit-bench-"))
    try:
        bert = folder / "bert"
        bert.mkdir()
        write_model(bert / "model")
        write_batches(bert, small.examples, 30522)
        bench("BERT-base, drawn", bert, small, names, chosen.device)
        if cuda:
            print("all-MiniLM-L6-v2 was not measured: a GPU has a minute.")
        elif weights is not None:
            real = folder / "minilm"
            real.mkdir()
            (real / "model").symlink_to(weights.resolve())
            write_batches(real, large.examples, 30522)
            bench("all-MiniLM-L6-v2", real, large, names, chosen.device)
        else:
            print("all-MiniLM-L6-v2 was not measured: BEFTKIT_DATA names no material.")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
