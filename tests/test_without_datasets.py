"""Local data need neither ``datasets`` nor ``evaluate``, as on a machine that has none of them."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_run import write_base, write_examples

ROOT = Path(__file__).parents[1]
ABSENT = ("datasets", "evaluate", "dill", "multiprocess")
BLOCKED = f"""
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""
COMMANDS = (
    BLOCKED
    + """
import json
from beftkit.app import main

for line in sys.stdin:
    sys.argv = ["beftkit", *json.loads(line)]
    try:
        code = main()
    except SystemExit as error:
        code = error.code
    print("exit code:", code or 0, flush=True)
"""
)


def ran(folder: Path, *commands: list[str]) -> subprocess.CompletedProcess[str]:
    """Commands in one process that has none of those packages."""
    paths = [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-c", COMMANDS],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        input="".join(json.dumps(one) + "\n" for one in commands),
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and its task as jsonl, csv, Parquet and in SST-2's own layout."""
    import pyarrow
    from pyarrow import parquet

    place = tmp_path_factory.mktemp("local")
    write_base(place / "base")
    (place / "SST-2").mkdir()
    for split, count in (("train", 24), ("dev", 13)):
        path = write_examples(place / f"{split}.jsonl", count, len(split))
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        with (place / f"{split}.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, ["text", "label"])
            table.writeheader()
            table.writerows(rows)
        parquet.write_table(pyarrow.Table.from_pylist(rows), place / f"{split}.parquet")
        lines = [f"{row['text']}\t{int(row['label'] == 'pos')}" for row in rows]
        official = place / "SST-2" / f"{split}.tsv"
        official.write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    return place


TWO = ["--metric", "f1", "--metric", "matthews"]
QUICK = ["--epochs", "1", "--batch-size", "8", "--lr", "1e-2", "--device", "cpu", "--quiet"]


def own(kind: str) -> list[str]:
    return ["--train-file", f"train.{kind}", "--validation-file", f"dev.{kind}"]


@pytest.fixture(scope="module")
def done(folder: Path) -> list[tuple[str, str]]:
    """Each command's exit code and error; all in one process, whose start costs most."""
    (folder / "mine.py").write_text("import evaluate\n")
    official = ["--task", "sst2", "--data-dir", "."]
    found = ran(
        folder,
        ["train", "base", *own("csv"), *TWO, *QUICK, "-o", "csv"],
        ["evaluate", "csv", "--device", "cpu", "--quiet"],
        ["predict", "csv", "dev.csv", "--device", "cpu", "--quiet", "-o", "said.csv"],
        ["fisher", "base", *official, "--device", "cpu", "--quiet"],
        ["select", "base", *own("parquet"), *QUICK, "-o", "selection"],
        ["train", "base", "--task", "sst2", *QUICK, "-o", "hub"],
        ["train", "base", *own("jsonl"), "--metric", "mine.py", *QUICK, "-o", "metric"],
    )
    codes = [line.split()[-1] for line in found.stdout.splitlines() if "exit code: " in line]
    lines = [line for line in found.stderr.splitlines() if line.startswith("beftkit: error:")]
    assert len(codes) == 7, found.stderr
    return list(zip(codes, [*[""] * (7 - len(lines)), *lines], strict=True))


def test_local_files_need_neither(done: list[tuple[str, str]]) -> None:
    assert done[:5] == [("0", "")] * 5


def test_what_needs_them_says_what_to_install(done: list[tuple[str, str]]) -> None:
    (hub, on_hub), (metric, of_others) = done[5:]
    assert (hub, metric) == ("1", "1")
    assert "pip install datasets" in on_hub and "--data-dir" in on_hub
    assert "pip install evaluate" in of_others
