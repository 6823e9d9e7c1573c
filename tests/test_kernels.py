"""The kernels from outside: what importing costs, which backend is taken, and the interpreter."""

from __future__ import annotations

import csv
import doctest
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import beftkit_kernels
from beftkit_kernels import Pairs, Track, example_square_sum, projection_stats
from tests.conftest import INTERPRETED

ROOT = Path(__file__).parents[1]
PATHS = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])


def python(code: str, **environment: str) -> str:
    """Run Python code in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": PATHS, **environment},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_is_light() -> None:
    code = "import sys, {}; print([m for m in ('torch', 'triton') if m in sys.modules])"
    assert python(code.format("beftkit_kernels")) == "[]"
    # Nor does the torch path ask for Triton, or for a device.
    code = code.format("torch, beftkit_kernels.track") + "; print(torch.cuda.is_initialized())"
    assert python(code).splitlines() == ["['torch']", "False"]


def test_names() -> None:
    assert dir(beftkit_kernels) == sorted(beftkit_kernels.__all__)
    for name in beftkit_kernels.__all__:
        assert getattr(beftkit_kernels, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'projection_stat'"):
        _ = beftkit_kernels.projection_stat


@pytest.mark.parametrize("module", ["pairs", "gradients", "track"])
def test_examples_run(module: str) -> None:
    tested = doctest.testmod(importlib.import_module(f"beftkit_kernels.{module}"))
    assert tested.attempted and not tested.failed


@pytest.mark.skipif(INTERPRETED, reason="the interpreter takes tensors on the CPU")
def test_triton_where_there_is_none() -> None:
    one = [torch.ones(2)]
    message = r"backend 'triton' needs tensors on a CUDA or ROCm device, these are on cpu"
    for call in (
        lambda: projection_stats(one, one, backend="triton"),
        lambda: example_square_sum(torch.ones(1, 1, 1), backend="triton"),
        lambda: Track({"a": one[0]}, {"a": "q"}, backend="triton"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="backend 'cuda'; expected one of auto, triton, torch"):
        projection_stats(one, one, backend="cuda")
    assert Pairs(one, one).backend == "torch"


def test_triton_not_installed() -> None:
    """As on macOS and Windows: auto goes to torch, and asking is a clear error."""
    code = (
        "import importlib.util as u, torch; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'triton' else real(name, *a)\n"
        "from beftkit_kernels._launch import choose\n"
        "print(choose('auto', torch.device('cuda')))\n"
        "try: choose('triton', torch.device('cuda'))\n"
        "except ValueError as error: print(error)\n"
    )
    lines = python(code).splitlines()
    assert lines[0] == "torch" and "'triton' is not installed" in lines[1]


def test_devices_may_not_be_mixed() -> None:
    with pytest.raises(ValueError, match="tensors on cpu and on meta; expected one device"):
        projection_stats([torch.ones(1)], [torch.ones(1, device="meta")])


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="it would start itself")
def test_interpreted_kernels(tmp_path: Path) -> None:
    """All kernel tests again, on the Triton kernels themselves as the interpreter runs them.

    A process of its own: TRITON_INTERPRET is read when a kernel is defined.
    """
    files = sorted(map(str, (ROOT / "tests").glob("test_kernels_[p-t]*.py")))
    assert len(files) == 6
    quiet = ["-q", "--tb=short", "--maxfail=5", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *quiet, *files],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout and "xfailed" not in done.stdout


def test_alignment_is_checked_at_the_door() -> None:
    """The wide path is taken where every vector allows it, and only there."""
    from beftkit_kernels.layout import pair_table
    from beftkit_kernels.squares import is_aligned

    def aligned(*addresses: int, lengths: tuple[int, ...] = (8, 8)) -> bool:
        kinds = torch.zeros(2, dtype=torch.int64)
        pre, post = torch.tensor(addresses[:2]), torch.tensor(addresses[2:])
        table = pair_table((pre, post), (kinds, kinds), torch.tensor(lengths), torch.device("cpu"))
        return table.aligned

    assert aligned(64, 96, 16, 32)
    assert not aligned(64, 100, 16, 32)
    assert not aligned(64, 96, 16, 40)
    assert aligned(64, 100, 16, 36, lengths=(8, 0))  # an empty vector is not read
    whole = torch.zeros(4, 6, 96)
    wide = [whole, whole[:, :, 32:64], whole.transpose(0, 1), whole[:, ::2], whole[:0]]
    narrow = [whole[:, :, 1:33], whole[:, :, :30], whole[..., ::2], whole.mT]
    assert [is_aligned(x) for x in wide + narrow] == [True] * 5 + [False] * 4
    # The first row of the first token is aligned, the second token or row is not.
    assert not is_aligned(torch.zeros(2, 2, 12)[:, :, :8])
    assert not is_aligned(torch.zeros(2, 17)[:, :16].unflatten(1, (2, 8)))


def test_choices_were_measured() -> None:
    """Launchers take no way that has not run, and been found right, on a GPU."""
    pytest.importorskip("triton")
    from beftkit_kernels import layout, squares

    measured = set()
    for path in (ROOT / "bench" / "results").glob("kernel_configs*.csv"):
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            measured |= {(row["kernel"], row["dtype"], row["config"]) for row in rows}
    for size, dtype in ((4, "float32"), (2, "bfloat16")):
        for tiles in layout.CHOICES[size]:
            assert not tiles.ahead
            config = str(tuple(tiles[:4])) + ", even" * tiles.even
            assert ("projection_stats", dtype, config) in measured
        assert ("example_square_sums", dtype, str(tuple(squares.CHOICES[size]))) in measured
