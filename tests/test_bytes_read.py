"""What a score costs at real size: the bytes it reads and the memory it takes. No timing here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from beftkit import inspect, score
from beftkit.checkpoints import open_checkpoint
from tests.sizes import Model, bert_base, qwen2_7b, write_sparse_model

ROOT = Path(__file__).parents[1]
# Peak memory as the kernel counts it never falls below that of the process that started one, and
# pytest may be large: a small one stands between.
CHILD = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.fixture(params=[bert_base, qwen2_7b], ids=["bert-base", "qwen2.5-7b"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, int, Model]:
    """A sparse pair, the bytes of its headers and biases, and the model."""
    build: Callable[[], Model] = request.param
    sides = tmp_path / "pre", tmp_path / "post"
    needed = sum(write_sparse_model(side, build(), seed) for seed, side in enumerate(sides, 1))
    return *sides, needed, build()


def test_bytes_read(pair: tuple[Path, Path, int, Model]) -> None:
    pre, post, needed, model = pair
    scores = score(pre, post)
    layers = {"bert": 12, "qwen2": 28}[model.config["model_type"]]
    assert len(scores.sites) == layers * {"bert": 8, "qwen2": 3}[model.config["model_type"]]
    assert 0.9 * needed < scores.bytes_read <= 1.1 * needed


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel does not count here")
def test_the_kernel_counts_the_same(pair: tuple[Path, Path, int, Model]) -> None:
    """Our count is not taken on trust: this one sees every read, buffered or not."""
    pre, post, *_ = pair
    beside = sum(path.stat().st_size for side in (pre, post) for path in side.glob("*.json"))
    score(pre, post)  # what is imported late is imported now
    before = read_so_far()
    scores = score(pre, post)
    assert 0 <= read_so_far() - before - scores.bytes_read - beside < 4096


def read_so_far() -> int:
    counts = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in counts)["rchar"])


def test_opening_reads_the_headers_alone(pair: tuple[Path, Path, int, Model]) -> None:
    folder = pair[0]
    headers = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            headers += 8 + int.from_bytes(file.read(8), "little")
    assert open_checkpoint(folder).bytes_read == headers


@pytest.mark.parametrize("arguments", [["score"], ["score", "--format", "json"], ["inspect"]])
def test_peak_memory(arguments: list[str], pair: tuple[Path, Path, int, Model]) -> None:
    sides = [str(side) for side in (pair[:2] if "score" in arguments else pair[:1])]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, sys.executable, "-m", "beftkit", *arguments, *sides],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL, timeout=120,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    code, kibibytes = map(int, done.stdout.split())
    assert code == 0, done.stderr
    assert kibibytes < 100_000


def test_scores_are_of_the_biases_written(pair: tuple[Path, Path, int, Model]) -> None:
    """Holes read as zeros, so a wrong offset would show as a norm of 0."""
    for role in inspect(pair[0]).roles:
        assert role.norm_min is not None
        assert 0.8 < role.norm_min / role.widths[0] ** 0.5 < 1.2
    assert json.loads((pair[0] / "config.json").read_text()) == pair[3].config
