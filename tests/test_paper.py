"""The paper's tables as data, and run on a tiny model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from beftkit.errors import BeftError, UsageError
from beftkit.present.document import Lines
from beftkit.present.paper import paper_plan_document
from beftkit.registry import TASKS
from beftkit.settings.paper import PaperSettings
from beftkit.settings.resolve import resolve
from beftkit.suite import PaperPlan, PaperResult, paper, time_paper
from beftkit.suite.cells import TABLES, table_of
from beftkit.suite.published import GLUE, TABLE1, TABLE4, TABLE5, TABLE5_TASKS
from beftkit.suite.units import Unit
from tests import tiny_run
from tests.command import Beftkit, misused
from tests.task_files import write_folder

QUICK: dict[str, Any] = {
    "device": "cpu", "train_size": 8, "epochs": 1, "batch_size": 4, "eval_steps": 2,
}  # fmt: skip


def lines_of(plan: PaperPlan) -> list[str]:
    blocks = paper_plan_document(plan).blocks
    return [line for block in blocks if isinstance(block, Lines) for line in block.items]


# --- as data


def test_the_figures_of_table_1_have_the_averages_that_it_prints() -> None:
    printed = {
        "low": (64.5, 57.8, 53.5), "medium": (70.8, 63.3, 50.4), "high": (71.7, 64.7, 50.4),
    }  # fmt: skip
    for regime, averages in printed.items():
        for bias, average in zip("vqk", averages, strict=True):
            figures = TABLE1[regime][bias]
            assert len(figures) == len(GLUE)
            assert sum(figures) / len(figures) == pytest.approx(average, abs=0.08), (regime, bias)
    low = {name: at for at, name in enumerate(GLUE)}
    for bias, row in TABLE4["bert-base-cased"].items():
        assert row[:2] == tuple(TABLE1["low"][bias][low[task]] for task in ("sst2", "rte"))
    assert all(len(row) == len(TABLE5_TASKS) for rows in TABLE5.values() for row in rows.values())


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_of_a_table_resolves(name: str) -> None:
    table = table_of(PaperSettings(table=name))  # type: ignore[arg-type]
    names = [cell.name for cell in table.cells]
    assert len(set(names)) == len(names)
    for cell in table.cells:
        Unit(cell, 0).settings()
        task = TASKS[cell.task]
        held = task.prompt.metrics if name == "table5" and task.prompt else task.metrics
        for _, metric, _ in cell.rows:
            assert metric.removesuffix("_matched").removesuffix("_mismatched") in held


def test_what_makes_no_sense_is_refused() -> None:
    for given, message in (
        ({"part": "5/4"}, "expected such as 1/4"),
        ({"part": "0/4"}, "expected such as 1/4"),
        ({"cells": "sst3-*"}, "match none, such as sst2-low-v"),
        ({"seeds": "0,0"}, "expected different whole numbers"),
        ({"table": None}, "expected one of figure1, table1"),
    ):
        with pytest.raises(UsageError) as error:
            table_of(resolve(PaperSettings, None, {"table": "table1", **given}))
        assert message in str(error.value)


# --- run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``glue`` with RTE and SST-2, ``superglue`` with CB."""
    folder = tmp_path_factory.mktemp("data")
    for task in ("rte", "sst2"):
        write_folder(folder / "glue", task)
    write_folder(folder / "superglue", "cb")
    return folder


@pytest.fixture(scope="module")
def found(
    tiny: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, PaperResult]:
    """Three cells of table 4, seeds 0 and 1, the first of two parts alone."""
    folder = tmp_path_factory.mktemp("paper")
    how = {**QUICK, "model": str(tiny / "base"), "data_dir": str(data), "seeds": (0, 1)}
    cells = ("cb-low-v", "rte-low-v", "wic-low-v")
    return folder, paper("table4", output=folder, cells=cells, part="1/2", **how)


def test_ours_stand_beside_the_published(found: tuple[Path, PaperResult], tiny: Path) -> None:
    folder, result = found
    rows = {row.cell: row for row in result.rows}
    # Of each pair that costs alike this part has the first.
    assert (rows["rte-low-v"].seeds, rows["cb-low-v"].seeds) == ((0,), (0,))
    assert result.missing == 4 and rows["cb-low-v"].missing == (1,)
    assert list(result.failed) == ["wic-low-v-seed0"], "its data are not there; the rest went on"
    one = rows["rte-low-v"]
    values = json.loads((folder / "cells/rte-low-v-seed0/all_results.json").read_text())
    best = values["runs"][0]["best"]
    assert one.ours == pytest.approx(100 * best["metrics"]["accuracy"])
    assert one.published == 59.5 and one.difference == pytest.approx((one.ours or 0) - 59.5)
    assert one.standard_error == pytest.approx(100 * best["standard_errors"]["accuracy"])
    assert values["settings"]["lr"] == 1e-3, "the published rate"
    assert result.differs["model"] == str(tiny / "base") and result.differs["epochs"] == 1


def test_the_rest_goes_on_and_what_is_there_is_not_repeated(
    found: tuple[Path, PaperResult], tiny: Path, data: Path
) -> None:
    folder, _ = found
    log = folder / "cells/rte-low-v-seed0/log.jsonl"
    before = log.stat().st_mtime_ns
    how = {**QUICK, "model": str(tiny / "base"), "data_dir": str(data), "seeds": (0, 1)}
    again = paper("table4", output=folder, cells="cb-low-v,rte-low-v", **how)
    assert log.stat().st_mtime_ns == before
    assert again.missing == 0 and not again.failed
    row = next(row for row in again.rows if row.cell == "rte-low-v")
    both = [
        json.loads((folder / f"cells/rte-low-v-seed{seed}/all_results.json").read_text())
        for seed in (0, 1)
    ]
    one, other = (100 * run["runs"][0]["best"]["metrics"]["accuracy"] for run in both)
    assert row.ours == pytest.approx((one + other) / 2)
    assert row.standard_error == pytest.approx(abs(one - other) / 2)


def test_four_machines_share_a_table(
    tiny: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is made by one of them, and afterwards all are shown and none is made."""
    how = {**QUICK, "model": str(tiny / "base"), "data_dir": str(data)}
    cells = "sst2-low-*,rte-low-v,rte-low-q"
    made: list[str] = []
    for part in ("1/4", "2/4", "3/4", "4/4"):
        before = {path.name for path in tmp_path.glob("cells/*")}
        found = paper("table4", output=tmp_path, cells=cells, part=part, **how)
        new = {path.name for path in tmp_path.glob("cells/*")} - before
        # Those of SST-2 cost a little less, so one process has two of them.
        assert len(new) == (2 if part == "3/4" else 1) and not found.failed
        made += new
        assert found.missing == 5 - len(made)
    assert len(made) == len(set(made)) == 5
    monkeypatch.setattr("beftkit.suite.journey.make", None)  # would be called
    found = paper("table4", output=tmp_path, cells=cells, **how)
    assert sorted(f"{row.cell}-seed0" for row in found.rows if row.seeds == (0,)) == sorted(made)
    assert found.missing == 0


def test_what_cannot_be_timed_is_not_counted_as_nothing(
    tiny: Path, data: Path, tmp_path: Path
) -> None:
    how = {"model": str(tiny / "base"), "data_dir": str(data), **QUICK}
    cells = "rte-low-v,wic-low-*"
    found = time_paper(resolve(PaperSettings, None, {"table": "table4", "cells": cells, **how}))
    times = {cell.name: cell.seconds for cell in found.cells}
    assert times.pop("rte-low-v") == found.seconds and found.seconds
    assert set(times.values()) == {None} and found.untimed == 3
    lines = lines_of(found)
    assert "not timed: 3 of them" in lines
    assert sum("wic" in line for line in lines) == 1, "one reason is told once"
    how["data_dir"] = str(tmp_path)
    none = time_paper(resolve(PaperSettings, None, {"table": "table4", "cells": cells, **how}))
    assert none.seconds is None and none.untimed == 4
    assert not [line for line in lines_of(none) if line.startswith("timed")]


def test_the_command_draws_a_figure(
    tiny: Path, data: Path, tmp_path: Path, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_run.link(tiny, tmp_path)
    how = ["--device", "cpu", "--train-size", "8", "--epochs", "1", "--batch-size", "4"]
    how += ["--model", "base", "--data-dir", str(data), "-o", "out"]
    ran = beftkit("paper", "figure1", *how, "--format", "csv")
    assert ran.code == 0, ran
    rows = {row["label"]: row for row in csv.DictReader(ran.out.splitlines())}
    assert rows["sst2-low, b_v"]["published"] == "85.8" and rows["sst2-low, b_v"]["rank"]
    assert Path("out/figure1.csv").read_text() == ran.out
    assert "Ranking against metric" in Path("out/figure1.html").read_text()
    planned = beftkit("paper", "figure1", *how, "--dry-run")
    assert "0 runs to be made" in planned.out and "other than published: model base" in planned.out
    misused(beftkit("paper", "table1"), "no --output was given")
    misused(beftkit("paper", "table9", "-o", "out"), "table9")


def test_table_3_averages_what_its_runs_changed(tiny: Path, data: Path, tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import load_file

    how = {**QUICK, "model": str(tiny / "base"), "data_dir": str(data)}
    found = paper("table3", output=tmp_path, **how)
    assert found.missing == 0 and not found.failed
    rows = {row.cell: row for row in found.rows}
    assert rows["sst2-mean"].published == 81.3 and rows["rte-other"].published == 46.2
    assert rows["sst2-low-v"].percent and rows["sst2-mean"].percent is None, "not 0: v trained"

    def biases(folder: str) -> dict[str, Any]:
        held = load_file(tmp_path / "cells" / folder / "adapter_model.safetensors")
        return {name: one for name, one in held.items() if "value" in name}

    sst2, rte = biases("sst2-low-v-seed0/adapter"), biases("rte-low-v-seed0/adapter")
    mean, other = biases("sst2-mean-seed0/average"), biases("rte-other-seed0/average")
    assert len(mean) == 2
    for name, one in mean.items():
        np.testing.assert_allclose(one, (sst2[name] + rte[name]) / 2, rtol=1e-6)
        np.testing.assert_array_equal(other[name], sst2[name])
    # With biases taken away it is its head over the base.
    assert all(not one.any() for one in biases("sst2-none-seed0/average").values())
    with pytest.raises(BeftError, match="no cell came to its end; sst2-mean-seed0: sst2-low-v"):
        paper("table3", output=tmp_path / "early", cells="sst2-mean", **how)
