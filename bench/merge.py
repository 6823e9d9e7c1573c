"""Time `beftkit merge` as a user starts it: 15-GB folders of holes, and a real model if given.

Whole processes, in turns; bytes on disk are the blocks that the result takes beside the base's.

    python bench/merge.py --model /path/to/a/bias-free/model
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
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "bench"))

from score_cli import MEASURE, cpu_name  # noqa: E402

from tests.sizes import (  # noqa: E402
    llama_8b,
    qwen2_7b,
    write_sparse_model,
    write_values_adapter,
)

#: the obvious way: the model in memory with its switch turned, the biases filled in, saved again
OBVIOUS = """
import json, sys
import torch, transformers
from safetensors.torch import load_file
base, adapter, out = sys.argv[1:]
config = transformers.AutoConfig.from_pretrained(base)
config.attention_bias = True
model = transformers.AutoModelForCausalLM.from_pretrained(base, config=config, dtype="auto")
with torch.no_grad():
    for name, one in model.named_parameters():
        if name.endswith("_proj.bias"):
            one.zero_()
    for name, one in load_file(f"{adapter}/adapter_model.safetensors").items():
        path = name.removeprefix("base_model.model.").removesuffix(".beft_bias")
        model.get_submodule(path).bias.copy_(one[0])
model.save_pretrained(out)
transformers.AutoTokenizer.from_pretrained(base).save_pretrained(out)
"""


class Run(NamedTuple):
    """One process: seconds, MiB, bytes that the result added to the disk."""

    wall: float
    cpu: float
    peak: float
    disk: int


def timed(words: list[str], out: Path, base: Path) -> Run:
    """Run once, from nothing."""
    shutil.rmtree(out, ignore_errors=True)
    log = out.with_name("log")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(log), sys.executable, *words],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    status, wall, cpu, peak = json.loads(done.stdout)
    if status:
        raise SystemExit(f"{words}: {log.with_name('log.err').read_text()}")
    known = {path.stat().st_ino for path in base.iterdir()}
    made = [path.stat() for path in out.rglob("*") if path.is_file()]
    disk = sum(one.st_blocks * 512 for one in made if one.st_ino not in known)
    return Run(wall, cpu, peak / 1024, disk)


def row(name: str, runs: list[Run], size: int) -> str:
    """A row of the table: medians."""
    wall, cpu, peak = (statistics.median(one[n] for one in runs) for n in range(3))
    disk = runs[-1].disk / 1e6
    return f"| {name} | {size / 1e9:.2f} | {wall:.2f} | {cpu:.2f} | {peak:.0f} | {disk:.2f} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a bias-free model, Llama's kind")
    parser.add_argument("--folder", type=Path, help="where to work: the disk that is measured")
    given = parser.parse_args()
    found = ", ".join(f"{name} {version(name)}" for name in ("numpy", "torch", "transformers"))
    print(
        f"{date.today()}, {platform.platform()}, {os.cpu_count()} x {cpu_name()}; python "
        f"{platform.python_version()}, {found}; {given.repeats} runs, medians.\n"
    )
    print("| merge | base GB | wall s | CPU s | peak MiB | new on disk MB |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        place = Path(name)
        for title, model, width, more in (
            ("Llama-3.1-8B's shape, v added, `--link`", llama_8b(), 1024, ["--link"]),
            ("the same, copied", llama_8b(), 1024, []),
            ("Qwen2.5-7B's shape, v changed in all shards", qwen2_7b(), 512, []),
        ):
            base, adapter = place / "base", place / "adapter"
            for one in (base, adapter):
                shutil.rmtree(one, ignore_errors=True)
            write_sparse_model(base, model, 1)
            write_values_adapter(adapter, model.config["num_hidden_layers"], width)
            words = ["-m", "beftkit", "merge", str(base), str(adapter), "-o", str(place / "out")]
            runs = [timed([*words, *more], place / "out", base) for _ in range(given.repeats)]
            size = sum(path.stat().st_size for path in base.iterdir())
            print(row(title, runs, size), flush=True)
        if given.model is not None:
            real(given.model, place, given.repeats)


def real(model: Path, place: Path, repeats: int) -> None:
    """A model of real bytes, against the obvious way."""
    config = json.loads((model / "config.json").read_text())
    width = config["head_dim"] * config["num_key_value_heads"]
    base, adapter, out = place / "real", place / "values", place / "out"
    shutil.copytree(model, base)
    write_values_adapter(adapter, config["num_hidden_layers"], width)
    size = sum(path.stat().st_size for path in base.iterdir())
    merge = ["-m", "beftkit", "merge", str(base), str(adapter), "-o", str(out)]
    ways = {
        f"{model.name}, v added, `--link`": [*merge, "--link"],
        "the same, copied": merge,
        "the obvious way: loaded, filled in, saved": [
            "-c",
            OBVIOUS,
            *map(str, (base, adapter, out)),
        ],
    }
    runs: dict[str, list[Run]] = {title: [] for title in ways}
    for _ in range(repeats):
        for title, words in ways.items():
            runs[title].append(timed(words, out, base))
    for title, found in runs.items():
        print(row(title, found, size), flush=True)


if __name__ == "__main__":
    main()
