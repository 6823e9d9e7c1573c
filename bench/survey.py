"""Time `beftkit survey` over many models of one shape on a stand-in hub.

The hub is simulated in a process of its own: it waits before each answer, so there is latency, but
no limit of bandwidth and no TLS. Models are sparse files; many names share one of a few. With
--limit the hub grants so many file requests in a window and refuses the rest, as it publishes, and
time goes --speed times faster for both sides. See bench/README.md for results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.score_cli import cpu_name  # noqa: E402
from tests.sizes import bert_base, qwen2_7b, write_sparse_model  # noqa: E402
from tests.survey_hub import Grant, SurveyHub  # noqa: E402

SHAPES = {"qwen2.5-7b": qwen2_7b, "bert-base": bert_base}
#: different models; the others are these under other names
FOLDERS = 8


def serve(folder: Path, asked: Any) -> None:
    """The hub, until stdin ends; then what it counted, as JSON."""
    with SurveyHub(asked.latency / 1000) as hub, SurveyHub(asked.latency / 1000) as store:
        hub.add("o/base", folder / "0")
        for number in range(asked.models):
            name = f"o/m{number:05d}"
            hub.tuned(name, folder / str(1 + number % FOLDERS), base="o/base", downloads=-number)
        if asked.store:
            store.repos, hub.store = hub.repos, store
        if asked.limit:
            hub.grants["resolvers"] = Grant(asked.limit, asked.window, asked.speed)
        print(hub.url, flush=True)
        sys.stdin.read()
        grant = hub.grants.get("resolvers")
        log = [one for one in (*hub.log, *store.log) if ".safetensors" in one.path]
        weights = sum(one.served for one in log if not one.path.endswith(".json"))
        found = {"requests": len(hub.log) + len(store.log), "to the hub": len(hub.log)}
        found |= {"weights": weights, "served": hub.served() + store.served()}
        found |= {"busiest": max(hub.busiest, store.busiest)}
        found |= {"429": sum(one.status == 429 for one in hub.log)}
        if grant is not None:
            found |= {"used": grant.used}
        print(json.dumps(found), flush=True)


def survey(folder: Path, asked: Any) -> None:
    """The survey, in this process: seconds and memory as JSON."""
    from beftkit.surveys import gate
    from beftkit.surveys.survey import survey as work

    if asked.speed != 1:
        defaults = gate.Gate.__init__.__defaults__
        assert defaults is not None
        clock = lambda: time.monotonic() * asked.speed  # noqa: E731
        sleep = lambda seconds: time.sleep(seconds / asked.speed)  # noqa: E731
        gate.Gate.__init__.__defaults__ = (defaults[0], clock, sleep)
    begin, cpu = time.perf_counter(), time.process_time()
    found = work("o/base", output=folder / "out", limit=None, max_bytes=asked.max_bytes)
    status = Path("/proc/self/status").read_text()
    scored = sum(row.outcome == "scored" for row in found.rows)
    print(
        json.dumps(
            {
                "wall s": round(time.perf_counter() - begin, 1),
                "CPU s": round(time.process_time() - cpu, 1),
                "peak MiB": int(status.split("VmHWM:")[1].split()[0]) // 1024,
                "scored": scored,
                "torch": "torch" in sys.modules,
            }
        )
    )


def process(role: str, folder: Path, **given: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(folder / "home"), **given}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    command = [sys.executable, __file__, *sys.argv[1:], "--role", role, "--folder", str(folder)]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def main() -> None:
    """Print Markdown for bench/README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-7b")
    parser.add_argument("--latency", type=float, default=30, help="ms before each answer [30]")
    parser.add_argument("--limit", type=int, default=0, help="requests in a window [no limit]")
    parser.add_argument("--window", type=int, default=300, help="its seconds [300]")
    parser.add_argument("--speed", type=float, default=1, help="times faster than told [1]")
    parser.add_argument("--max-bytes", type=int, default=0)
    parser.add_argument("--store", action="store_true", help="redirect to a store, as hubs do")
    parser.add_argument("--role", choices=("hub", "survey"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.role:
        (serve if asked.role == "hub" else survey)(asked.folder, asked)
        return
    with tempfile.TemporaryDirectory(prefix="beftkit-bench-") as name:
        folder = Path(name)
        needed = [
            write_sparse_model(folder / str(seed), SHAPES[asked.shape](), seed)
            for seed in range(FOLDERS + 1)
        ]
        hub = process("hub", folder)
        assert hub.stdout is not None and hub.stdin is not None
        url = hub.stdout.readline().strip()
        said = process("survey", folder, HF_ENDPOINT=url).communicate()[0]
        hub.stdin.close()
        counted = json.loads(hub.stdout.read())
        found = json.loads(said.splitlines()[-1])
        if found["scored"] != asked.models:
            raise SystemExit(f"scored {found['scored']} of {asked.models}")
        least = needed[0] + sum(needed[1 + n % FOLDERS] for n in range(asked.models))
    print(f"    python {' '.join(sys.argv)}\n")
    print(
        f"{date.today()}, {platform.platform()}, {os.cpu_count()} x {cpu_name()}; python "
        f"{platform.python_version()}, numpy {version('numpy')}, huggingface_hub "
        f"{version('huggingface_hub')}; simulated hub, {asked.latency:g} ms before each answer.\n"
    )
    print(
        "| models | wall s | CPU s | peak MiB | requests | to the hub | each | at once | weight "
        "files: MB | x headers and biases | refused |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    print(
        f"| {asked.models} | {found['wall s']} | {found['CPU s']} | {found['peak MiB']} | "
        f"{counted['requests']:,} | {counted['to the hub']:,} | "
        f"{counted['to the hub'] / asked.models:.1f} | {counted['busiest']} | "
        f"{counted['weights'] / 1e6:.1f} | {counted['weights'] / least:.3f} | {counted['429']} |\n"
    )
    if "used" in counted:
        used, full = counted["used"], counted["used"][:-1]
        share = 100 * sum(full) / max(asked.limit * len(full), 1)
        print(
            f"Granted {asked.limit:,} in {asked.window} s ({asked.speed:g} times faster): used "
            f"{', '.join(f'{one:,}' for one in used)}; of all windows but the last {share:.1f} %."
        )
    print(f"torch imported: {found['torch']}")


if __name__ == "__main__":
    main()
