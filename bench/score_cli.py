"""Time `beftkit score` as a user starts it, against the obvious ways to get the same figures.

Whole processes; the contestants take turns within one run, and what counts is their ratio. Every
contestant first has to print the same scores. See bench/README.md for results.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.sizes import Model, bert_base, qwen2_7b, write_sparse_model  # noqa: E402

# A process of its own starts each contestant: peak memory as the kernel counts it never falls
# below that of the process one was started from.
MEASURE = """
import json, os, sys, time
out = [(os.POSIX_SPAWN_OPEN, 1, sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
       (os.POSIX_SPAWN_OPEN, 2, sys.argv[1] + ".err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)]
begin = time.perf_counter()
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ, file_actions=out)
_, status, usage = os.wait4(child, 0)
wall = time.perf_counter() - begin
print(json.dumps([status, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""
TITLES = {
    "beftkit": "`beftkit score`",
    "json": "`beftkit score --format json`",
    "automodel": "(a) `AutoModel.from_pretrained` twice",
    "torch": "(b) `safe_open(framework=\"pt\")`",
    "numpy": "(c) numpy by hand",
}  # fmt: skip

QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONPATH": str(ROOT)}


class Run(NamedTuple):
    """One process: seconds, MiB."""

    wall: float
    cpu: float
    peak: float


def command(contestant: str, pair: Sequence[Path]) -> list[str]:
    """The command line of a contestant."""
    arguments = [str(folder) for folder in pair]
    if contestant not in ("beftkit", "json"):
        script = str(ROOT / "bench" / "score_baselines.py")
        return [sys.executable, script, contestant, *arguments]
    installed = Path(sys.executable).with_name("beftkit")
    start = [str(installed)] if installed.exists() else [sys.executable, "-m", "beftkit"]
    return [*start, "score", *arguments, *(["--format", "json"] if contestant == "json" else [])]


def run(contestant: str, pair: Sequence[Path], out: Path) -> Run:
    """Run a contestant once; what it prints goes to ``out``."""
    environment = os.environ | QUIET
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code
    done = subprocess.run(
        [sys.executable, "-ISc", MEASURE, str(out), *command(contestant, pair)],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    status, wall, cpu, peak = json.loads(done.stdout)
    if status:
        raise SystemExit(f"{contestant} failed:\n{Path(f'{out}.err').read_text()}")
    return Run(wall, cpu, peak / 1024)


def check(contestants: Sequence[str], pair: Sequence[Path], out: Path) -> None:
    """No speed without correctness: all print the same figures."""
    scores: dict[str, dict[str, float]] = {}
    for contestant in contestants:
        run(contestant, pair, out)
        if contestant == "beftkit":
            continue  # a table; its figures are those of "json"
        found: Any = json.loads(out.read_text())
        if contestant == "json":
            roles = found["posts"][0]["roles"]
            found = {role: values["projection"] for role, values in roles.items()}
        scores[contestant] = found
    wanted = scores["json"]
    for contestant, found in scores.items():
        if found.keys() != wanted.keys() or any(
            abs(found[role] - wanted[role]) > 1e-5 for role in wanted
        ):
            raise SystemExit(f"{contestant} disagrees: {found}, beftkit has {wanted}")


def weights(pair: Sequence[Path]) -> list[Path]:
    """The weight files of both sides."""
    return [path for folder in pair for path in sorted(folder.glob("*.safetensors"))]


def cool(pair: Sequence[Path], everything: bool) -> None:
    """Drop the weight files, or all files there are, from the page cache."""
    for path in weights(pair):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if everything:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3\n")


def cached(pair: Sequence[Path]) -> float:
    """MiB of the weight files in the page cache: after a cold run, what it made the disk fetch."""
    libc, pages = ctypes.CDLL(None, use_errno=True), 0
    for path in weights(pair):
        size = path.stat().st_size
        vector = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        # A private writable mapping, untouched: ctypes wants a writable one for the address.
        with (
            path.open("rb") as file,
            mmap.mmap(
                file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
            ) as mapped,
        ):
            start = ctypes.c_char.from_buffer(mapped)
            if libc.mincore(ctypes.byref(start), ctypes.c_size_t(size), vector):
                raise OSError(ctypes.get_errno(), "mincore")
            del start
        pages += sum(value & 1 for value in vector)
    return pages * mmap.PAGESIZE / 2**20


def measure(
    contestants: Sequence[str], pair: Sequence[Path], out: Path, repeats: int, cold: str | None
) -> list[str]:
    """Rows of a Markdown table: medians over the repeats."""
    runs: dict[str, list[Run]] = {contestant: [] for contestant in contestants}
    fetched: dict[str, float] = {}
    for _ in range(repeats):
        for contestant in contestants:
            if cold:
                cool(pair, cold == "everything")
            runs[contestant].append(run(contestant, pair, out))
            if cold and contestant not in fetched:
                fetched[contestant] = cached(pair)
    middle = {
        contestant: Run(*map(statistics.median, zip(*found, strict=True)))
        for contestant, found in runs.items()
    }
    ours = middle["beftkit"]
    rows = []
    for contestant, figures in middle.items():
        disk = f"{fetched[contestant]:.1f}" if cold else "-"
        rows.append(
            f"| {TITLES[contestant]} | {figures.wall:.3f} | {figures.wall / ours.wall:.2f} "
            f"| {figures.cpu:.3f} | {figures.cpu / ours.cpu:.2f} | {figures.peak:.0f} | {disk} |"
        )
    return rows


def bench(title: str, model: Model, contestants: list[str], folder: Path, chosen: Any) -> None:
    """Write one pair and print its tables."""
    pair = [folder / "pre", folder / "post"]
    needed = sum(write_sparse_model(side, model, seed) for seed, side in enumerate(pair, start=1))
    size = sum(path.stat().st_size for path in weights(pair)) / 2e9
    out = folder / "out"
    print(f"### {title}, 2 x {size:.2f} GB {model.dtype}\n", flush=True)
    check(contestants, pair, out)
    code = "import sys, beftkit; print(beftkit.score(*sys.argv[1:]).bytes_read)"
    asked = subprocess.run(
        [sys.executable, "-c", code, *map(str, pair)],
        env=os.environ | QUIET, capture_output=True, text=True, check=True,
    )  # fmt: skip
    ratio = int(asked.stdout) / needed
    print(f"beftkit reads {int(asked.stdout):,} bytes: {ratio:.3f} x headers and biases.\n")
    for cold in (None, "files", *(["everything"] if chosen.drop_caches else [])):
        cache = {None: "warm", "files": "weight files cold", "everything": "all files cold"}[cold]
        print(f"| {cache} | wall s | ratio | CPU s | ratio | peak MiB | disk MiB |")
        print("|---|---|---|---|---|---|---|")
        repeats = chosen.repeats if cold != "everything" else min(chosen.repeats, 3)
        print("\n".join(measure(contestants, pair, out, repeats, cold)), flush=True)
        print()


def main() -> None:
    """Print Markdown for bench/README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="runs of each contestant [9]")
    parser.add_argument("--quick", action="store_true", help="3 runs, without (a)")
    parser.add_argument("--folder", type=Path, help="where to write the pairs [a temporary one]")
    parser.add_argument(
        "--drop-caches", action="store_true",
        help="also time with every file of the machine cold: needs root, slows others down",
    )  # fmt: skip
    chosen = parser.parse_args()
    chosen.repeats = 3 if chosen.quick else chosen.repeats
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="beftkit-bench-"))
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("numpy", "torch", "transformers", "safetensors")
    )
    print(f"    python {' '.join(sys.argv)}\n")
    print(
        f"{date.today()}, {platform.platform()}, {os.cpu_count()} x {cpu_name()}; "
        f"python {platform.python_version()}, {libraries}; {chosen.repeats} runs, medians.\n"
    )
    try:
        ours, rest = ["beftkit", "json"], ["torch", "numpy"]
        bert = [*ours, *([] if chosen.quick else ["automodel"]), *rest]
        bench("BERT-base-sized", bert_base(), bert, folder / "bert", chosen)
        bench("Qwen2.5-7B-shaped, 4 shards", qwen2_7b(), ours + rest, folder / "qwen", chosen)
        print("(a) is left out here: it would fill 15 GB of memory with zeros.")
    finally:
        if chosen.folder is None:
            shutil.rmtree(folder)


def cpu_name() -> str:
    """What /proc/cpuinfo calls the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
