"""Every kernel compiled ahead of time for GPUs that are not here; see tests/kernels_aot.py."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import INTERPRETED

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "bench" / "results" / "aot.csv"
COMMAND = "python tests/kernels_aot.py --write bench/results/aot.csv"
TARGETS = ["sm_80", "sm_90", "sm_100", "gfx942"]
DTYPES = ["fp32", "bf16", "fp16", "mixed"]
#: 128-bit loads of a tile, of both sides where there are two; float64 is part of mixed
WIDE = {
    ("pair_sums_kernel", "fp32"): 4, ("pair_sums_kernel", "bf16"): 2,
    ("pair_sums_kernel", "fp16"): 2, ("pair_sums_kernel", "mixed"): 16,
    ("square_sums_kernel", "fp32"): 4, ("square_sums_kernel", "bf16"): 2,
    ("square_sums_kernel", "fp16"): 2, ("square_sums_kernel", "mixed"): 16,
}  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(INTERPRETED, reason="interpreted kernels cannot be compiled"),
    pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux"),
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Whatever was compiled, one row each."""
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "kernels_aot.py")],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def name(row: dict[str, Any]) -> str:
    return " ".join(str(row[key]) for key in ("kernel", "dtype", "aligned", "target"))


def test_everything_is_compiled(rows: list[dict[str, Any]]) -> None:
    wanted = {
        f"{kernel}_kernel {dtype} {aligned} {target}"
        for kernel in ("pair_sums", "square_sums")
        for dtype in DTYPES
        for aligned in (True, False)
        for target in TARGETS
    } | {f"role_means_kernel fp64 False {target}" for target in TARGETS}
    assert {name(row) for row in rows} == wanted


def test_nothing_is_spilled(rows: list[dict[str, Any]]) -> None:
    """Neither registers to the stack, nor anything to local memory."""
    assert [name(row) for row in rows if row["spills"] or row["local"]] == []


def test_offsets_have_64_bits(rows: list[dict[str, Any]]) -> None:
    assert [name(row) for row in rows if row["narrow_offsets"]] == []
    assert all(row["loads"] for row in rows if row["kernel"] != "role_means_kernel")


def test_only_programs_are_counted(rows: list[dict[str, Any]]) -> None:
    """No float atomics: one count, behind a barrier, that hands on what was stored before it."""
    for row in rows:
        counts = row["kernel"] != "role_means_kernel"
        assert row["atomics"] == ["add, acq_rel, gpu"] * counts, name(row)
        assert row["barriers"] == counts, name(row)


def test_one_warp_stores_what_is_counted(rows: list[dict[str, Any]]) -> None:
    """Sums of a split: the thread that counts them in releases the stores of its own warp only."""
    squares = [row for row in rows if row["kernel"] == "square_sums_kernel"]
    assert squares and all(row["warps_storing"] == [1] for row in squares)


def test_aligned_loads_have_128_bits(rows: list[dict[str, Any]]) -> None:
    """All loads of a tile, from addresses in a table; where unaligned, none."""
    wide = {name(row): row["wide_loads"] for row in rows}
    short = []
    for row in rows:
        if row["aligned"]:
            # On gfx942 the table itself is read that way, aligned or not.
            unaligned = wide[name(row | {"aligned": False})]
            if row["wide_loads"] - unaligned < WIDE[row["kernel"], row["dtype"]]:
                short.append(f"{name(row)}: {row['wide_loads']} - {unaligned}")
    assert short == []
    assert not any(v for k, v in wide.items() if "False" in k and "gfx942" not in k)


def test_the_table_is_current(rows: list[dict[str, Any]]) -> None:
    """The committed table has these rows; and these registers, if Triton is the one it names."""
    with TABLE.open(newline="") as file:
        table = {name(row): row for row in csv.DictReader(file)}
    assert table.keys() == {name(row) for row in rows}, f"run: {COMMAND}"
    for row in rows:
        committed = table[name(row)]
        assert committed["spills"] == committed["local"] == "0"
        if committed["triton"] == row["triton"]:
            for key in ("registers", "shared"):
                assert committed[key] == str(row[key]), f"{name(row)}: {key}; run: {COMMAND}"
