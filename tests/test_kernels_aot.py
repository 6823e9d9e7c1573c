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


COLUMNS = ("kernel", "dtype", "aligned", "split", "tiles", "target")


def name(row: dict[str, Any]) -> str:
    return " ".join(str(row[key]) for key in COLUMNS)


def test_everything_is_compiled(rows: list[dict[str, Any]]) -> None:
    wanted = {
        f"{kernel}_kernel {dtype} {aligned} {split} {target}"
        for kernel, split in (("pair_sums", True), ("pair_sums", False), ("square_sums", False))
        for dtype in DTYPES
        for aligned in (True, False)
        for target in TARGETS
    } | {f"{one}_kernel fp64 False False {t}" for one in ("role_means", "totals") for t in TARGETS}
    columns = [key for key in COLUMNS if key != "tiles"]
    assert {" ".join(str(row[key]) for key in columns) for row in rows} == wanted


def test_nothing_is_spilled(rows: list[dict[str, Any]]) -> None:
    """No tile goes to the stack, nor anything to local memory: a few scalars may be put aside."""
    assert [name(row) for row in rows if row["spills"] > 16 or row["local"]] == []


def test_offsets_have_64_bits(rows: list[dict[str, Any]]) -> None:
    assert [name(row) for row in rows if row["narrow_offsets"]] == []
    assert all(row["loads"] for row in rows if row["kernel"] != "role_means_kernel")


def test_only_programs_are_counted(rows: list[dict[str, Any]]) -> None:
    """No float atomics: one count, behind a barrier, that hands on what was stored before it."""
    for row in rows:
        counts = str(row["split"]) == "True"
        assert row["atomics"] == ["add, acq_rel, gpu"] * counts, name(row)
        assert row["barriers"] == counts, name(row)


def test_aligned_loads_have_128_bits(rows: list[dict[str, Any]]) -> None:
    """All loads of a tile, from addresses in a table; where unaligned, none."""
    short = []
    for row in rows:
        if row["aligned"] and row["wide_loads"] < row["wanted_wide"]:
            short.append(f"{name(row)}: {row['wide_loads']} of {row['wanted_wide']}")
    assert short == []
    narrow = [row for row in rows if not row["aligned"] and row["target"] != "gfx942"]
    assert narrow and not any(row["wide_loads"] for row in narrow)


def test_the_table_is_current(rows: list[dict[str, Any]]) -> None:
    """The committed table has these rows; and these registers, if Triton is the one it names."""
    with TABLE.open(newline="") as file:
        table = {name(row): row for row in csv.DictReader(file)}
    assert table.keys() == {name(row) for row in rows}, f"run: {COMMAND}"
    for row in rows:
        committed = table[name(row)]
        assert int(committed["spills"]) <= 16 and committed["local"] == "0"
        if committed["triton"] == row["triton"]:
            for key in ("registers", "shared"):
                assert committed[key] == str(row[key]), f"{name(row)}: {key}; run: {COMMAND}"
