"""The rows of `bench/gpu.py` that are other programs: tests for a GPU, the kernels' benchmark."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bench.gpu_rows import Figures, Place

ROOT = Path(__file__).parents[1]


def tests(place: Place, seconds: float) -> Figures:
    """``pytest -m gpu``; red ones by name. What is told holds for a run that is cut off, too."""
    files = ["tests/test_graphs.py"] if place.dry else gpu_tests()
    beside = ["-n", "8", "--dist", "worksteal"] if find_spec("xdist") and not place.dry else []
    command = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", "-p", "no:cacheprovider",
               "--durations=6", *beside, *files]  # fmt: skip
    said, _ = output(command, seconds, place.out / "gpu-tests.txt")
    # Lines are other ones with several processes.
    ends = dict(re.findall(ALONE, said, re.MULTILINE))
    ends |= {one: word for word, one in re.findall(SHARED, said, re.MULTILINE)}
    of = {word: [one for one in ends if ends[one] == word] for word in ends.values()}
    found: Figures = {word.lower(): len(names) for word, names in of.items()}
    if not found:
        found["failed"] = (said.strip().splitlines() or ["no word"])[-1][:300]
    if "stopped after" in said.rstrip().rpartition("\n")[2]:
        found["cut off"] = f"after {seconds:.0f} s"
    red = dict.fromkeys([*of.get("FAILED", ()), *of.get("ERROR", ())])
    return found | {f"red {number}": name for number, name in enumerate(red, 1)}


#: a line of ``pytest -v`` that tells of a test, and one with several processes
ALONE = r"^(tests/\S+::.*?) (PASSED|FAILED|SKIPPED|ERROR)"
SHARED = r"^\[gw\d+\][^A-Z]*(PASSED|FAILED|SKIPPED|ERROR) (tests/\S+::.*?) *$"


def gpu_tests() -> list[str]:
    """Files with tests for a GPU: marked, or of kernels, whose fixture is."""
    found = []
    for file in sorted((ROOT / "tests").glob("test_*.py")):
        if re.search(r"mark\.gpu\b|\bengine: ", file.read_text("utf-8")):
            found.append(f"tests/{file.name}")
    return found


def kernels(place: Place, seconds: float) -> Figures:
    """`bench/gpu_kernels.py`, the short way, with configurations; it writes rows of its own."""
    script = ROOT / "bench" / "gpu_kernels.py"
    texts = [one.read_text("utf-8") for one in (script, script.with_name("kernel_configs.py"))]
    more = ["--configs", "--short"] if any("--short" in text for text in texts) else []
    results = ROOT / "bench" / "results"
    before = {path: path.stat().st_mtime_ns for path in results.glob("*")}
    command = [sys.executable, str(script), *more]
    said, status = output(command, seconds, place.out / "gpu-kernels.txt")
    made = [one for one in results.glob("*") if before.get(one) != one.stat().st_mtime_ns]
    for path in made:
        if path.parent != place.out and path.is_file() and "kernel" in path.name:
            (place.out / path.name).write_bytes(path.read_bytes())
    lines = said.strip().splitlines()
    found: Figures = {"lines": len(lines), "file": "gpu-kernels.txt"}
    return found | ({"failed": (lines or ["no word"])[-1][:300]} if status else {})


def output(command: Sequence[str], seconds: float, file: Path) -> tuple[str, int]:
    """What a program prints until it ends or has had its time, kept in a file; its exit status.

    Of one that had its time the status is 0: what it has printed holds.
    """
    status = 0
    paths = os.pathsep.join((str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")))
    with file.open("w", encoding="utf-8") as held:
        try:
            status = subprocess.run(
                command, cwd=ROOT, stdout=held, stderr=subprocess.STDOUT, timeout=seconds,
                stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": paths},
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            held.write(f"\nstopped after {seconds:.0f} s\n")
    return file.read_text("utf-8", errors="replace"), status
