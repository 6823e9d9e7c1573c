"""Time what is made of a survey's rows: read again, terminal table, table of all sites, page.

The rows are drawn at random and never were models. See bench/README.md for results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def measure(folder: Path) -> dict[str, float]:
    """Seconds of each part, bytes of what is made, most memory in MiB; in this process."""
    import beftkit.present.survey as show
    from beftkit.present.pages.survey import write_page
    from beftkit.present.terminal import terminal_text
    from beftkit.surveys.results import NEIGHBOURS, PARQUET, read

    found: dict[str, float] = {}
    (folder / NEIGHBOURS).unlink(missing_ok=True)
    begin = time.perf_counter()
    read(folder)
    found["read and search neighbours s"] = time.perf_counter() - begin
    begin = time.perf_counter()
    survey = read(folder)
    found["read again s"] = time.perf_counter() - begin
    begin = time.perf_counter()
    terminal_text(show.document(survey).blocks, "utf-8", False)
    found["document and terminal s"] = time.perf_counter() - begin
    begin = time.perf_counter()
    write_page(survey)
    found["page, figures, CSV, Parquet s"] = time.perf_counter() - begin
    found["page MB"] = (folder / "survey.html").stat().st_size / 1e6
    found["Parquet MB"] = (folder / PARQUET).stat().st_size / 1e6
    status = Path("/proc/self/status").read_text()
    found["most memory MiB"] = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return found


def _changes(count: int, length: int) -> Iterator[bytes]:
    """Rows at random, one at a time: all of them may be gigabytes."""
    import numpy as np

    rng = np.random.default_rng(1)
    for _ in range(count):
        yield rng.standard_normal(length, np.float32).tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--qwen", action="store_true", help="84 biases of Qwen2.5-7B's lengths")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.folder:
        print(json.dumps(measure(chosen.folder)))
        return
    from tests.surveys import QWEN, head, rows, write

    with tempfile.TemporaryDirectory() as place:
        base = head(28, QWEN) if chosen.qwen else head(12)
        some = rows(base, chosen.models, without=chosen.models // 10)
        write(Path(place), base, some, _changes(chosen.models, base.length))
        given = [sys.executable, __file__, "--folder", place]  # memory of its own
        done = subprocess.run(given, capture_output=True, text=True, check=True)
    print(f"{chosen.models:,} scored models, {len(base.sites)} biases of {base.length:,} numbers\n")
    print("| | |\n|---|---|")
    found = json.loads(done.stdout)
    if found["page MB"] > 5:
        raise SystemExit("the page grew")
    for name, value in found.items():
        print(f"| {name} | {value:.3g} |")


if __name__ == "__main__":
    main()
