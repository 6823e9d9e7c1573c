"""Time `beftkit score owner/pre owner/post` on a stand-in hub, against the ways that fetch more.

Whole processes. The hub is simulated: a server on loopback that waits before each answer, so there
is latency, but no limit of bandwidth and no TLS. Nothing of 30 GB is sent for real: the time of a
download is computed from its bytes. See bench/README.md for results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.score_cli import cpu_name  # noqa: E402
from tests.hub_server import Hub  # noqa: E402
from tests.sizes import Model, bert_base, qwen2_7b, write_sparse_model  # noqa: E402

SCORE = "import sys; from beftkit.app import main; sys.exit(main())"
ONE_THREAD = f"from beftkit.checkpoints import fetch; fetch.THREADS = 1; {SCORE}"
#: header and biases of every weight file through HfFileSystem; a block size of 0 is its default
FILE_SYSTEM = """
import json, sys
from huggingface_hub import HfFileSystem
block, *repos = sys.argv[1:]
files = HfFileSystem()
for repo in repos:
    for path in files.glob(f"{repo}/*.safetensors"):
        with files.open(path, "rb", **({"block_size": int(block)} if block != "0" else {})) as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            for name, entry in sorted(header.items(), key=lambda i: i[1].get("data_offsets", [0])):
                if name.endswith(".bias"):
                    begin, end = entry["data_offsets"]
                    file.seek(8 + length + begin)
                    assert len(file.read(end - begin)) == end - begin
"""
DOWNLOAD = """
import sys
from huggingface_hub import hf_hub_download
hf_hub_download(sys.argv[1], "model.safetensors")
"""


class Row(NamedTuple):
    """One way: seconds of the whole process, requests and bytes that the server counted."""

    title: str
    wall: float
    requests: int
    served: int


def run(hub: Hub, home: Path, code: str, *arguments: str) -> tuple[float, str]:
    """Run Python code in a process that knows only this hub and an empty cache."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    given |= {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
    }  # fmt: skip
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=given, cwd=home.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    wall = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"failed: {done.stderr}")
    return wall, done.stdout


def measure(title: str, repeats: int, hubs: list[Hub], once: Callable[[], float]) -> Row:
    """The median time of several runs; requests and bytes are those of the last."""
    walls = []
    for _ in range(repeats):
        for hub in hubs:
            hub.log.clear()
        walls.append(once())
    log = [one for hub in hubs for one in hub.log]
    return Row(title, statistics.median(walls), len(log), sum(one.served for one in log))


def bench(title: str, model: Model, folder: Path, chosen: Any) -> None:
    """Publish one pair and print its table."""
    home, sides = folder / "home", ("pre", "post")
    needed = sum(write_sparse_model(folder / side, model, seed) for seed, side in enumerate(sides))
    weights = [path for side in sides for path in (folder / side).glob("*.safetensors")]
    size = sum(path.stat().st_size for path in weights)
    with Hub(chosen.latency / 1000) as hub, Hub(chosen.latency / 1000) as store:
        for side in sides:
            hub.add(f"o/{side}", folder / side)
        store.repos = hub.repos
        both = ("o/pre", "o/post")

        def score(code: str = SCORE) -> float:
            wall, printed = run(hub, home, code, "score", *both, "--format", "json")
            found = json.loads(printed)["posts"][0]["roles"]
            if found != json.loads(local)["posts"][0]["roles"]:
                raise SystemExit("the scores differ from those of the local files")
            return wall

        def read(block: str) -> float:
            return run(hub, home, FILE_SYSTEM, block, *both)[0]

        paths = [str(folder / side) for side in sides]
        near, local = run(hub, home, SCORE, "score", *paths, "--format", "json")
        rows = [
            measure("`beftkit score`", chosen.repeats, [hub], score),
            measure("the same, one thread", 1, [hub], lambda: score(ONE_THREAD)),
        ]
        weights_served = hub.served(".safetensors")
        hub.store = store
        rows.append(measure("the same, redirected to a store", 1, [hub, store], score))
        hub.store = None
        for block, words in (("65536", "64 KiB"), ("0", "default")):
            title_here = f"`HfFileSystem.open`, {words} blocks"
            rows.append(measure(title_here, 1, [hub], partial(read, block)))
    print(f"### {title}: 2 x {size / 2e9:.2f} GB in {len(weights)} files, {model.dtype}\n")
    print("| way | wall s | requests | served MB | share of the files |")
    print("|---|---|---|---|---|")
    for row in rows:
        share = f"{100 * row.served / size:.4f} %"
        print(
            f"| {row.title} | {row.wall:.2f} | {row.requests} | {row.served / 1e6:.2f} | {share} |"
        )
    seconds = size / (chosen.bandwidth * 1e6)
    print(
        f"| download (computed: {chosen.bandwidth:g} MB/s, nothing else) | {seconds:.0f} | "
        f"- | {size / 1e6:.0f} | 100 % |\n"
    )
    print(
        f"Of the weight files {weights_served:,} bytes were served: {weights_served / needed:.3f} "
        f"x headers and biases. Local files: {near:.2f} s. A download takes "
        f"{seconds / rows[0].wall:.0f} times as long as `beftkit score` and moves "
        f"{size / rows[0].served:,.0f} times the bytes.\n"
    )


def loopback_download(folder: Path) -> None:
    """What hf_hub_download makes of a server without any limit: an upper bound of its speed."""
    write_sparse_model(folder / "one", bert_base(), 1)
    size = (folder / "one" / "model.safetensors").stat().st_size
    with Hub() as hub:
        hub.add("o/one", folder / "one")
        wall, _ = run(hub, folder / "home-2", DOWNLOAD, "o/one")
    print(
        f"`hf_hub_download` of one file of {size / 1e6:.0f} MB over loopback, without latency "
        f"or limit: {wall:.2f} s, {size / wall / 1e6:.0f} MB/s. Extrapolated, not run: 2 x 15.23 "
        f"GB at that speed would take {30.46e9 / (size / wall):.0f} s.\n"
    )


def main() -> None:
    """Print Markdown for bench/README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="runs of `beftkit score` [5]")
    parser.add_argument("--latency", type=float, default=30, help="ms before each answer [30]")
    parser.add_argument(
        "--bandwidth", type=float, default=125, help="MB/s of the computed download [125: 1 Gbit/s]"
    )
    chosen = parser.parse_args()
    names = ("numpy", "huggingface_hub")
    print(f"    python {' '.join(sys.argv)}\n")
    print(
        f"{date.today()}, {platform.platform()}, {os.cpu_count()} x {cpu_name()}; python "
        f"{platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in names)}; "
        f"simulated: a hub on loopback that waits {chosen.latency:g} ms before each answer; "
        f"`beftkit score`: {chosen.repeats} runs, median; the others: one run.\n"
    )
    with tempfile.TemporaryDirectory(prefix="beftkit-bench-") as name:
        for title, model in (("BERT-base-sized", bert_base()), ("Qwen2.5-7B-shaped", qwen2_7b())):
            folder = Path(name) / title
            folder.mkdir()
            bench(title, model, folder, chosen)
        loopback_download(Path(name))


if __name__ == "__main__":
    main()
